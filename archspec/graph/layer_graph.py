"""The layer graph: layers and caches as nodes, who writes and who reads as edges. The only user of networkx.

networkx accepts any attribute under any spelling, so the rest of archspec sees these typed methods alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from archspec.spec.model import BiasTarget, CacheRef, Ffn, Heads, Mixer, Moe, Norm, Placement, Residual, Rope

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class LayerNode:
    """One layer with every default resolved. Numbers count from 1."""

    number: int
    statement: int
    mixer: Mixer
    heads: Heads | None
    kv_heads: Heads | None
    """Of `attend` layers; readers own queries only."""
    window: int | None
    sinks: int
    rope: Rope
    norm: Norm
    placement: Placement
    qk_norm: Norm
    attention_scale: float | None
    attention_softcap: float | None
    diagonal: bool
    """Whether a token sees itself; readers of a cache that is written later never do, whatever this says."""
    ffn: Ffn | Moe | None
    bias: tuple[BiasTarget, ...]
    residual: Residual
    residual_scale: float
    layer_scalar: bool
    v_norm: Norm
    """Of `attend` layers, as `values_from_keys` is."""
    values_from_keys: bool
    sink_logits: bool
    output_gate: bool
    source: CacheRef | None
    """What a reader's statement says; `LayerGraph.source_of` is what it means."""


@dataclass(frozen=True)
class CacheNode:
    """Keys and values with one writer: a layer's own, or a projection of its output."""

    key: str
    layer: int
    statement: int
    """Of the `cache` statement, or of the owning layer."""
    projected: bool
    kv_heads: Heads | None
    window: int | None
    sinks: int
    rope: Rope
    norm: Norm
    k_norm: Norm
    bias: bool
    v_norm: Norm
    values_from_keys: bool


@dataclass(frozen=True)
class LevelsGraph:
    """The layer graphs of a model with two levels. No edge leads from one to the other but the context."""

    blocks: "LayerGraph"
    tokens: "LayerGraph"


@dataclass(frozen=True)
class LayerGraph:
    """All layers by number and caches by key; missing layers are simply absent."""

    num_layers: int
    layers: Mapping[int, LayerNode]
    caches: Mapping[str, CacheNode]
    sources: Mapping[int, str]
    """Layer number -> key of the cache it attends to, its own included; absent where that is no cache."""

    def source_of(self, number: int) -> CacheNode | None:
        """The cache that a layer attends to; None if it attends to none, or to one that does not exist."""
        key = self.sources.get(number)
        return None if key is None else self.caches[key]

    def readers_of(self, key: str) -> tuple[int, ...]:
        """Numbers of the layers that attend to a cache, ascending."""
        return self._readers.get(key, ())

    @property
    def _readers(self) -> dict[str, tuple[int, ...]]:
        cached: dict[str, tuple[int, ...]] | None = self.__dict__.get("_readers_by_key")
        if cached is None:
            lists: dict[str, list[int]] = {}
            for number, key in sorted(self.sources.items()):
                lists.setdefault(key, []).append(number)
            cached = {key: tuple(numbers) for key, numbers in lists.items()}
            object.__setattr__(self, "_readers_by_key", cached)
        return cached

    def forward_reads(self) -> Iterator[tuple[LayerNode, CacheNode]]:
        """Readers that run before the cache they read is written.

        A layer's own K/V exist before it attends, a projection of its output only after it has run.
        """
        for number, key in self.sources.items():
            cache = self.caches[key]
            if number < cache.layer or (number == cache.layer and cache.projected):
                yield self.layers[number], cache

    def reader_cycles(self, reads: Mapping[int, int]) -> list[list[int]]:
        """Cycles among readers that name one another as source (`reads`: reader -> layer it names)."""
        cycles, seen = [], set()
        for start in reads:  # each reader names one layer: walking on from every layer once meets every cycle once
            path: dict[int, int] = {}
            number = start
            while number in reads and number not in seen:
                seen.add(number)
                path[number] = len(path)
                number = reads[number]
            if number in path and len(path) - path[number] > 1:
                cycles.append(list(path)[path[number] :])
        return cycles

    def digraph(self) -> "nx.DiGraph[str]":
        """Data flow as a networkx graph: `layer 3` -> `cache@3` -> `layer 4`, for dumps and drawings."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        numbers = sorted(self.layers)
        graph.add_nodes_from(f"layer {number}" for number in numbers)
        graph.add_edges_from((f"layer {a}", f"layer {b}", {"kind": "residual"}) for a, b in pairwise(numbers))
        for key, cache in self.caches.items():
            graph.add_edge(f"layer {cache.layer}", key, kind="writes")
            graph.add_edges_from((key, f"layer {number}", {"kind": "reads"}) for number in self.readers_of(key))
        return graph
