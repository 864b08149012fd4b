"""Settings without weights in which two models differ, though one starts from the weights of the other."""

from collections.abc import Iterator, Sequence

from archspec.diagnostics import layer_numbers
from archspec.plan import AttentionPlan, LayerPlan, Plan
from archspec.spec.format import rope_text

STACK = {
    "embed_scale": "the scale of embeddings",
    "logit_scale": "the scale of logits",
    "final_softcap": "the softcap of logits",
}
LAYER = {
    "residual": "the form of the residual",
    "placement": "the place of norms",
    "residual_scale": "the scale of what layers add",
}
MIXER = {"scale": "the scale of scores", "softcap": "the softcap of scores"}


def differences(source: Plan, target: Plan, mapping: Sequence[int]) -> Iterator[str]:
    """A line for each setting; what layers see, their windows and sources, is what a conversion is for."""
    for name, words in STACK.items():
        ours, theirs = getattr(target, name), getattr(source, name)
        if ours != theirs:
            yield f"{words} is {_shown(theirs)} in the source, {_shown(ours)} here"
    pairs = [(layer, source.layers[idx]) for layer, idx in zip(target.layers, mapping, strict=True)]
    for name, words in LAYER.items():
        yield from _by_layer(words, [(ours, getattr(ours, name), getattr(theirs, name)) for ours, theirs in pairs])
    attending = [
        (layer, layer.mixer, theirs.mixer)
        for layer, theirs in pairs
        if isinstance(layer.mixer, AttentionPlan) and isinstance(theirs.mixer, AttentionPlan)
    ]
    for name, words in MIXER.items():
        yield from _by_layer(words, [(layer, getattr(a, name), getattr(b, name)) for layer, a, b in attending])
    ropes = [(layer, rope_text(a.rope), rope_text(b.rope)) for layer, a, b in attending]
    yield from _by_layer("the rotation of queries and keys", ropes)


def _by_layer(words: str, values: Sequence[tuple[LayerPlan, object, object]]) -> Iterator[str]:
    groups: dict[tuple[object, object], list[int]] = {}
    for layer, ours, theirs in values:
        if ours != theirs:
            groups.setdefault((theirs, ours), []).append(layer.idx)
    for (theirs, ours), layers in groups.items():
        yield f"{words} is `{_shown(theirs)}` in the source, `{_shown(ours)}` in {layer_numbers(layers)} here"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
