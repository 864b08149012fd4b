"""The located syntax tree: what was written and where, before any word is looked up.

Where a name or an expression stands for a number, a node holds a stand-in, and `computed` says of which field. What
`archspec.compose` yields is plain: no `computed`, no `lets`, no `removals`, no `like` and no template as a mixer.
"""

from dataclasses import dataclass
from typing import Literal

from archspec.source import Span


@dataclass(frozen=True)
class Number:
    """A number in an expression."""

    value: int
    span: Span


@dataclass(frozen=True)
class Name:
    """The name of a `let` in an expression."""

    word: str
    span: Span


@dataclass(frozen=True)
class Arithmetic:
    """`W * 2 / 3`, `S + 1 - T`: operands from left to right, with one operator less between them."""

    operands: "tuple[Expression, ...]"
    operators: tuple[str, ...]
    span: Span


Expression = Number | Name | Arithmetic
Computed = tuple[tuple[str, Expression], ...]
"""Fields of a node whose number is still to be computed."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A word or number."""

    value: str | int | float
    span: Span
    computed: Computed = ()


@dataclass(frozen=True, slots=True)
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
    computed: Computed = ()


@dataclass(frozen=True)
class Reference:
    """`cache@12`, `cache@below` or `cache main`."""

    layer: int | Literal["last", "below"] | None
    name: str | None
    span: Span
    level: Atom | None = None
    """`blocks` or `tokens` before it: `blocks.cache@3`."""
    computed: Computed = ()


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
    damaged: bool = False
    """Whether a setting was dropped from it because it could not be read."""
    unknown: frozenset[str] = frozenset()
    """Settings that it makes, but whose values could not be computed; they are not in it."""


@dataclass(frozen=True)
class Layers:
    items: tuple[Item, ...]
    mixer: Mixer
    clauses: tuple[Clause, ...]
    span: Span
    list_span: Span
    """`layers 13-24`: what a label about these layers points at."""
    damaged: bool = False
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Cache:
    layer: int | Literal["last"]
    name: str | None
    clauses: tuple[Clause, ...]
    span: Span
    head_span: Span
    computed: Computed = ()
    damaged: bool = False
    unknown: frozenset[str] = frozenset()


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
    lets: "tuple[Let, ...]" = ()
    removals: "tuple[Removal, ...]" = ()


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
class Let:
    """`let W = 1024`: a number by its name, for `window W`, `window (W / 2)` and `layers 1-W`."""

    name: Atom
    value: Expression
    span: Span


@dataclass(frozen=True)
class Removal:
    """`no layers 3-4`, `no cache@13`, `no iterate`, `no prefill exit`: takes a statement of the base away."""

    kind: Literal["layers", "cache", "iterate", "exit"]
    items: tuple[Item, ...]
    cache: Reference | None
    span: Span


@dataclass(frozen=True)
class Model:
    """`model b { ... }`, `model b extends a { ... }`: a base with other statements in some places."""

    name: Atom
    statements: tuple[Statement, ...]
    span: Span
    lost: frozenset[str] = frozenset()
    """Kinds of statements (`header`, `layers`, `cache`, `exit`, `any`) of which one could not be read at all."""
    base: Atom | None = None
    """`model b extends a { ... }`: `a`, with what `b` says in the place of what `a` says."""
    lets: tuple[Let, ...] = ()
    removals: tuple[Removal, ...] = ()


@dataclass(frozen=True)
class Define:
    """`define local { attend, window W }`: a template, for `layers 1-4 local`, and its settings for `like local`."""

    name: Atom
    mixer: Mixer | None
    clauses: tuple[Clause, ...]
    span: Span
    damaged: bool = False


@dataclass(frozen=True)
class Use:
    """`use "common.arch"`: the numbers, templates and models of another file. `path` stands between the quotes."""

    path: str
    span: Span


@dataclass(frozen=True)
class File:
    """One file, in its order. The last of its models is what it describes."""

    uses: tuple[Use, ...] = ()
    lets: tuple[Let, ...] = ()
    defines: tuple[Define, ...] = ()
    models: tuple[Model, ...] = ()
    lost: frozenset[str] = frozenset()
    composed: bool = False
    """Whether anything in it has to be composed; if not, its model is plain as it stands."""
