"""Which layers must be iterated because they read caches that are written later.

Layers run in a row, so that a read of a later cache closes a cycle over all steps from the reader to the write. The
strongly connected components of the graph of steps are therefore the unions of overlapping reader-to-write intervals.
"""

from dataclasses import dataclass

from archspec.graph.layer_graph import CacheNode, LayerGraph
from archspec.graph.lower import place
from archspec.spec.model import IterateStatement, ModelSpec

Place = tuple[int, int]
"""A step in execution order: layer number, and 0 for the write of its own K/V, 1 for the layer, 2 for projections."""


@dataclass(frozen=True)
class Cycle:
    """Steps `first` to `last`, both included, that depend on one another."""

    first: Place
    last: Place
    late: tuple[tuple[int, str], ...]
    """Reader and key of the cache that it reads before it is written."""

    @property
    def layers(self) -> range:
        """Numbers of the layers that take part, the one that only writes its K/V included."""
        return range(self.first[0], self.last[0] + 1)


def write_place(cache: CacheNode) -> Place:
    """When a cache is written."""
    return cache.layer, 2 if cache.projected else 0


def cycles(graph: LayerGraph) -> tuple[Cycle, ...]:
    """The groups of steps to iterate, in order; disjoint."""
    found: list[Cycle] = []
    reads = sorted((layer.number, cache.key) for layer, cache in graph.forward_reads())
    for number, key in reads:
        first, last = (number, 1), write_place(graph.caches[key])
        if found and first <= found[-1].last:
            merged = found.pop()
            found.append(Cycle(merged.first, max(merged.last, last), (*merged.late, (number, key))))
        else:
            found.append(Cycle(first, last, ((number, key),)))
    return tuple(found)


def iterations(spec: ModelSpec) -> list[IterateStatement]:
    """The `iterate` statements of a spec."""
    return [statement for statement in spec.statements if isinstance(statement, IterateStatement)]


def touches(spec: ModelSpec, statement: IterateStatement, cycle: Cycle) -> bool:
    """Whether some layer of a cycle stands in the statement's range."""
    layers = cycle.layers
    return place(spec, statement.first) <= layers[-1] and layers[0] <= place(spec, statement.last)


def covers(spec: ModelSpec, statement: IterateStatement, cycle: Cycle) -> bool:
    """Whether all layers of a cycle stand in the statement's range."""
    layers = cycle.layers
    return place(spec, statement.first) <= layers[0] and layers[-1] <= place(spec, statement.last)
