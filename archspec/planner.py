"""Layer graph -> plan: slots, steps and the prefill exit.

Contract: `make_plan` expects a spec that `archspec.checks` found free of errors.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from typing import TypeVar

from archspec.graph.iteration import covers, cycles, iterations, write_place
from archspec.graph.layer_graph import CacheNode, LayerGraph, LayerNode
from archspec.graph.lower import embed_norm, final_norm
from archspec.levels_plan import LevelsPlan
from archspec.plan import (
    AttentionPlan,
    CacheSlot,
    IterationGroup,
    LayerPlan,
    Plan,
    RetentionPlan,
    StateSlot,
    Step,
)
from archspec.spec.levels import LevelsSpec, block_view, token_view
from archspec.spec.model import DECAYS, ModelSpec

_T = TypeVar("_T")


def make_plan(spec: ModelSpec, graph: LayerGraph) -> Plan:
    """Settle every decision about a checked spec."""
    slots = tuple(_slot(idx, graph, cache) for idx, cache in enumerate(_caches_in_writing_order(graph)))
    slot_idx = {slot.name: slot.idx for slot in slots}
    retentive = [layer for layer in graph.layers.values() if layer.mixer in DECAYS]
    states = tuple(_state(idx, layer) for idx, layer in enumerate(retentive))
    state_idx = {state.writer_idx: state.idx for state in states}
    layers = tuple(_layer(graph, layer, slot_idx, state_idx) for layer in graph.layers.values())
    body, groups = _grouped(spec, graph, tuple(_steps(graph, slot_idx)), slot_idx)
    scale = spec.embedding.scale
    return Plan(
        name=spec.name,
        hidden_size=spec.hidden_size,
        vocab_size=spec.vocab_size,
        embed_scale=sqrt(spec.hidden_size) if scale == "sqrt(width)" else float(scale),
        tied_embeddings=spec.embedding.tied,
        final_norm=final_norm(spec),
        layers=layers,
        slots=slots,
        states=states,
        body=body,
        exit_idx=prefill_exit(layers, body),
        groups=groups,
        final_softcap=spec.final_softcap,
        embed_norm=embed_norm(spec),
        positions=spec.embedding.positions,
        head_bias=spec.head_bias,
        logit_scale=spec.logit_scale,
    )


def make_levels_plan(spec: LevelsSpec, blocks: LayerGraph, tokens: LayerGraph) -> LevelsPlan:
    """Settle every decision about a checked spec of two levels, given the layer graph of each."""
    block_plan = make_plan(block_view(spec), blocks)
    token_plan = make_plan(token_view(spec), tokens)
    take, length = spec.tokens.take, spec.blocks.length
    return LevelsPlan(
        name=spec.name,
        block_length=length,
        lookup=spec.blocks.lookup,
        take=take.kind,
        num_context=length if take.length is None else take.length,
        blocks=replace(block_plan, inputs="vectors", outputs="vectors"),
        tokens=replace(token_plan, inputs="vectors", embed_scale=1.0),
        token_embed_scale=token_plan.embed_scale,
    )


def prefill_exit(layers: tuple[LayerPlan, ...], body: tuple[Step, ...]) -> int:
    """How many steps of `body` must see every prompt token: up to the last that writes K/V or a state.

    Whatever stands after it is needed for the position whose logits are asked for, and for no other.
    """
    writes = [
        position
        for position, step in enumerate(body, start=1)
        if step.op in ("write", "iterate") or isinstance(layers[step.idx].mixer, RetentionPlan)
    ]
    return max(writes, default=0)


def _caches_in_writing_order(graph: LayerGraph) -> list[CacheNode]:
    return sorted(graph.caches.values(), key=lambda cache: (cache.layer, cache.projected))


def _steps(graph: LayerGraph, slot_idx: dict[str, int]) -> Iterator[Step]:
    """A layer's own K/V are written before it attends, projections of its output after it has run."""
    written: dict[tuple[int, bool], list[str]] = {}
    for cache in _caches_in_writing_order(graph):
        written.setdefault((cache.layer, cache.projected), []).append(cache.key)
    for number in graph.layers:
        yield from (Step("write", slot_idx[key]) for key in written.get((number, False), ()))
        yield Step("layer", number - 1)
        yield from (Step("write", slot_idx[key]) for key in written.get((number, True), ()))


def _grouped(
    spec: ModelSpec, graph: LayerGraph, steps: tuple[Step, ...], slot_idx: dict[str, int]
) -> tuple[tuple[Step, ...], tuple[IterationGroup, ...]]:
    """Put the steps of each cycle into a group, with the passes of the `iterate` statement that covers it."""
    keys = {idx: key for key, idx in slot_idx.items()}
    places = [(step.idx + 1, 1) if step.op == "layer" else write_place(graph.caches[keys[step.idx]]) for step in steps]
    body: list[Step] = []
    groups: list[IterationGroup] = []
    start = 0
    for cycle in cycles(graph):
        begin, end = bisect_left(places, cycle.first), bisect_right(places, cycle.last)
        passes = next(statement for statement in iterations(spec) if covers(spec, statement, cycle))
        body += [*steps[start:begin], Step("iterate", len(groups))]
        groups.append(
            IterationGroup(
                idx=len(groups),
                steps=steps[begin:end],
                late_slots=tuple(sorted({slot_idx[key] for _, key in cycle.late})),
                forward=passes.forward,
                backward=passes.backward,
            )
        )
        start = end
    return (*body, *steps[start:]), tuple(groups)


def _slot(idx: int, graph: LayerGraph, cache: CacheNode) -> CacheSlot:
    heads = _checked(cache.kv_heads)
    return CacheSlot(
        idx=idx,
        name=cache.key,
        writer_idx=cache.layer - 1,
        projected=cache.projected,
        readers=tuple(number - 1 for number in graph.readers_of(cache.key)),
        num_kv_heads=heads.count,
        head_dim=heads.head_dim or 0,
        window=cache.window,
        rope=cache.rope,
        norm=cache.norm,
        k_norm=cache.k_norm,
        bias=cache.bias,
        sinks=cache.sinks,
        v_norm=cache.v_norm,
        values_from_keys=cache.values_from_keys,
    )


def _state(idx: int, layer: LayerNode) -> StateSlot:
    heads = _checked(layer.heads)
    name = f"state@{layer.number}"
    return StateSlot(idx, name, layer.number - 1, num_heads=heads.count, head_dim=heads.head_dim or 0)


def _layer(graph: LayerGraph, layer: LayerNode, slot_idx: dict[str, int], state_idx: dict[int, int]) -> LayerPlan:
    idx = layer.number - 1
    mixer: AttentionPlan | RetentionPlan | None = None
    if layer.mixer in ("attend", "cross-attend"):
        mixer = _attention(graph, layer, slot_idx)
    elif layer.mixer in DECAYS:
        heads = _checked(layer.heads)
        mixer = RetentionPlan(
            num_heads=heads.count,
            head_dim=heads.head_dim or 0,
            state_idx=state_idx[idx],
            rope=layer.rope,
            norm_eps=layer.norm.eps or 1e-5,
            decay=DECAYS[layer.mixer],
        )
    ffn = layer.ffn if layer.ffn is not None and layer.ffn.kind != "none" else None
    return LayerPlan(
        idx=idx,
        mixer=mixer,
        ffn=ffn,
        norm=layer.norm,
        ffn_bias="ffn" in layer.bias,
        residual=layer.residual,
        placement=layer.placement,
        residual_scale=layer.residual_scale,
        layer_scalar=layer.layer_scalar,
    )


def _attention(graph: LayerGraph, layer: LayerNode, slot_idx: dict[str, int]) -> AttentionPlan:
    heads = _checked(layer.heads)
    cache = _checked(graph.source_of(layer.number))
    return AttentionPlan(
        num_heads=heads.count,
        head_dim=heads.head_dim or 0,
        slot_idx=slot_idx[cache.key],
        owns_kv=layer.mixer == "attend",
        window=layer.window,
        rope=cache.rope,
        q_norm=layer.qk_norm,
        qkv_bias="qkv" in layer.bias,
        out_bias="out" in layer.bias,
        scale=layer.attention_scale or (heads.head_dim or 1) ** -0.5,
        softcap=layer.attention_softcap,
        sees_self=layer.diagonal and (layer.number, 1) >= write_place(cache),
        sinks=layer.sinks,
        sink_logits=layer.sink_logits,
        output_gate=layer.output_gate,
    )


def _checked(value: _T | None) -> _T:
    assert value is not None, "make_plan needs a spec without errors"
    return value
