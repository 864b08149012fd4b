"""Errors of the syntax: a piece is missing, and it is clear which. E0004, E0005, E0021 to E0023, E0025 and E0026."""

from archspec.diagnostics import Diagnostic, Edit, Help, listing
from archspec.source import Span


def at_start(span: Span) -> Span:
    """The empty place before a span, for insertions."""
    return Span(span.source, span.start, span.start)


class MissingAt(Diagnostic):
    """A cache given by a layer number without `@`.

    What: `cache@2` is the cache of layer 2; a bare word after `cache` is the name of a cache.
    Why it is bad: without the `@` a number could not be told from a name.
    Example:
        layers 1-2 attend
        layers 3-4 cross-attend to cache 2
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    """

    code = "E0004"
    written: str
    fixed: str

    def message(self) -> str:
        return f"`{self.written}` lacks the `@` between `cache` and the layer number"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"write `{self.fixed}`", Edit(self.span, self.fixed), safe=True),)


class MissingTo(Diagnostic):
    """A reader without `to`.

    What: the cache that a layer reads follows `to`.
    Why it is bad: a statement that may be written in two ways is read in two ways.
    Example:
        layers 1-2 attend
        layers 3-4 cross-attend cache@2
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    """

    code = "E0005"

    def message(self) -> str:
        return "missing `to` before the cache"

    def helps(self) -> tuple[Help, ...]:
        return (Help("write `cross-attend to cache...`", Edit(at_start(self.span), "to "), safe=True),)


class MissingComma(Diagnostic):
    """Two settings without a comma between them.

    What: what follows the mixer are settings, each behind a comma.
    Why it is bad: without it, a word could belong to the setting before it.
    Example:
        layers 1-4 attend heads 4 x 16
    Mended:
        layers 1-4 attend, heads 4 x 16
    """

    code = "E0021"

    def message(self) -> str:
        return f"missing `,` before `{self.span.text}`"

    def helps(self) -> tuple[Help, ...]:
        text = self.span.source.text
        end = len(text[: self.span.start].rstrip())
        return (Help("separate settings with `,`", Edit(Span(self.span.source, end, end), ","), safe=True),)


class MissingTimes(Diagnostic):
    """Heads and their size without `x`.

    What: `heads 4 x 16` is 4 heads of 16 dimensions each.
    Why it is bad: two bare numbers could be anything, for example heads and kv heads.
    Example:
        layers 1-4 attend, heads 4 16
    Mended:
        layers 1-4 attend, heads 4 x 16
    """

    code = "E0022"

    def message(self) -> str:
        return "missing `x` between the number of heads and their size"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"write `x {self.span.text}`", Edit(at_start(self.span), "x ")),)


class MissingParentheses(Diagnostic):
    """A value without its parentheses.

    What: `ffn`, `norm` and `rope` name a kind, and its value follows in parentheses.
    Why it is bad: without them, the value could belong to what follows.
    Example:
        layers 1-4 attend, ffn swiglu 128
    Mended:
        layers 1-4 attend, ffn swiglu(128)
    """

    code = "E0023"

    def message(self) -> str:
        return f"missing parentheses around {self.span.text}"

    def helps(self) -> tuple[Help, ...]:
        fixed = f"({self.span.text})"
        return (Help(f"write `{fixed}`", Edit(self.span, fixed), safe=True),)


class MissingMixer(Diagnostic):
    """Layers that do not say what they are.

    What: after the layer list stands the mixer: `attend`, `cross-attend to cache@N`, `retention` or `ffn-only`.
    Why it is bad: a default would decide where keys and values come from, and nobody would have said so.
    Example:
        layers 1-4
    Mended:
        layers 1-4 attend
    """

    code = "E0025"
    layers: Span

    def message(self) -> str:
        return f"`{self.layers.text}` does not say what these layers are"

    def remark(self) -> str:
        return "expected a mixer such as `attend`"

    def helps(self) -> tuple[Help, ...]:
        end = Span(self.layers.source, self.layers.end, self.layers.end)
        return (Help("write for example `attend` or `cross-attend to cache@N` after the list", Edit(end, " attend")),)


class MissingOpening(Diagnostic):
    """A model without its `{`.

    What: `model`, a name and `{` stand on one line.
    Why it is bad: where the model starts would be a guess.
    Example:
        model m
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    Mended:
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    """

    code = "E0026"
    missing: tuple[str, ...]
    follows: bool = False
    """The `{` is there, on the next line."""

    def message(self) -> str:
        return f"missing {listing(self.missing, 'and', quote=False)} in `model NAME {{`"

    def helps(self) -> tuple[Help, ...]:
        if self.follows:
            edit = Edit(
                Span(self.span.source, self.span.start, self.span.source.text.index("{", self.span.end) + 1), " {"
            )
            return (Help("move the `{` to the end of this line", edit, safe=True),)
        if self.missing == ("`{`",):
            return (Help("write ` {` on this line", Edit(self.span, " {"), safe=True),)
        return (Help("a model starts with `model NAME {`"),)
