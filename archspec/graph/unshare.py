"""The same model without sharing: every reader gets keys and values of its own, as many as the cache it read."""

from typing import Any

from archspec.graph.layer_graph import LayerGraph, LevelsGraph
from archspec.spec.levels import LevelsSpec
from archspec.spec.model import LayerRange, LayersStatement, ModelSpec, Statement

_OF_THE_CACHE = ("kv_heads", "rope", "v_norm", "values_from_keys")


def without_sharing(spec: ModelSpec, graph: LayerGraph | LevelsGraph) -> ModelSpec:
    """A spec in which every reader attends to its own K/V; what else it says stays. For a checked spec only.

    Readers keep their window and take over kv heads, rope and values of the cache. The result is the baseline that a
    layout is compared with: equal in all but the sharing.
    """
    name = f"{spec.name}-unshared"
    if isinstance(graph, LayerGraph):
        return spec.model_copy(update={"name": name, "statements": _owners(spec.statements, graph)})
    assert isinstance(spec, LevelsSpec)
    blocks, tokens = (
        level.model_copy(update={"statements": _owners(level.statements, part)})
        for level, part in ((spec.blocks, graph.blocks), (spec.tokens, graph.tokens))
    )
    return spec.model_copy(update={"name": name, "blocks": blocks, "tokens": tokens})


def _owners(all_statements: tuple[Statement, ...], graph: LayerGraph) -> tuple[Statement, ...]:
    """The statements of a stack in which every reader is an owner."""
    statements: list[Statement] = []
    for idx, statement in enumerate(all_statements):
        if not isinstance(statement, LayersStatement):
            continue
        numbers = [number for number, layer in graph.layers.items() if layer.statement == idx]
        if statement.source is None:
            ranges = statement.ranges or _ranges(numbers)
            statements.append(statement.model_copy(update={"ranges": ranges}))
            continue
        for own, members in _by_keys(graph, numbers):
            settings = statement.settings.model_copy(update=own)
            statements.append(LayersStatement(ranges=_ranges(members), mixer="attend", settings=settings))
    return tuple(statements)


def _by_keys(graph: LayerGraph, numbers: list[int]) -> list[tuple[dict[str, Any], list[int]]]:
    """Readers of one statement by what belongs to the cache that each of them reads, keys and values as it has them."""
    found: list[tuple[dict[str, Any], list[int]]] = []
    for number in numbers:
        cache = graph.source_of(number)
        own = {} if cache is None else {key: getattr(cache, key) for key in _OF_THE_CACHE}
        if found and found[-1][0] == own:
            found[-1][1].append(number)
        else:
            found.append((own, [number]))
    return found


def _ranges(numbers: list[int]) -> tuple[LayerRange, ...]:
    return tuple(LayerRange(first=number, last=number) for number in numbers)
