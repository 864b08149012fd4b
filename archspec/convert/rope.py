"""RoPE as configs state it: in fields beside the others, in `rope_scaling`, in `rope_parameters` (transformers 5).

What is stated more than once must agree. Of the ways to scale it, those whose frequencies depend on nothing but the
config are read: `linear`, `llama3` and `yarn`; the others are refused. Where layers differ in RoPE, there is an object
for each of their types.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import log
from typing import Literal

from archspec.convert.config import Config
from archspec.spec.model import LinearScaling, Llama3Scaling, Rope, Scaling, YarnScaling, scaling_problem

RopeKind = Literal["half", "interleaved", "proportional"]

Stated = tuple[str, float]
"""A field, and the number in it."""
DEFAULT_THETA = 10000.0
_THETA, _PART = "rope_theta", "partial_rotary_factor"
_ORIGINAL = "original_max_position_embeddings"
_SCALINGS: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
    "yarn": (
        "factor",
        _ORIGINAL,
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
}
"""Kind -> the fields that say how it scales."""
_UNREAD = {"longrope": "its factors change when the context grows", "dynamic": "the base changes with the context"}
"""Why some kinds are no scaling that a spec can have."""
_ALIASES = {"su": "longrope"}
TYPED = "rope_parameters"
"""The object that holds those of the layers' types."""


@dataclass(frozen=True)
class RopeFields:
    """Where a family states the base, and which part of a head is rotated; without `part`, all of it must be."""

    theta: tuple[str, ...] = (_THETA,)
    part: tuple[str, ...] = ()
    default_part: float = 1.0
    default_theta: float = DEFAULT_THETA
    kind: RopeKind = "half"
    """Which dimensions are turned together. `proportional` is one that the objects may ask for."""
    objects: tuple[str, ...] = ("rope_scaling", TYPED)
    """Fields with objects for RoPE; `a.b` is b in the object a."""

    def of_type(self, layer_type: str, **changes: object) -> "RopeFields":
        """The fields for layers of one type, which have an object of their own."""
        return replace(self, **{"objects": (f"{TYPED}.{layer_type}",), **changes})  # type: ignore[arg-type]


LLAMA = RopeFields()


def read_rope(config: Config, head_dim: int, fields: RopeFields = LLAMA) -> Rope:
    """RoPE that turns what the family turns together."""
    nested = list(_nested(config, fields))
    _, theta = _agreed(config, "RoPE base", _stated(config, fields.theta, nested, _THETA), fields.default_theta)
    name, part = _agreed(config, "rotated part", _stated(config, fields.part, nested, _PART), fields.default_part)
    dims = int(head_dim * part)
    if fields.kind == "proportional":
        dims -= dims % 2  # of so many pairs
    percent = 100 if part == 1 else percent_of(head_dim, dims) if fields.part else None
    if percent is None:
        config.refuse(f"RoPE on a part of {part:g} of {head_dim} dimensions", name, part)
    scaling = _scaling(config, theta, fields)
    return Rope(kind=fields.kind, theta=theta, percent=percent or 100, scaling=scaling)


def read_rope_of_type(config: Config, layer_type: str, head_dim: int, fields: RopeFields) -> Rope:
    """RoPE of the layers of one type, whose object may ask for `proportional`."""
    typed = fields.of_type(layer_type)
    if any(_kind(values) == "proportional" for _, values in _objects(config, typed)):
        typed = replace(typed, kind="proportional", part=(_PART,))
    return read_rope(config, head_dim, typed)


def check_types(config: Config, layer_types: Iterable[str]) -> None:
    """Refuse objects for RoPE of other types of layers than these."""
    values = config.get(TYPED)
    for key, value in values.items() if isinstance(values, dict) else ():
        if key not in layer_types:
            config.refuse("RoPE that is not stated for a type of layers", f"{TYPED}.{key}", value)


def percent_of(head_dim: int, dims: int) -> int | None:
    """The percentage of a head that is exactly its first `dims` dimensions, the roundest one; None if there is none."""
    nearest = round(100 * dims / head_dim)
    found = [percent for percent in range(1, 101) if head_dim * percent // 100 == dims and dims % 2 == 0]
    return min(found, key=lambda percent: abs(percent - nearest), default=None)


def _scaling(config: Config, theta: float, rope: RopeFields) -> Scaling | None:
    """What `rope_scaling` and `rope_parameters` say, which must be the same."""
    found: dict[str, Scaling] = {}
    for name, fields in _objects(config, rope):
        kind = _kind(fields)
        if kind == "proportional" and fields.get("factor") not in (None, 1, 1.0):
            kind = "linear"
        if kind not in _SCALINGS:
            continue
        values = _Values(config, name, fields)
        lacking = [key for key in _NEEDED[kind] if not values.has(key)]
        if lacking:
            config.refuse(f"RoPE scaling of type {kind} without {' and '.join(lacking)}", name, fields)
            continue
        scaling = _SCALING_READERS[kind](values)
        problem = scaling_problem(rope.kind, theta, scaling)
        if problem is not None:
            raise config.bad(name, f"a scaling that can be: {kind} {problem}", fields)
        found[name] = scaling
    if len(set(found.values())) > 1:
        first, *others = found
        config.refuse(f"a RoPE scaling that differs from `{first}`", others[0], _field(config, others[0]))
    return next(iter(found.values()), None)


@dataclass(frozen=True)
class _Values:
    """The numbers of one of the objects for RoPE."""

    config: Config
    name: str
    fields: dict[str, object]

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key)
        value = default if value is None else value
        return self.config.checked_number(f"{self.name}.{key}", value)

    def count(self, key: str) -> int:
        value = self.number(key)
        if value != int(value):
            raise self.config.bad(f"{self.name}.{key}", "a whole number", value)
        return int(value)

    def has(self, key: str) -> bool:
        return self._value(key) is not None

    def _value(self, key: str) -> object:
        """As stated; the original context, where nothing is said, is that of the config."""
        value = self.fields.get(key)
        return self.config.get("max_position_embeddings") if value is None and key == _ORIGINAL else value


def _linear(values: _Values) -> Scaling:
    return LinearScaling(factor=values.number("factor"))


def _llama3(values: _Values) -> Scaling:
    return Llama3Scaling(
        factor=values.number("factor"),
        low=values.number("low_freq_factor"),
        high=values.number("high_freq_factor"),
        original=values.count(_ORIGINAL),
    )


def _yarn(values: _Values) -> Scaling:
    truncate = values.fields.get("truncate")
    if truncate is not None and not isinstance(truncate, bool):
        raise values.config.bad(f"{values.name}.truncate", "true or false", truncate)
    if truncate is False and "." in values.name:
        # transformers 5 looks for it beside the types, finds none, and truncates.
        values.config.refuse("a ramp without truncation for one type of layers", f"{values.name}.truncate", truncate)
    return YarnScaling(
        factor=values.number("factor"),
        original=values.count(_ORIGINAL),
        fast=values.number("beta_fast", 32.0),
        slow=values.number("beta_slow", 1.0),
        attention_factor=_attention_factor(values),
        truncate=truncate is not False,
    )


def _attention_factor(values: _Values) -> float | None:
    """As stated, or the ratio that DeepSeek's two mscales make; None for the paper's."""
    if values.has("attention_factor"):
        return values.number("attention_factor")
    if not (values.has("mscale") and values.has("mscale_all_dim")):
        return None
    factor = values.number("factor")
    if factor <= 1:
        return 1.0
    shown, all_dims = (0.1 * values.number(key) * log(factor) + 1 for key in ("mscale", "mscale_all_dim"))
    return shown / all_dims


_SCALING_READERS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn}
_NEEDED = {"linear": ("factor",), "llama3": _SCALINGS["llama3"], "yarn": ("factor", _ORIGINAL)}


def _stated(config: Config, names: Iterable[str], nested: list[Stated], key: str) -> list[Stated]:
    beside = [(name, config.number(name)) for name in names if config.get(name) is not None]
    return beside + [(name, value) for name, value in nested if name.endswith(f".{key}")]


def _agreed(config: Config, what: str, stated: list[Stated], default: float) -> Stated:
    """The first of several fields for the same thing; others that differ are refused."""
    if not stated:
        return "", default
    first, value = stated[0]
    for name, other in stated[1:]:
        if other != value:
            config.refuse(f"a {what} that differs from `{first}` {value:g}", name, other)
    return first, value


def _field(config: Config, name: str) -> object:
    """The value of a field; `a.b` is b in the object a."""
    key, *path = name.split(".")
    value = config.get(key)
    for part in path:
        if value is not None and not isinstance(value, dict):
            raise config.bad(key, "an object", value)
        value = value.get(part) if value is not None else None
    return value


def _objects(config: Config, rope: RopeFields) -> Iterator[tuple[str, dict[str, object]]]:
    """The objects for RoPE that are there, by name."""
    for name in rope.objects:
        fields = _field(config, name)
        if isinstance(fields, dict):
            yield name, fields
        elif fields is not None:
            raise config.bad(name, "an object", fields)


def _kind(fields: dict[str, object]) -> str:
    kind = str(fields.get("rope_type", fields.get("type", "default")))
    return _ALIASES.get(kind, kind)


def _nested(config: Config, rope: RopeFields) -> Iterator[Stated]:
    """Base and part from the objects for RoPE; what is neither that nor a scaling is refused."""
    for name, fields in _objects(config, rope):
        kind = _kind(fields)
        own = ("factor",) if kind == "proportional" == rope.kind else _SCALINGS.get(kind, ())
        known = kind == "default" or kind == "proportional" == rope.kind or kind in _SCALINGS
        if not known:
            why = f", where {_UNREAD[kind]}" if kind in _UNREAD else ""
            config.refuse(f"RoPE scaling of type {kind}{why}", name, fields)
        for key, value in fields.items():
            if key in ("rope_type", "type") or value is None or key in own:
                continue
            if key in (_THETA, _PART):
                yield f"{name}.{key}", config.checked_number(f"{name}.{key}", value)
            elif known:
                config.refuse("RoPE other than the default", f"{name}.{key}", value)
