"""The dense model that a layout is compared with: the same layers, each with full attention over keys of its own.

What stays of a spec: the number of layers, widths, heads, ffns, norms, embeddings. What goes:

- sharing: a reader attends to keys and values of its own, with as many heads as the cache had that it read;
- windows, sinks of windows, `no diagonal`, passes that iterate, the prefill exit;
- recurrent states: such a layer becomes attention with as many heads (its gates go with the mixer);
- levels: the layers of both levels become one stack over tokens, as the vanilla models of the Block Transformer's paper
  (arXiv 2406.02657) have as many layers as both levels. Where the levels differ in width, every layer is one of the
  wider level, and there are as many as come nearest to the parameters of the layers of both.

`graph.unshare` is the other comparison: it takes away the sharing alone.
"""

from math import prod
from typing import Any

from archspec.graph.layer_graph import LayerGraph, LayerNode, LevelsGraph
from archspec.graph.lower import embed_norm, final_norm
from archspec.parameters import ffn_shapes, moe_shapes
from archspec.spec.fold import LayerDescription, fold_layers
from archspec.spec.levels import LevelsSpec, block_view, token_view
from archspec.spec.model import Embedding, Ffn, ModelSpec, Moe, Settings

_OF_THE_CACHE = ("kv_heads", "rope", "v_norm", "values_from_keys")


def dense(spec: ModelSpec, graph: LayerGraph | LevelsGraph) -> ModelSpec:
    """The dense model of a checked spec. A model that is dense already comes out with the same plan."""
    if isinstance(graph, LayerGraph):
        return _model(spec, spec.name, spec.embedding, _layers(graph))
    assert isinstance(spec, LevelsSpec)
    top = token_view(spec)
    # Learned positions of the token level are those of a block.
    embedding = top.embedding.model_copy(update={"positions": None})
    if spec.blocks.hidden_size == spec.tokens.hidden_size:
        return _model(top, spec.name, embedding, [*_layers(graph.blocks), *_layers(graph.tokens)])
    levels = {spec.tokens.hidden_size: (top, graph.tokens), spec.blocks.hidden_size: (block_view(spec), graph.blocks)}
    wanted = sum(_num_parameters(_layers(part), width) for width, (_, part) in levels.items())
    width = max(levels)
    shape, part = levels[width]
    widened = top.model_copy(update={"hidden_size": width, "defaults": shape.defaults})
    return _model(widened, spec.name, embedding, _repeated(_layers(part), width, wanted))


def _model(spec: ModelSpec, name: str, embedding: Embedding, layers: list[LayerDescription]) -> ModelSpec:
    """One stack of these layers under what is around the layers of `spec`."""
    folded = fold_layers(layers)
    norm = embed_norm(spec)
    return ModelSpec(
        name=f"{name}-dense",
        num_layers=len(layers),
        hidden_size=spec.hidden_size,
        vocab_size=spec.vocab_size,
        embedding=embedding.model_copy(update={"norm": norm if norm.kind != "none" else None}),
        final_norm=final_norm(spec),
        head_bias=spec.head_bias,
        logit_scale=spec.logit_scale,
        final_softcap=spec.final_softcap,
        defaults=folded.defaults,
        statements=folded.statements,
    )


def _layers(graph: LayerGraph) -> list[LayerDescription]:
    return [_layer(graph, layer) for layer in graph.layers.values()]


def _layer(graph: LayerGraph, layer: LayerNode) -> LayerDescription:
    """A layer with every setting stated, so that no header counts."""
    common: dict[str, Any] = {
        "norm": layer.norm,
        "placement": layer.placement,
        "ffn": layer.ffn or Ffn(kind="none"),
        "bias": layer.bias,
        "residual_scale": layer.residual_scale,
        "layer_scalar": layer.layer_scalar,
    }
    if layer.mixer == "ffn-only":
        return LayerDescription("ffn-only", Settings(**common))
    cache = graph.source_of(layer.number)
    own: dict[str, Any] = {key: getattr(cache or layer, key) for key in _OF_THE_CACHE}
    settings = Settings(
        **common,
        **own | {"kv_heads": own["kv_heads"] or layer.heads},
        residual=layer.residual,
        heads=layer.heads,
        qk_norm=layer.qk_norm,
        attention_scale=layer.attention_scale,
        attention_softcap=layer.attention_softcap,
        sink_logits=layer.sink_logits,
        output_gate=layer.output_gate,
    )
    return LayerDescription("attend", settings)


def _repeated(layers: list[LayerDescription], width: int, wanted: int) -> list[LayerDescription]:
    """These layers over and over, until their parameters come nearest to `wanted`."""
    found: list[LayerDescription] = []
    total = 0
    while total < wanted:
        layer = layers[len(found) % len(layers)]
        size = _num_parameters([layer], width)
        if found and total + size - wanted > wanted - total:
            break
        found.append(layer)
        total += size
    return found


def _num_parameters(layers: list[LayerDescription], width: int) -> int:
    """Of the matrices of attention and ffn."""
    return sum(
        _attention_parameters(layer.settings, width) + _ffn_parameters(layer.settings, width) for layer in layers
    )


def _attention_parameters(settings: Settings, width: int) -> int:
    sizes = [heads.count * (heads.head_dim or 0) for heads in (settings.heads, settings.kv_heads) if heads is not None]
    return 2 * width * sum(sizes)


def _ffn_parameters(settings: Settings, width: int) -> int:
    ffn = settings.ffn
    if ffn is None or ffn.kind == "none":
        return 0
    shapes = moe_shapes("", ffn, width, False) if isinstance(ffn, Moe) else ffn_shapes("", ffn, width, False)
    return sum(prod(shape) for _, shape in shapes)
