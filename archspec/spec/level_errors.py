"""E06xx: what belongs into which level, and what crosses between them. The arithmetic stands in `checks.levels`."""

from archspec.diagnostics import Diagnostic, Edit, Help, Label, is_slip, listing
from archspec.source import Span
from archspec.spec.spans import without


class _ForeignCache(Diagnostic):
    cache: str
    level_span: Span | None
    door: str | None

    def labels(self) -> tuple[Label, ...]:
        return () if self.level_span is None else (Label(self.level_span, f"`{self.cache}` lives in here"),)

    def own(self) -> Help:
        return Help(f"if this level's own cache is meant, write `{self.cache}`", Edit(self.span, self.cache))


class ReadsBlockCache(_ForeignCache):
    """A token-level layer that reads a block-level cache.

    What: a cache lives in one level. In `blocks of 4 tokens` a position is a block, in `tokens in block` a token.
    Why it is bad: position 3 is another place in each of them, and the causal mask of one says nothing in the other.
    Example:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
          emit context
        }
        tokens in block {
          layers 2, width 64
          prefix 2 from blocks.context
          layers 1 attend
          layers 2 cross-attend to blocks.cache@1
        }
    Mended:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
          emit context
        }
        tokens in block {
          layers 2, width 64
          prefix 2 from blocks.context
          layers 1 attend
          layers 2 cross-attend to cache@1
        }
    """

    code = "E0601"

    def message(self) -> str:
        return f"a layer over tokens cannot read `blocks.{self.cache}`: positions count blocks there, tokens here"

    def helps(self) -> tuple[Help, ...]:
        door = Help(f"what comes from the blocks is their context: `prefix 2 from blocks.{self.door or 'context'}`")
        return (door, self.own())


class ReadsTokenCache(_ForeignCache):
    """A block-level layer that reads a token-level cache.

    What: the token level's cache holds the tokens of the block that is being written, and is cleared at its end.
    Why it is bad: the layer would see tokens that it is asked to foretell, and in generation they are not there yet.
    Example:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 cross-attend to tokens.cache@1
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

    code = "E0602"

    def message(self) -> str:
        return f"a layer over blocks cannot read `tokens.{self.cache}`: it would see the block that it foretells"

    def helps(self) -> tuple[Help, ...]:
        return (self.own(), Help("what the blocks know of tokens is `embed lookup ...`, whole blocks at a time"))


class LevelNamed(Diagnostic):
    """A level named where there is no choice.

    What: a layer reads caches of its own level, so a level before a cache says nothing; a model of one stack has none.
    Why it is bad: it looks as if a cache could be read from another level, and none can.
    Example:
        layers 1-2 attend
        layers 3-4 cross-attend to tokens.cache@2
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    """

    code = "E0603"
    level: str
    cache: str
    has_levels: bool

    def message(self) -> str:
        if self.has_levels:
            return f"`{self.level}.` before a cache of this level: there is no other to choose from"
        return f"`{self.level}.{self.cache}` names a level, but this model is one stack of layers"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"write `{self.cache}`", Edit(self.span, self.cache), safe=True),)


class NoDoor(Diagnostic):
    """A level without its side of the door.

    What: `blocks of L tokens` emits what the token level starts a block with, and `tokens in block` takes it.
    Why it is bad: without it no token would know anything of the blocks before its own.
    Example:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
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

    code = "E0608"
    level: str
    line: str
    insertion: Edit | None
    other: Span | None

    def message(self) -> str:
        if self.level == "blocks":
            return "the block level emits nothing: no token would know of the blocks before its own"
        return "the token level takes nothing from the blocks: no token would know of those before its own"

    def labels(self) -> tuple[Label, ...]:
        if self.other is None:
            return ()
        return (Label(self.other, "taken here" if self.level == "blocks" else "emitted here"),)

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"write `{self.line}`", self.insertion),)


class UnknownDoor(Diagnostic):
    """A context that the block level does not emit.

    What: `prefix` and `summation` name what `emit` names.
    Why it is bad: there is nothing behind the name.
    Example:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
          emit context
        }
        tokens in block {
          layers 1, width 64
          prefix 2 from blocks.contxt
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

    code = "E0609"
    emitted: str
    emit_span: Span

    def message(self) -> str:
        return f"`{self.span.text}` does not exist: the block level emits `{self.emitted}`"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.emit_span, "this is the door between the levels"),)

    def helps(self) -> tuple[Help, ...]:
        fixed = f"blocks.{self.emitted}"
        safe = is_slip(self.span.text, fixed, (fixed,))
        return (Help(f"write `{fixed}`", Edit(self.span, fixed), safe),)


class LevelMissing(Diagnostic):
    """One level without the other.

    What: `blocks of L tokens { }` reads the past a block at a time, `tokens in block { }` writes the next block.
    Why it is bad: blocks alone predict no token, and tokens alone see their own block and nothing else.
    Example:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
          emit context
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

    code = "E0610"
    absent: str

    def message(self) -> str:
        use = "predict no token" if self.absent.startswith("tokens") else "see their own block and nothing else"
        return f"`{self.span.text}` alone {use}: `{self.absent} {{ }}` is missing"

    def helps(self) -> tuple[Help, ...]:
        return (
            Help(f"write `{self.absent} {{ ... }}` beside it"),
            Help("or leave the level out: a model without levels is one stack of layers over tokens"),
        )


class OutsideItsLevel(Diagnostic):
    """A statement in a place that has no use for it.

    What: in a model with levels, layers and caches stand in one of them; `emit` stands in `blocks of L tokens`, and
    `prefix` and `summation` in `tokens in block`.
    Why it is bad: layers beside the levels would belong to neither of them.
    Example:
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
        layers 2-4 attend
    Mended:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
          emit context
        }
        tokens in block {
          layers 4, width 64
          prefix 2 from blocks.context
          layers 1-4 attend
        }
    """

    code = "E0612"
    place: str
    levels: tuple[str, ...]
    """Where it belongs."""
    opened: Span | None = None
    """Of a level inside of another: where that one begins."""

    def message(self) -> str:
        if self.opened is not None:
            return f"`{self.span.text}` stands {self.place}, and not beside it"
        return f"`{self.span.text}` has no meaning {self.place}"

    def labels(self) -> tuple[Label, ...]:
        return () if self.opened is None else (Label(self.opened, "this level is still open"),)

    def helps(self) -> tuple[Help, ...]:
        if self.opened is not None:
            text = self.span.source.text
            start = text.rfind("\n", 0, self.span.start) + 1
            indent = text[start : self.span.start]
            edit = None if indent.strip() else Edit(Span(self.span.source, start, start), f"{indent}}}\n")
            return (Help("levels stand side by side: is a `}` missing before this one?", edit),)
        return (Help(f"it stands in {listing(self.levels, quote=False)}"),)


class SettingOfAnotherLevel(Diagnostic):
    """A setting at the wrong level.

    What: `vocab` and `final softcap` belong to the model, `layers N` to each level, `embed lookup` to the blocks, and
    `tied embeddings` to the tokens: that is where the output matrix is.
    Why it is bad: the setting would have no effect there, or two.
    Example:
        tied embeddings
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
    Mended:
        blocks of 4 tokens {
          layers 1, width 64, embed lookup 16 concat
          layers 1 attend
          emit context
        }
        tokens in block {
          layers 1, width 64, tied embeddings
          prefix 2 from blocks.context
          layers 1 attend
        }
    """

    code = "E0613"
    setting: str
    place: str
    belongs: str

    def message(self) -> str:
        return f"`{self.setting}` has no meaning {self.place}"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"it belongs to {self.belongs}", without(self.span)),)
