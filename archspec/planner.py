"""Layer graph -> plan: slots, steps and the prefill exit.

Contract: `make_plan` expects a spec that `archspec.checks` found free of errors.
"""

from collections.abc import Iterator
from math import sqrt
from typing import TypeVar

from archspec.graph.layer_graph import CacheNode, LayerGraph, LayerNode
from archspec.graph.lower import final_norm
from archspec.plan import (
    AttentionPlan,
    CacheSlot,
    LayerPlan,
    Plan,
    RetentionPlan,
    StateSlot,
    Step,
)
from archspec.spec.model import ModelSpec

_T = TypeVar("_T")


def make_plan(spec: ModelSpec, graph: LayerGraph) -> Plan:
    """Settle every decision about a checked spec."""
    slots = tuple(_slot(idx, graph, cache) for idx, cache in enumerate(_caches_in_writing_order(graph)))
    slot_idx = {slot.name: slot.idx for slot in slots}
    retentive = [layer for layer in graph.layers.values() if layer.mixer == "retention"]
    states = tuple(_state(idx, layer) for idx, layer in enumerate(retentive))
    state_idx = {state.writer_idx: state.idx for state in states}
    layers = tuple(_layer(graph, layer, slot_idx, state_idx) for layer in graph.layers.values())
    body = tuple(_steps(graph, slot_idx))
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
    )


def prefill_exit(layers: tuple[LayerPlan, ...], body: tuple[Step, ...]) -> int:
    """How many steps of `body` must see every prompt token: up to the last that writes K/V or a state.

    Whatever stands after it is needed for the position whose logits are asked for, and for no other.
    """
    writes = [
        position
        for position, step in enumerate(body, start=1)
        if step.op == "write" or isinstance(layers[step.idx].mixer, RetentionPlan)
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
    elif layer.mixer == "retention":
        heads = _checked(layer.heads)
        mixer = RetentionPlan(heads.count, heads.head_dim or 0, state_idx[idx], layer.rope, layer.norm.eps or 1e-5)
    ffn = layer.ffn if layer.ffn is not None and layer.ffn.kind != "none" else None
    return LayerPlan(
        idx=idx,
        mixer=mixer,
        ffn=ffn,
        norm=layer.norm,
        ffn_bias="ffn" in layer.bias,
        parallel_residual=layer.parallel_residual,
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
    )


def _checked(value: _T | None) -> _T:
    assert value is not None, "make_plan needs a spec without errors"
    return value
