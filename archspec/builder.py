"""Specs from Python: `Builder("yoco", layers=26, ...)`, a method call a statement, `build()`.

What is built is text, a clause an argument, and goes through the parser and the checks as a file does: so every clause
of the language can be said here, as a string where there is no argument for it, and findings point into that text.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

from archspec.driver import parse_spec_text
from archspec.fmt import format_source
from archspec.source import Source
from archspec.spec.format import settings_text
from archspec.spec.model import (
    CacheRef,
    Ffn,
    Heads,
    LayerRange,
    ModelSpec,
    Moe,
    Norm,
    Placement,
    Residual,
    Rope,
    Settings,
    Window,
)

Layers = int | str | LayerRange | Iterable[int | str | LayerRange]
"""`3`, `"1-13"`, `"rest"`, `[1, "21-last"]`; counted from 1, both ends included."""
HeadsLike = int | tuple[int, int] | str | Heads
"""`24`, `(24, 128)`, `"24 x 128"`."""
Number = int | float | str


class Clauses(TypedDict, total=False):
    """Settings of the header, of layers and of caches. A string is what stands behind the word in the language.

    `False` takes a default back: `window=False` is `no window`.
    """

    heads: HeadsLike
    kv_heads: HeadsLike
    window: int | Literal[False] | Window
    sinks: int
    rope: Number | Literal[False] | Rope
    norm: str | Literal[False] | Norm
    qk_norm: str | bool | Norm
    v_norm: str | bool | Norm
    values_from_keys: bool
    ffn: str | Literal[False] | Ffn | Moe
    bias: str | bool
    residual: Residual
    residual_scale: Number
    layer_scalar: bool
    norms: Placement
    """`norms="sandwich"` is `sandwich norms`."""
    attention_scale: Number
    attention_softcap: Number
    softcap: Literal[False]
    sink_logits: bool
    output_gate: bool
    diagonal: Literal[False]


class HeaderClauses(Clauses, total=False):
    """Those of a model or level."""

    width: int
    vocab: int
    embed_scale: Number
    embed_lookup: tuple[int, Literal["concat", "sum"]]
    embed_norm: str
    positions: str
    """`positions="learned 1024"`."""
    tied_embeddings: Literal[True]
    final_norm: str | Literal[False]
    head_bias: Literal[True]
    logit_scale: Number
    final_softcap: Number


_HYPHENATED = ("qk_norm", "v_norm", "values_from_keys", "layer_scalar", "sink_logits", "output_gate", "head_bias")


def _clause(key: str, value: object) -> str:
    """One argument as a clause: `kv_heads=(8, 128)` -> `kv heads 8 x 128`."""
    word = key.replace("_", "-" if key in _HYPHENATED else " ")
    if isinstance(value, Heads | Window | Rope | Norm | Ffn | Moe):
        return ", ".join(settings_text(Settings.model_validate({key: value})))
    if value is False:
        return f"no {word.replace('final norm', 'final-norm')}"
    if value is True:
        return word
    if key == "norms":
        return f"{value} norms"
    if isinstance(value, tuple):
        value = (" x " if key.endswith("heads") else " ").join(map(str, value))
    return f"{word} {value}"


def _line(*parts: str) -> str:
    """Parts of one statement. Errors: ValueError for a part that would be more than that."""
    line = ", ".join(part for part in parts if part)
    wrong = next((character for character in "\n\r#{}" if character in line), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} in {line!r}: one call makes one statement")
    return line


def _statement(clauses: Iterable[str], settings: Iterable[tuple[str, object]]) -> str:
    return _line(*clauses, *(_clause(key, value) for key, value in settings))


@dataclass(frozen=True)
class Door:
    """What a level emits."""

    name: str


@dataclass
class Stack:
    """One stack of layers: a model, or a level of one. Each method adds a statement."""

    header: str
    statements: list[str] = field(default_factory=list)

    def layers(
        self, layers: Layers, mixer: str, *clauses: str, to: CacheRef | str | None = None, **settings: Unpack[Clauses]
    ) -> None:
        """`layers 14-26 cross-attend to cache@13, heads 24 x 128`; `to` is a cache or `"cache@13"`."""
        listed = [layers] if isinstance(layers, int | str | LayerRange) else layers
        source = f" to {to}" if to is not None else ""
        head = f"layers {', '.join(map(str, listed))} {mixer}{source}"
        self.statements.append(_statement((head, *clauses), settings.items()))

    def cache(
        self, layer: int | Literal["last"], *clauses: str, name: str | None = None, **settings: Unpack[Clauses]
    ) -> CacheRef:
        """`cache@13: kv heads 8 x 128`, a projection of layer 13's output; what readers are given as `to`."""
        head = f"cache {name}@{layer}:" if name else f"cache@{layer}:"
        made = _statement(clauses, settings.items())
        self.statements.append(_line(f"{head} {made}"))
        return CacheRef(name=name) if name else CacheRef(layer=layer)

    def iterate(self, layers: str | LayerRange, *, forward: int, backward: int) -> None:
        """`iterate layers 2-21: 7 forward, 2 backward`."""
        self.statements.append(_line(f"iterate layers {layers}: {forward} forward", f"{backward} backward"))

    def prefill_exit(self, after: CacheRef | str) -> None:
        """`prefill exit after cache@13`: asserts what the compiler derives."""
        self.statements.append(_line(f"prefill exit after {after}"))

    def statement(self, text: str) -> None:
        """Any other statement, as text."""
        self.statements.append(_line(text))

    def _body(self) -> list[str]:
        return [self.header, *self.statements]


class BlockStack(Stack):
    """`blocks of 4 tokens { ... }`."""

    def emit(self, name: str = "context") -> Door:
        """`emit context`: the level's output, for the other level."""
        self.statement(f"emit {name}")
        return Door(name)


class TokenStack(Stack):
    """`tokens in block { ... }`."""

    def prefix(self, length: int, door: Door) -> None:
        """`prefix 2 from blocks.context`."""
        self.statement(f"prefix {length} from blocks.{door.name}")

    def summation(self, door: Door) -> None:
        """`summation from blocks.context`."""
        self.statement(f"summation from blocks.{door.name}")


class Builder(Stack):
    """A model. `layers` is its total; with levels, each of these has its own."""

    def __init__(self, name: str, *clauses: str, layers: int | None = None, **settings: Unpack[HeaderClauses]) -> None:
        super().__init__(_header(clauses, layers, settings))
        self.name = name
        self._levels: list[tuple[str, Stack]] = []

    def blocks(
        self, *clauses: str, length: int, layers: int | None = None, **settings: Unpack[HeaderClauses]
    ) -> BlockStack:
        """Open `blocks of LENGTH tokens { }`; its statements are added to what this returns."""
        stack = BlockStack(_header(clauses, layers, settings))
        self._levels.append((f"blocks of {length} tokens", stack))
        return stack

    def tokens(self, *clauses: str, layers: int | None = None, **settings: Unpack[HeaderClauses]) -> TokenStack:
        """Open `tokens in block { }`."""
        stack = TokenStack(_header(clauses, layers, settings))
        self._levels.append(("tokens in block", stack))
        return stack

    def text(self) -> str:
        """The spec as text, in canonical layout if it can be parsed."""
        body = self._body()
        for head, stack in self._levels:
            body += [f"{head} {{", *stack._body(), "}"]
        lines = [f"{_line('model ' + self.name)} {{", *filter(None, body[:1]), "", *filter(None, body[1:]), "}", ""]
        return format_source(Source(f"<{self.name}>", "\n".join(lines))).text

    def build(self) -> ModelSpec:
        """The spec, checked. Errors: SpecError with every finding, each with its place in `text()`."""
        return parse_spec_text(self.text(), f"<{self.name}>")


def _header(clauses: tuple[str, ...], layers: int | None, settings: HeaderClauses) -> str:
    total = (f"layers {layers}",) if layers is not None else ()
    return _statement((*total, *clauses), settings.items())
