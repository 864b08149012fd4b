"""E06xx: what passes between the levels fits. Inside, each level is checked as a model of its own."""

from collections.abc import Iterator

from archspec.diagnostics import Diagnostic, Edit, Help, Label
from archspec.source import Span
from archspec.spec.elaborate import HEADER
from archspec.spec.elaborate_levels import LevelElaborated, LevelsElaborated
from archspec.spec.level_errors import UnknownDoor
from archspec.spec.levels import Lookup
from archspec.syntax.tree import Emit, Take


class LookupDoesNotFit(Diagnostic):
    """A block's embedding that is not as wide as the block level.

    What: `embed lookup N concat` puts the rows of a block's L tokens behind each other, L * N numbers in all; `sum`
    adds them, N numbers. Either must be the level's width.
    Why it is bad: the first layer could not take it, and there is no projection between the two.
    Example:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 12 concat
          layers 1 attend
          emit context
        }
        tokens in block {
          layers 1, width 64
          prefix 2 from blocks.context
          layers 1 attend
        }
    Mended:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
          emit context
        }
        tokens in block {
          layers 1, width 64
          prefix 2 from blocks.context
          layers 1 attend
        }
    """

    code = "E0604"
    lookup: Lookup
    length: int
    width: int
    width_span: Span
    length_span: Span

    def message(self) -> str:
        made = f"{self.length} x {self.lookup.size} = " if self.lookup.merge == "concat" else ""
        made += str(self.lookup.width(self.length))
        return f"a block becomes {made} numbers, but the level's width is {self.width}"

    def labels(self) -> tuple[Label, ...]:
        tokens = Label(self.length_span, f"{self.length} tokens a block")
        return (Label(self.width_span, f"width {self.width}"), *([tokens] if self.lookup.merge == "concat" else []))

    def helps(self) -> tuple[Help, ...]:
        parts = self.length if self.lookup.merge == "concat" else 1
        wide = self.lookup.width(self.length)
        helps = (Help(f"write `width {wide}`", Edit(self.width_span, f"width {wide}")),)
        if self.width % parts:
            return helps
        fixed = f"embed lookup {self.width // parts} {self.lookup.merge}"
        return (Help(f"write `{fixed}`", Edit(self.span, fixed)), *helps)


class ContextLength(Diagnostic):
    """A number of context vectors that cannot be.

    What: `prefix R` puts R vectors before the tokens of a block, any number of them. `summation` adds one to each of
    the block's tokens, so that there are as many as a block has tokens.
    Why it is bad: a token without a vector, or a vector without a token, would have to be made up.
    Example:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
          emit context
        }
        tokens in block {
          layers 1, width 64
          summation 2 from blocks.context
          layers 1 attend
        }
    Mended:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
          emit context
        }
        tokens in block {
          layers 1, width 64
          summation from blocks.context
          layers 1 attend
        }
    """

    code = "E0606"
    door: str
    stated: int | None
    length: int
    length_span: Span

    def message(self) -> str:
        if self.stated is None:
            return "`prefix` does not say how many vectors the context becomes"
        return f"`summation` adds a vector to each of the {self.length} tokens of a block, not {self.stated}"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.length_span, f"{self.length} tokens a block"),) if self.stated is not None else ()

    def helps(self) -> tuple[Help, ...]:
        if self.stated is None:
            fixed = f"prefix 2 from {self.door}"
            return (Help(f"write for example `{fixed}`", Edit(self.span, fixed)),)
        return (
            Help(f"write `summation from {self.door}`", Edit(self.span, f"summation from {self.door}")),
            Help(f"or `prefix {self.stated} from {self.door}`, which puts the vectors before the tokens"),
        )


def check_levels(elaborated: LevelsElaborated) -> Iterator[Diagnostic]:
    """The embedding of blocks, then the door."""
    blocks, tokens = elaborated.blocks, elaborated.tokens
    if blocks is not None and blocks.sure(HEADER, "embed_lookup") and blocks.sure(HEADER, "width"):
        yield from _lookup(elaborated, blocks)
    if tokens is not None and isinstance(tokens.door, Take):
        yield from _take(elaborated, tokens.door)


def _lookup(elaborated: LevelsElaborated, blocks: LevelElaborated) -> Iterator[Diagnostic]:
    level, length_known = elaborated.spec.blocks, not blocks.doubts(HEADER, "length")
    concat = level.lookup.merge == "concat"
    if level.lookup.width(level.length) != level.hidden_size and (length_known or not concat):
        yield LookupDoesNotFit(
            span=blocks.spans.settings["embed_lookup"],
            lookup=level.lookup,
            length=level.length,
            width=level.hidden_size,
            width_span=blocks.spans.settings["width"],
            length_span=blocks.level.head_span,
        )


def _take(elaborated: LevelsElaborated, take: Take) -> Iterator[Diagnostic]:
    blocks, stated = elaborated.blocks, None if take.length is None else int(take.length.value)
    emit = blocks.door if blocks is not None else None
    if isinstance(emit, Emit) and (take.level.value != "blocks" or take.name.value != emit.name.value):
        yield UnknownDoor(span=take.door_span, emitted=str(emit.name.value), emit_span=emit.span)
    if blocks is None or blocks.doubts(HEADER, "length"):
        return
    length = elaborated.spec.blocks.length
    wrong = stated is None if take.kind == "prefix" else stated not in (None, length)
    if wrong:
        door, head = take.door_span.text, blocks.level.head_span
        yield ContextLength(span=take.span, door=door, stated=stated, length=length, length_span=head)
