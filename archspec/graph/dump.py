"""The layer graph as text and as plain values."""

from typing import Any

from archspec.diagnostics import layer_numbers
from archspec.graph.layer_graph import LayerGraph, LevelsGraph


def graph_text(graph: LayerGraph | LevelsGraph) -> str:
    """One line a layer, what it reads and writes; one line a cache."""
    if isinstance(graph, LevelsGraph):
        return f"blocks\n{graph_text(graph.blocks)}\ntokens\n{graph_text(graph.tokens)}"
    writes: dict[int, list[str]] = {}
    for key, cache in graph.caches.items():
        writes.setdefault(cache.layer, []).append(key)
    lines = []
    for number, layer in graph.layers.items():
        reads = f", reads {graph.sources[number]}" if number in graph.sources else ""
        written = f", writes {', '.join(writes[number])}" if number in writes else ""
        lines.append(f"layer {number}: {layer.mixer}{reads}{written}")
    for key, cache in graph.caches.items():
        kind = "projection of layer" if cache.projected else "own K/V of layer"
        readers = layer_numbers([number - 1 for number in graph.readers_of(key)]) if graph.readers_of(key) else "nobody"
        lines.append(f"{key}: {kind} {cache.layer}, read by {readers}")
    return "\n".join(lines)


def graph_json(graph: LayerGraph | LevelsGraph) -> dict[str, Any]:
    """Nodes and edges of the data flow; of each level, where there are two."""
    if isinstance(graph, LevelsGraph):
        return {"blocks": graph_json(graph.blocks), "tokens": graph_json(graph.tokens)}
    flow = graph.digraph()
    return {
        "nodes": list(flow.nodes),
        "edges": [{"from": a, "to": b, "kind": kind} for a, b, kind in flow.edges(data="kind")],
    }
