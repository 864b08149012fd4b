"""The located syntax tree: what was written and where, before any word is looked up."""

from dataclasses import dataclass
from typing import Literal

from archspec.source import Span


@dataclass(frozen=True)
class Atom:
    """A word or number."""

    value: str | int | float
    span: Span


@dataclass(frozen=True)
class Clause:
    """`heads 24 x 128` is Clause("heads", (24, 128)); `no window` is Clause("negation", ("window",))."""

    key: str
    args: tuple[Atom, ...]
    span: Span
    parts: "tuple[Clause, ...]" = ()
    """Clauses inside of it: `rope 10000 scaled linear(8)` is Clause("rope", (10000,)) with Clause("scaling", ...)."""


@dataclass(frozen=True)
class Item:
    """One element of a layer list. `first` or `last` is None where the writer left it open (`13-`)."""

    kind: Literal["range", "rest"]
    first: int | Literal["last"] | None
    last: int | Literal["last"] | None
    step: int
    span: Span


@dataclass(frozen=True)
class Reference:
    """`cache@12`, `cache@below` or `cache main`."""

    layer: int | Literal["last", "below"] | None
    name: str | None
    span: Span
    level: Atom | None = None
    """`blocks` or `tokens` before it: `blocks.cache@3`."""


@dataclass(frozen=True)
class Mixer:
    """`attend`, `cross-attend to cache@12`; the word is not looked up yet."""

    word: Atom
    source: Reference | None
    span: Span


@dataclass(frozen=True)
class Header:
    settings: tuple[Clause, ...]
    span: Span


@dataclass(frozen=True)
class Layers:
    items: tuple[Item, ...]
    mixer: Mixer
    clauses: tuple[Clause, ...]
    span: Span
    list_span: Span
    """`layers 13-24`: what a label about these layers points at."""


@dataclass(frozen=True)
class Cache:
    layer: int | Literal["last"]
    name: str | None
    clauses: tuple[Clause, ...]
    span: Span
    head_span: Span


@dataclass(frozen=True)
class Iterate:
    layers: Item
    forward: Atom
    backward: Atom
    span: Span


@dataclass(frozen=True)
class PrefillExit:
    after: Reference
    span: Span


@dataclass(frozen=True)
class Level:
    """`blocks of 4 tokens { ... }`, `tokens in block { ... }`."""

    kind: Literal["blocks", "tokens"]
    length: Atom | None
    statements: "tuple[Statement, ...]"
    span: Span
    head_span: Span


@dataclass(frozen=True)
class Emit:
    """`emit context`."""

    name: Atom
    span: Span


@dataclass(frozen=True)
class Take:
    """`prefix 2 from blocks.context`, `summation from blocks.context`."""

    kind: Literal["prefix", "summation"]
    length: Atom | None
    level: Atom
    name: Atom
    span: Span
    door_span: Span


Statement = Header | Layers | Cache | Iterate | PrefillExit | Level | Emit | Take


@dataclass(frozen=True)
class Model:
    name: Atom
    statements: tuple[Statement, ...]
    span: Span
    lost: frozenset[str] = frozenset()
    """Kinds of statements (`header`, `layers`, `cache`, `exit`, `any`) of which one could not be read at all."""
    holes: tuple[int, ...] = ()
    """Where clauses were dropped: the statement around such a place is incomplete. Ascending."""
