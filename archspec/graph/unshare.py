"""The same model without sharing: every reader gets keys and values of its own, as many as the cache it read."""

from archspec.graph.layer_graph import LayerGraph
from archspec.spec.model import CacheStatement, LayerRange, LayersStatement, ModelSpec, PrefillExitStatement


def without_sharing(spec: ModelSpec, graph: LayerGraph) -> ModelSpec:
    """A spec in which every reader attends to its own K/V; what else it says stays. For a checked spec only.

    Readers keep their window and take over kv heads and rope of the cache. The result is the baseline that a layout is
    compared with: equal in all but the sharing.
    """
    statements: list[LayersStatement | CacheStatement | PrefillExitStatement] = []
    for idx, statement in enumerate(spec.statements):
        if not isinstance(statement, LayersStatement):
            continue
        numbers = [number for number, layer in graph.layers.items() if layer.statement == idx]
        ranges = statement.ranges or tuple(LayerRange(first=number, last=number) for number in numbers)
        cache = graph.source_of(numbers[0]) if numbers else None
        if statement.source is None or cache is None:
            statements.append(statement.model_copy(update={"ranges": ranges}))
            continue
        own = {"kv_heads": cache.kv_heads, "rope": cache.rope}
        settings = statement.settings.model_copy(update=own)
        statements.append(LayersStatement(ranges=ranges, mixer="attend", settings=settings))
    return spec.model_copy(update={"name": f"{spec.name}-unshared", "statements": tuple(statements)})
