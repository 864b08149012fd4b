"""Layer by layer -> statements as a person would write them: ranges, steps, and what is common in the header.

Contract: lowering the folded form gives back every layer as it was described, in a spec without other defaults. A
`cache` statement beside them inherits `heads`, `rope`, `norm`, `qk_norm` and `bias` from the header as usual.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from archspec.spec.model import CacheRef, LayerRange, LayersStatement, Mixer, Settings

LISTED_RANGES = 3
"""A statement that would list more ranges than this becomes `layers rest`, if it is the only one."""
STEPPED_LAYERS = 3
"""Layers at a constant distance that are worth a `step`."""

_ATTENDS: tuple[Mixer, ...] = ("attend", "cross-attend")
_MIXES: tuple[Mixer, ...] = ("attend", "cross-attend", "retention")
_USERS: dict[str, tuple[Mixer, ...]] = {
    "heads": _MIXES,
    "kv_heads": ("attend",),
    "window": _ATTENDS,
    "rope": _MIXES,
    "qk_norm": _ATTENDS,
    "v_norm": ("attend",),
    "values_from_keys": ("attend",),
    "sink_logits": _ATTENDS,
    "output_gate": _ATTENDS,
}
"""Mixers that a setting means something to; all of them where it is not listed."""


@dataclass(frozen=True)
class LayerDescription:
    """One layer with every setting that it has; the description of a model is one of these a layer, from layer 1."""

    mixer: Mixer
    settings: Settings
    source: CacheRef | None = None


Groups = dict[tuple[Mixer, CacheRef | None, Settings], list[int]]


@dataclass(frozen=True)
class Folded:
    """Header defaults, and statements ordered by their first layer."""

    defaults: Settings
    statements: tuple[LayersStatement, ...]


def fold_layers(layers: Sequence[LayerDescription]) -> Folded:
    """Join equal layers; what all users of a setting agree on, or several statements would repeat, is in the header."""
    defaults = _common(layers)
    defaults = defaults.model_copy(update=_repeated(_groups(layers, defaults)))
    groups = _groups(layers, defaults)
    statements = [
        LayersStatement(ranges=tuple(folded_ranges(numbers)), mixer=mixer, source=source, settings=own)
        for (mixer, source, own), numbers in groups.items()
    ]
    return Folded(defaults, _with_rest(statements))


def _groups(layers: Sequence[LayerDescription], defaults: Settings) -> Groups:
    """The numbers of layers that are alike, by what is left to say of them."""
    groups: Groups = {}
    for number, layer in enumerate(layers, start=1):
        own = _without(layer.settings, defaults)
        groups.setdefault((layer.mixer, layer.source, own), []).append(number)
    return groups


def _repeated(groups: Groups) -> dict[str, object]:
    """What more than one statement would say, of settings that no statement leaves out: the most frequent values."""
    repeated = {}
    for key in Settings.model_fields:
        values = [getattr(own, key) for mixer, _, own in groups if mixer in _USERS.get(key, (mixer,))]
        if len(values) < len(groups) or None in values or key == "norm":  # the header's is the final norm as well
            continue
        value, count = Counter(values).most_common(1)[0]
        if count > 1:
            repeated[key] = value
    return repeated


def _common(layers: Sequence[LayerDescription]) -> Settings:
    """The settings that every layer with a use for them states, and states alike."""
    common = {}
    for key in Settings.model_fields:
        users = [layer for layer in layers if layer.mixer in _USERS.get(key, (layer.mixer,))]
        values = {getattr(layer.settings, key) for layer in users}
        if len(values) == 1:
            common[key] = values.pop()
    return Settings(**common)


def _without(settings: Settings, defaults: Settings) -> Settings:
    """What is left to say for a layer."""
    return Settings(
        **{key: value for key in Settings.model_fields if (value := getattr(settings, key)) != getattr(defaults, key)}
    )


def folded_ranges(numbers: Sequence[int]) -> Iterator[LayerRange]:
    """Ascending numbers as runs, steps and single layers: 1, 3, 5, 8, 9 -> `1-5 step 2, 8-9`."""
    start = 0
    while start < len(numbers):
        end, step = _progression(numbers, start)
        yield LayerRange(first=numbers[start], last=numbers[end], step=step)
        start = end + 1


def _progression(numbers: Sequence[int], start: int) -> tuple[int, int]:
    """Index of the last number of the longest range that begins at `start`, and the range's step."""
    if start + 1 == len(numbers):
        return start, 1
    step, end = numbers[start + 1] - numbers[start], start + 1
    while end + 1 < len(numbers) and numbers[end + 1] - numbers[end] == step:
        end += 1
    if step > 1 and end - start + 1 < STEPPED_LAYERS:
        return start, 1
    return end, step


def _with_rest(statements: list[LayersStatement]) -> tuple[LayersStatement, ...]:
    """The statement with the longest list of ranges becomes `layers rest`, behind the others it is the rest of."""
    if not statements:
        return ()
    longest = max(statements, key=lambda statement: len(statement.ranges))
    if len(longest.ranges) <= LISTED_RANGES:
        return tuple(statements)
    others = [statement for statement in statements if statement is not longest]
    return (*others, longest.model_copy(update={"ranges": ()}))
