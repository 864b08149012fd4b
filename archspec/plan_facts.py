"""A plan as named facts in words, each independent of names, of the order of statements and of slot numbers.

Contract: two plans with equal facts compute the same. Fields without words of their own are shown under their name.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

from pydantic import BaseModel

from archspec.diagnostics import layer_numbers
from archspec.levels_plan import LevelsPlan
from archspec.plan import DTYPE_BYTES, AttentionPlan, CacheSlot, LayerPlan, Plan
from archspec.spec.format import number_text, positions_text, settings_text
from archspec.spec.levels import Lookup
from archspec.spec.model import Ffn, Moe, Norm, Positions, Rope, Settings

_NAMES = {
    "hidden_size": "width",
    "vocab_size": "vocab",
    "embed_scale": "embedding scale",
    "token_embed_scale": "embedding scale of tokens",
    "q_norm": "q-norm",
    "k_norm": "k-norm",
    "v_norm": "v-norm",
    "num_context": "vectors of a context",
}
NO_EXIT = "none: every layer runs for every token"
READ_BY = "read by"
BYTES_OF = "bfloat16"
_KEYS: dict[type[BaseModel], str] = {Rope: "rope", Norm: "qk_norm", Ffn: "ffn", Moe: "ffn"}
"""The setting in which a value can say all that it means: a norm, how it goes over heads."""


@dataclass(frozen=True)
class Fact:
    """A value in words; `relative` is the same seen from its layer N, where that is worth saying."""

    text: str
    relative: str = ""


Facts = Mapping[str, Fact]


@dataclass(frozen=True)
class StackFacts:
    """What there is to say about one stack. A fact that is not there means no, none or what is usual."""

    header: Facts
    layers: tuple[Facts, ...]
    own_caches: Mapping[int, Facts]
    """By the index of the layer."""
    caches: Mapping[str, Facts]
    """Projections."""
    prefill: Facts


def joined(facts: Facts) -> Fact:
    """All facts in one: `attend, heads 4 x 32, ...`."""
    words = {what: "" if what == "mixer" else f"{what} " for what in facts}
    text = ", ".join(words[what] + fact.text for what, fact in facts.items())
    return Fact(text, ", ".join(words[what] + (fact.relative or fact.text) for what, fact in facts.items()))


def level_facts(plan: LevelsPlan) -> Facts:
    """Of a model of two levels, the levels themselves aside."""
    return _generic(plan, skip={"name", "blocks", "tokens"})


def stack_facts(plan: Plan, other: Plan) -> StackFacts:
    """Facts of a plan that is compared with another: the caches that both have get the same label."""
    labels = _labels(plan, other)
    passes = {
        step.idx: {"iterates": Fact(f"{group.forward} forward, {group.backward} backward")}
        for group in plan.groups
        for step in group.steps
        if step.op == "layer"
    }
    skip = {"name", "layers", "slots", "states", "body", "exit_idx", "groups", "embed_scale"}
    header = {"layers": Fact(str(len(plan.layers))), **_generic(plan, skip=skip)}
    if plan.embed_scale != 1.0:
        is_root = plan.embed_scale == plan.hidden_size**0.5
        header["embedding scale"] = Fact("sqrt(width)" if is_root else number_text(plan.embed_scale))
    return StackFacts(
        header=header,
        layers=tuple({**_layer(plan, layer, labels), **passes.get(layer.idx, {})} for layer in plan.layers),
        own_caches={slot.writer_idx: _cache(slot) for slot in plan.slots if not slot.projected},
        caches={labels[slot.idx]: _projection(slot) for slot in plan.slots if slot.projected},
        prefill={"exit": Fact(_exit(plan, labels))},
    )


def _labels(plan: Plan, other: Plan) -> dict[int, str]:
    """Slot -> what it is called: by its layer. Names tell caches of one layer apart, if both sides have them."""
    theirs = {(slot.writer_idx, slot.name) for slot in other.slots if slot.projected}
    labels: dict[int, str] = {}
    unnamed: list[CacheSlot] = []
    number: Counter[int] = Counter()
    for slot in plan.slots:
        place = f"cache@{slot.writer_idx + 1}"
        if not slot.projected:
            labels[slot.idx] = f"layer {slot.writer_idx + 1}'s K/V"
        elif (slot.writer_idx, slot.name) in theirs:
            labels[slot.idx] = place if slot.name == place else f"cache {slot.name}@{slot.writer_idx + 1}"
            number[slot.writer_idx] += 1
        else:
            unnamed.append(slot)
    for slot in sorted(unnamed, key=_sort_key):
        number[slot.writer_idx] += 1
        count = number[slot.writer_idx]
        labels[slot.idx] = f"cache@{slot.writer_idx + 1}" + (f" #{count}" if count > 1 else "")
    return labels


def _sort_key(slot: CacheSlot) -> list[str]:
    return [f"{what} {fact.text}" for what, fact in _projection(slot).items()]


_SLOT = {"idx", "name", "writer_idx", "projected", "readers", "num_kv_heads", "head_dim", "window", "sinks"}
_OWN = _SLOT | {"bias"}
"""A layer's own K/V have the biases of its queries."""
_MIXER = {"slot_idx", "state_idx", "owns_kv", "num_heads", "head_dim", "scale", "rope", "norm_eps", "sees_self"}


def _layer(plan: Plan, layer: LayerPlan, labels: Mapping[int, str]) -> Facts:
    """One layer, its own K/V included: heads, window, rope, norms, ffn."""
    skip = {"idx", "mixer", *(() if layer.ffn else ("ffn_bias",))}
    return {**_mixer(plan, layer, labels), **_generic(layer, skip=skip)}


def _mixer(plan: Plan, layer: LayerPlan, labels: Mapping[int, str]) -> dict[str, Fact]:
    mixer = layer.mixer
    if mixer is None:
        return {"mixer": Fact("ffn-only")}
    heads = Fact(f"{mixer.num_heads} x {mixer.head_dim}")
    if not isinstance(mixer, AttentionPlan):
        kind = Fact(type(mixer).__name__.removesuffix("Plan").lower())
        return {"mixer": kind, "heads": heads, **_generic(mixer, skip=_MIXER - {"rope"})}
    slot = plan.slots[mixer.slot_idx]
    facts = {"mixer": _attention(layer.idx, mixer, slot, labels[slot.idx]), "heads": heads}
    if mixer.owns_kv:
        facts |= {"kv heads": Fact(f"{slot.num_kv_heads} x {slot.head_dim}"), **_generic(slot, skip=_OWN)}
    if mixer.scale != mixer.head_dim**-0.5:
        facts["scale"] = Fact(number_text(mixer.scale))
    if not mixer.sees_self:
        facts["sees"] = Fact("earlier tokens only")
    return {**facts, **_generic(mixer, skip=_MIXER)}


def _attention(idx: int, mixer: AttentionPlan, slot: CacheSlot, label: str) -> Fact:
    if mixer.owns_kv:
        return Fact("attend")
    offset = slot.writer_idx - idx
    relative = f"cross-attend to layer N{offset:+d}'s K/V" if not slot.projected else ""
    return Fact(f"cross-attend to {label}", relative)


def _cache(slot: CacheSlot) -> dict[str, Fact]:
    keeps = "all" if slot.window is None else f"last {slot.window}"
    if slot.sinks:
        keeps = f"first {slot.sinks}, {keeps}"
    readers = layer_numbers(slot.readers) if slot.readers else "nobody"
    if slot.readers == (slot.writer_idx,):
        read_by = Fact("itself")
    else:
        offsets = " and ".join(f"N{reader - slot.writer_idx:+d}" for reader in slot.readers)
        read_by = Fact(readers, f"layers {offsets}".replace("N+0", "N") if len(slot.readers) <= 2 else "")
    token_bytes = slot.elements_per_token * DTYPE_BYTES[BYTES_OF]
    return {
        "kv heads": Fact(f"{slot.num_kv_heads} x {slot.head_dim}"),
        f"bytes a token ({BYTES_OF})": Fact(f"{token_bytes:,}"),
        "keeps": Fact(keeps),
        READ_BY: read_by,
    }


def _projection(slot: CacheSlot) -> dict[str, Fact]:
    return {**_cache(slot), **_generic(slot, skip=_SLOT)}


def _exit(plan: Plan, labels: Mapping[int, str]) -> str:
    """The last write, and the layers after it."""
    rest = [step.idx for step in plan.body[plan.exit_idx :] if step.op == "layer"]
    if plan.exit_idx == 0:
        return "before all layers"
    last = plan.body[plan.exit_idx - 1]
    if last.op == "iterate":
        last = plan.groups[last.idx].steps[-1]
    done = labels[last.idx] if last.op == "write" else f"layer {last.idx + 1}"
    return f"after {done}: {layer_numbers(rest)} for the last position only" if rest else NO_EXIT


def _generic(thing: Any, skip: set[str]) -> dict[str, Fact]:
    """The fields of a dataclass that are not as usual, by name."""
    values = ((each, getattr(thing, each.name)) for each in fields(thing) if each.name not in skip)
    return {
        _NAMES.get(each.name, each.name.replace("_", " ")): Fact(_text(value))
        for each, value in values
        if not _is_usual(each, value)
    }


def _is_usual(each: "Field[Any]", value: Any) -> bool:
    if each.default is not MISSING:
        return bool(value == each.default)
    return value is None or value is False or getattr(value, "kind", None) == "none"


def _text(value: Any) -> str:
    """A value in the words of the language, where it has any; equal only for equal values."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return number_text(value)
        case Rope() | Norm() | Ffn() | Moe():
            key = _KEYS[type(value)]
            return settings_text(Settings.model_validate({key: value}))[0].removeprefix(f"{key.replace('_', '-')} ")
        case Positions():
            return positions_text(value).removeprefix("positions ")
        case Lookup():
            return f"{value.size} {value.merge}"
        case _:
            return str(value)
