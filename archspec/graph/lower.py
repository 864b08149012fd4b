"""Spec -> layer graph: ranges are unfolded, defaults resolved, every reader connected to its cache.

Contract: total. An inconsistent spec gives a graph with less in it (the first declaration of a layer counts, a source
that does not exist is no edge); `checks` says what is missing.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from archspec.graph.layer_graph import CacheNode, LayerGraph, LayerNode
from archspec.spec.model import (
    CacheRef,
    CacheStatement,
    Ffn,
    Heads,
    LayerRange,
    LayersStatement,
    ModelSpec,
    Moe,
    Norm,
    Rope,
)

DEFAULT_NORM = Norm(kind="rms", eps=1e-5)
NO_NORM = Norm(kind="none")
NO_ROPE = Rope(kind="none")


MAX_UNFOLDED = 400_000
"""Layer numbers that are unfolded at most. A spec with more declares layers many times over, which is found before."""


def lower(spec: ModelSpec) -> LayerGraph:
    """Build the layer graph of a spec."""
    layers: dict[int, LayerNode] = {}
    for idx, ranges in unfold(spec).items():
        statement = spec.statements[idx]
        assert isinstance(statement, LayersStatement)
        template: LayerNode | None = None
        for number in chain.from_iterable(ranges):
            if number not in layers:
                template = replace(template, number=number) if template else _layer(spec, idx, statement, number)
                layers[number] = template
    caches = _caches(spec, layers)
    references = References(spec, caches)
    layers = {number: references.pinned(layer) for number, layer in layers.items()}
    sources = {}
    for number, layer in layers.items():
        key = references.own(number) if layer.mixer == "attend" else None
        if layer.mixer == "cross-attend" and layer.source is not None:
            key = references.cache(layer.source)
        if key is not None:
            sources[number] = key
    return LayerGraph(spec.num_layers, dict(sorted(layers.items())), caches, sources)


def unfold(spec: ModelSpec) -> dict[int, list[Sequence[int]]]:
    """Statement -> the layer numbers inside the model that each of its ranges declares; one sequence for `rest`."""
    found: dict[int, list[Sequence[int]]] = {}
    count = 0
    for idx, statement in enumerate(spec.statements):
        if not isinstance(statement, LayersStatement):
            continue
        found[idx] = []
        for part in statement.ranges:
            numbers = _range_numbers(spec, part)
            count += len(numbers)
            found[idx].append(numbers if count <= MAX_UNFOLDED else ())
    if any(not ranges for ranges in found.values()):
        taken = {number for ranges in found.values() for numbers in ranges for number in numbers}
        rest = [number for number in range(1, spec.num_layers + 1) if number not in taken]
        for ranges in found.values():
            if not ranges:
                count += len(rest)
                ranges.append(rest if count <= MAX_UNFOLDED else ())
    return found


def _range_numbers(spec: ModelSpec, part: LayerRange) -> range:
    """One range, clipped to the model; one that runs backwards counts as what was probably meant."""
    ends = [spec.num_layers if end == "last" else end for end in (part.first, part.last)]
    first, last = min(ends), min(max(ends), spec.num_layers)
    start = first if first >= 1 else first + -(-(1 - first) // part.step) * part.step
    return range(start, last + 1, part.step)


def place(spec: ModelSpec, layer: int | str | None) -> int:
    """The number that `cache@N` or `cache@last` means."""
    return layer if isinstance(layer, int) else spec.num_layers


class References:
    """What `cache@12` and `cache main` mean: a projection before a layer's own K/V."""

    def __init__(self, spec: ModelSpec, caches: Mapping[str, CacheNode]) -> None:
        self._spec = spec
        self._caches = caches
        self.projections: dict[int, list[str]] = {}
        """Layer -> keys of the projections of its output."""
        for key, cache in caches.items():
            if cache.projected:
                self.projections.setdefault(cache.layer, []).append(key)
        self._writers = sorted({cache.layer for cache in caches.values()})

    def own(self, number: int) -> str | None:
        """Key of a layer's own K/V."""
        for key in (f"own@{number}", f"cache@{number}"):
            if key in self._caches and not self._caches[key].projected:
                return key
        return None

    def place(self, ref: CacheRef) -> int | None:
        """The layer that a reference gives by number; None if it gives a name, or leaves it to the reader."""
        return None if ref.name is not None or ref.layer == "below" else place(self._spec, ref.layer)

    def pinned(self, reader: LayerNode) -> LayerNode:
        """`cache@below` as the number that it means for this reader: the nearest lower layer that writes a cache."""
        if reader.source is None or reader.source.layer != "below":
            return reader
        idx = bisect_left(self._writers, reader.number)
        return replace(reader, source=CacheRef(layer=self._writers[idx - 1])) if idx else reader

    def cache(self, ref: CacheRef) -> str | None:
        """Key of the cache that a reference means; None if there is none, or more than one."""
        if ref.name is not None:
            return ref.name if ref.name in self._caches and self._caches[ref.name].projected else None
        if ref.layer == "below":
            return None
        number = place(self._spec, ref.layer)
        if f"cache@{number}" in self._caches:
            return f"cache@{number}"
        named = self.projections.get(number, [])
        return named[0] if len(named) == 1 else self.own(number)

    def candidates(self, ref: CacheRef) -> list[str]:
        """The named caches of a layer between which `cache@N` does not choose."""
        if ref.name is not None or ref.layer == "below" or self.cache(ref) is not None:
            return []
        named = self.projections.get(place(self._spec, ref.layer), [])
        return named if len(named) > 1 else []


_T = TypeVar("_T")


def _said(own: _T | None, default: _T | None) -> _T | None:
    return own if own is not None else default


def _norm(spec: ModelSpec, own: Norm | None, default: Norm | None, fallback: Norm) -> Norm:
    """A norm with its eps: its own, else the header's, else 1e-5."""
    norm = _said(own, default) or fallback
    if norm.kind == "none" or norm.eps is not None:
        return norm
    header = spec.defaults.norm
    eps = header.eps if header is not None and header.eps is not None else DEFAULT_NORM.eps
    return norm.model_copy(update={"eps": eps})


def final_norm(spec: ModelSpec) -> Norm:
    """The norm before the output matrix: that of the layers, unless the header gives it one of its own."""
    return _norm(spec, spec.final_norm, spec.defaults.norm, DEFAULT_NORM)


def embed_norm(spec: ModelSpec) -> Norm:
    """The norm of what enters the first layer; usually there is none."""
    return _norm(spec, spec.embedding.norm, None, NO_NORM)


def _layer(spec: ModelSpec, idx: int, statement: LayersStatement, number: int) -> LayerNode:
    own, default = statement.settings, spec.defaults
    heads = _heads(spec, _said(own.heads, default.heads))
    attends = statement.mixer in ("attend", "cross-attend")
    window = _said(own.window, default.window)
    ffn: Ffn | Moe | None = own.ffn if own.ffn is not None else default.ffn
    return LayerNode(
        number=number,
        statement=idx,
        mixer=statement.mixer,
        heads=heads if statement.mixer != "ffn-only" else None,
        kv_heads=_kv_heads(_said(own.kv_heads, default.kv_heads), heads) if statement.mixer == "attend" else None,
        window=window.size if window is not None and attends else None,
        sinks=window.sinks if window is not None and attends else 0,
        rope=_said(own.rope, default.rope) or NO_ROPE,
        norm=_norm(spec, own.norm, default.norm, DEFAULT_NORM),
        placement=_said(own.placement, default.placement) or "pre",
        qk_norm=_norm(spec, own.qk_norm, default.qk_norm, NO_NORM) if attends else NO_NORM,
        attention_scale=_said(own.attention_scale, default.attention_scale),
        attention_softcap=_said(own.attention_softcap, default.attention_softcap) or None,
        diagonal=_said(own.diagonal, default.diagonal) is not False,
        ffn=ffn,
        bias=_said(own.bias, default.bias) or (),
        residual=_said(own.residual, default.residual) or "sequential",
        residual_scale=_said(own.residual_scale, default.residual_scale) or 1.0,
        layer_scalar=_said(own.layer_scalar, default.layer_scalar) is True,
        v_norm=_norm(spec, own.v_norm, default.v_norm, NO_NORM) if statement.mixer == "attend" else NO_NORM,
        values_from_keys=statement.mixer == "attend" and bool(_said(own.values_from_keys, default.values_from_keys)),
        sink_logits=attends and bool(_said(own.sink_logits, default.sink_logits)),
        output_gate=attends and bool(_said(own.output_gate, default.output_gate)),
        source=statement.source,
    )


def _heads(spec: ModelSpec, heads: Heads | None) -> Heads | None:
    """`heads 32` without a size divides the width; None where that does not come out even."""
    if heads is None or heads.head_dim is not None:
        return heads
    return (
        None if spec.hidden_size % heads.count else Heads(count=heads.count, head_dim=spec.hidden_size // heads.count)
    )


def _kv_heads(stated: Heads | None, heads: Heads | None) -> Heads | None:
    """`kv heads 4` has the head_dim of the queries; without `kv heads` there are as many as queries."""
    if stated is None:
        return heads
    if stated.head_dim is not None:
        return stated
    return Heads(count=stated.count, head_dim=heads.head_dim) if heads is not None else None


def _caches(spec: ModelSpec, layers: Mapping[int, LayerNode]) -> dict[str, CacheNode]:
    caches: dict[str, CacheNode] = {}
    for idx, statement in enumerate(spec.statements):
        if isinstance(statement, CacheStatement):
            cache = _projection(spec, idx, statement)
            caches.setdefault(cache.key, cache)
    for number, layer in layers.items():
        if layer.mixer == "attend":
            key = f"own@{number}" if f"cache@{number}" in caches else f"cache@{number}"
            caches[key] = _own_cache(key, layer)
    return caches


def _own_cache(key: str, layer: LayerNode) -> CacheNode:
    return CacheNode(
        key=key,
        layer=layer.number,
        statement=layer.statement,
        projected=False,
        kv_heads=layer.kv_heads,
        window=layer.window,
        sinks=layer.sinks,
        rope=layer.rope,
        norm=NO_NORM,
        k_norm=layer.qk_norm,
        bias="qkv" in layer.bias,
        v_norm=layer.v_norm,
        values_from_keys=layer.values_from_keys,
    )


def _projection(spec: ModelSpec, idx: int, statement: CacheStatement) -> CacheNode:
    own, default = statement.settings, spec.defaults
    number = place(spec, statement.layer)
    window = own.window
    return CacheNode(
        key=statement.name or f"cache@{number}",
        layer=number,
        statement=idx,
        projected=True,
        kv_heads=_kv_heads(_said(own.kv_heads, default.kv_heads), _heads(spec, default.heads)),
        window=window.size if window is not None else None,
        sinks=window.sinks if window is not None else 0,
        rope=_said(own.rope, default.rope) or NO_ROPE,
        norm=_norm(spec, own.norm, default.norm, DEFAULT_NORM),
        k_norm=_norm(spec, own.qk_norm, default.qk_norm, NO_NORM),
        bias="qkv" in (_said(own.bias, default.bias) or ()),
        v_norm=_norm(spec, own.v_norm, default.v_norm, NO_NORM),
        values_from_keys=bool(_said(own.values_from_keys, default.values_from_keys)),
    )
