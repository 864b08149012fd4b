"""RoPE as configs state it: in fields beside the others, in `rope_scaling`, in `rope_parameters` (transformers 5).

What is stated more than once must agree. Of the ways to scale it, those whose frequencies depend on nothing but the
config are read: `linear`, `llama3` and `yarn`; the others are refused.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import log

from archspec.convert.config import Config
from archspec.spec.model import LinearScaling, Llama3Scaling, Rope, Scaling, YarnScaling, scaling_problem

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


@dataclass(frozen=True)
class RopeFields:
    """Where a family states the base, and which part of a head is rotated; without `part`, all of it must be."""

    theta: tuple[str, ...] = (_THETA,)
    part: tuple[str, ...] = ()
    default_part: float = 1.0


LLAMA = RopeFields()


def read_rope(config: Config, head_dim: int, fields: RopeFields = LLAMA) -> Rope:
    """RoPE on halves, as all families of transformers here have it."""
    nested = list(_nested(config))
    _, theta = _agreed(config, "RoPE base", _stated(config, fields.theta, nested, _THETA), DEFAULT_THETA)
    name, part = _agreed(config, "rotated part", _stated(config, fields.part, nested, _PART), fields.default_part)
    percent = round(100 * part)
    # The dimensions that the reference rotates are those of the spec's percentage.
    if int(head_dim * part) != head_dim * percent // 100 or not 1 <= percent <= 100 or (part != 1 and not fields.part):
        config.refuse(f"RoPE on a part of {part:g} of {head_dim} dimensions", name, part)
        percent = 100
    return Rope(kind="half", theta=theta, percent=percent, scaling=_scaling(config, theta))


def _scaling(config: Config, theta: float) -> Scaling | None:
    """What `rope_scaling` and `rope_parameters` say, which must be the same."""
    found: dict[str, Scaling] = {}
    for name, fields in _objects(config):
        kind = _kind(fields)
        if kind not in _SCALINGS:
            continue
        lacking = [key for key in _NEEDED[kind] if fields.get(key) is None]
        if lacking:
            config.refuse(f"RoPE scaling of type {kind} without {' and '.join(lacking)}", name, fields)
            continue
        scaling = _SCALING_READERS[kind](_Values(config, name, fields))
        problem = scaling_problem("half", theta, scaling)
        if problem is not None:
            raise config.bad(name, f"a scaling that can be: {kind} {problem}", fields)
        found[name] = scaling
    if len(set(found.values())) > 1:
        stated = config.get("rope_parameters")
        config.refuse("a RoPE scaling that differs from `rope_scaling`", "rope_parameters", stated)
    return next(iter(found.values()), None)


@dataclass(frozen=True)
class _Values:
    """The numbers of one of the objects for RoPE."""

    config: Config
    name: str
    fields: dict[str, object]

    def number(self, key: str, default: float | None = None) -> float:
        value = self.fields.get(key)
        value = default if value is None else value
        return self.config.checked_number(f"{self.name}.{key}", value)

    def count(self, key: str) -> int:
        value = self.number(key)
        if value != int(value):
            raise self.config.bad(f"{self.name}.{key}", "a whole number", value)
        return int(value)

    def has(self, key: str) -> bool:
        return self.fields.get(key) is not None


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


def _objects(config: Config) -> Iterator[tuple[str, dict[str, object]]]:
    """The objects for RoPE that are there, by name."""
    for name in ("rope_scaling", "rope_parameters"):
        fields = config.get(name)
        if isinstance(fields, dict):
            yield name, fields
        elif fields is not None:
            raise config.bad(name, "an object", fields)


def _kind(fields: dict[str, object]) -> str:
    return str(fields.get("rope_type", fields.get("type", "default")))


def _nested(config: Config) -> Iterator[Stated]:
    """Base and part from the objects for RoPE; what is neither that nor a scaling is refused."""
    for name, fields in _objects(config):
        kind = _kind(fields)
        if kind != "default" and kind not in _SCALINGS:
            config.refuse(f"RoPE scaling of type {kind}", name, fields)
        for key, value in fields.items():
            if key in ("rope_type", "type") or value is None or key in _SCALINGS.get(kind, ()):
                continue
            if key in (_THETA, _PART):
                yield f"{name}.{key}", config.checked_number(f"{name}.{key}", value)
            elif kind == "default" or kind in _SCALINGS:
                config.refuse("RoPE other than the default", f"{name}.{key}", value)
