"""What every check looks at."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from archspec.diagnostics import Diagnostic, layer_numbers
from archspec.graph.iteration import Cycle, cycles, iterations, touches
from archspec.graph.layer_graph import CacheNode, LayerGraph, LayerNode
from archspec.graph.lower import References, unfold
from archspec.source import Span
from archspec.spec.elaborate import HEADER, Elaborated
from archspec.spec.elaborate_levels import LevelElaborated
from archspec.spec.model import CacheRef, LayersStatement, ModelSpec
from archspec.spec.spans import SpecSpans, StatementSpans


@dataclass(frozen=True)
class Readers:
    """Layers of one statement that read the same cache, or that all got none."""

    idx: int
    statement: LayersStatement
    ref: CacheRef
    layers: tuple[LayerNode, ...]
    cache: CacheNode | None

    @property
    def shown(self) -> str:
        """`layers 13-24`."""
        return layer_numbers([layer.number - 1 for layer in self.layers], short=True)


@dataclass(frozen=True)
class Context:
    """A spec, its places and its graph. A check is a function from here to diagnostics."""

    elaborated: Elaborated
    graph: LayerGraph

    @property
    def spec(self) -> ModelSpec:
        return self.elaborated.spec

    @property
    def spans(self) -> SpecSpans:
        return self.elaborated.spans

    @property
    def is_level(self) -> bool:
        """Whether this is one level of a model with two."""
        return isinstance(self.elaborated, LevelElaborated)

    @property
    def stack(self) -> str:
        """What these layers are all of, in messages."""
        return "level" if self.is_level else "model"

    @property
    def total_known(self) -> bool:
        """Whether the header's number of layers can be relied on."""
        return self.elaborated.sure(HEADER, "layers")

    def misses(self, *kinds: str) -> bool:
        """Whether a statement of one of these kinds could not be read, so that its absence proves nothing."""
        return self.elaborated.misses(*kinds)

    def sure(self, statement: int, *keys: str) -> bool:
        """Whether what holds for these settings of a statement is what was written."""
        return not self.elaborated.unsure or all(self.elaborated.sure(statement, key) for key in keys)

    def doubts(self, statement: int, key: str) -> bool:
        """Whether the `mixer` or the `ranges` of a statement were reported and are a guess."""
        return self.elaborated.doubts(statement, key)

    def places(self, statement: int) -> StatementSpans:
        return self.spans.statements[statement]

    def head(self, statement: int) -> Span:
        """`layers 13-24` or `cache@13` of a statement."""
        return self.places(statement).head

    def source_span(self, statement: int) -> Span:
        """`cache@12` in a reader's statement."""
        places = self.places(statement)
        return places.source or places.whole

    @cached_property
    def references(self) -> References:
        return References(self.spec, self.graph.caches)

    @cached_property
    def unfolded(self) -> Mapping[int, list[Sequence[int]]]:
        """Statement -> the layer numbers of each of its ranges."""
        return unfold(self.spec)

    @cached_property
    def by_statement(self) -> Mapping[int, tuple[LayerNode, ...]]:
        """Statement -> the layers for which it counts, ascending; statements without any are absent."""
        found: dict[int, list[LayerNode]] = {}
        for layer in self.graph.layers.values():
            found.setdefault(layer.statement, []).append(layer)
        return {idx: tuple(found[idx]) for idx in sorted(found)}

    @cached_property
    def cache_names(self) -> tuple[str, ...]:
        """Names of caches that have one."""
        return tuple(key for key in self.graph.caches if "@" not in key)

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """Layers with keys and values of their own, ascending."""
        return tuple(number for number, layer in self.graph.layers.items() if layer.mixer == "attend")

    @cached_property
    def readers(self) -> tuple[Readers, ...]:
        """Readers by statement and by the cache they got."""
        found = []
        for idx, layers in self.by_statement.items():
            statement = self.spec.statements[idx]
            if not isinstance(statement, LayersStatement) or statement.source is None:
                continue
            groups: dict[str | None, list[LayerNode]] = {}
            for layer in layers:
                groups.setdefault(self.graph.sources.get(layer.number), []).append(layer)
            for key, group in groups.items():
                cache = None if key is None else self.graph.caches[key]
                found.append(Readers(idx, statement, statement.source, tuple(group), cache))
        return tuple(found)

    @cached_property
    def cycles(self) -> tuple[Cycle, ...]:
        """Groups of steps that depend on one another, because layers read caches that are written later."""
        return cycles(self.graph)

    @cached_property
    def cycle_of(self) -> Mapping[int, Cycle]:
        """Reader of a later cache -> the layers that depend on one another through it."""
        return {number: cycle for cycle in self.cycles for number, _ in cycle.late}

    @cached_property
    def iterated(self) -> frozenset[int]:
        """Readers of later caches for which there is an `iterate` statement, right or wrong."""
        statements = iterations(self.spec)
        touched = (c for c in self.cycles if any(touches(self.spec, statement, c) for statement in statements))
        return frozenset(number for cycle in touched for number, _ in cycle.late)

    @cached_property
    def readers_by_statement(self) -> Mapping[int, tuple[Readers, ...]]:
        return {idx: tuple(group) for idx, group in groupby(self.readers, key=lambda readers: readers.idx)}


def cache_name(cache: CacheNode) -> str:
    """`cache@12` or `cache main`."""
    return f"cache@{cache.layer}" if "@" in cache.key else f"cache {cache.key}"


Check = Callable[[Context], Iterator[Diagnostic]]
