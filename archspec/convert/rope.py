"""RoPE as configs state it: in fields beside the others, in `rope_scaling`, in `rope_parameters` (transformers 5).

What is stated more than once must agree, and every way of rotating but the default is refused.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from archspec.convert.config import Config
from archspec.spec.model import Rope

Stated = tuple[str, float]
"""A field, and the number in it."""
DEFAULT_THETA = 10000.0
_THETA, _PART = "rope_theta", "partial_rotary_factor"


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
    return Rope(kind="half", theta=theta, percent=percent)


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


def _nested(config: Config) -> Iterator[Stated]:
    """Base and part from the objects for RoPE; everything else in them is refused."""
    for name in ("rope_scaling", "rope_parameters"):
        fields = config.get(name)
        if fields is None:
            continue
        if not isinstance(fields, dict):
            raise config.bad(name, "an object", fields)
        kind = fields.get("rope_type", fields.get("type", "default"))
        if kind != "default":
            config.refuse(f"RoPE scaling of type {kind}", name, fields)
        for key, value in fields.items():
            if key in ("rope_type", "type") or value is None:
                continue
            if key in (_THETA, _PART):
                yield f"{name}.{key}", config.checked_number(f"{name}.{key}", value)
            elif kind == "default":
                config.refuse("RoPE other than the default", f"{name}.{key}", value)
