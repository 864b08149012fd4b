"""Errors of elaboration: words, values and settings that do not belong. E0010 to E0018, and E0108."""

import re

from archspec.diagnostics import Diagnostic, Edit, Help, Label, listing
from archspec.source import Span
from archspec.spec.spans import without
from archspec.syntax.words import NOT_YET, YES, meant, surely_means

_END = re.compile(r"[ \t]*(?:end|final)\b")


def _guess(span: Span, word: str, known: tuple[str, ...]) -> tuple[Help, ...]:
    guess = meant(word, known)
    if guess is None:
        return ()
    return (Help(f"did you mean `{guess}`?", Edit(span, guess), surely_means(word, guess, known)),)


class UnknownMixer(Diagnostic):
    """A layer kind that the language does not have.

    What: after the layer list stands the mixer: `attend`, `cross-attend to cache@N`, `retention` or `ffn-only`.
    Why it is bad: a mixer taken for another one would be another model.
    Example:
        layers 1-2 attend
        layers 3-4 cross-atend to cache@2
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    """

    code = "E0010"
    word: str
    known: tuple[str, ...]

    def message(self) -> str:
        return f"unknown mixer `{self.word}`"

    def remark(self) -> str:
        return f"expected {listing(self.known)}"

    def helps(self) -> tuple[Help, ...]:
        return _guess(self.span, self.word, self.known)


class UnknownKind(Diagnostic):
    """A kind of norm, rope, ffn or bias that the language does not have.

    What: these settings name one of a few kinds; the message lists them.
    Why it is bad: falling back to a default kind would build another model.
    Example:
        layers 1-4 attend, norm rmsnorm(1e-5)
    Mended:
        layers 1-4 attend, norm rms(1e-5)
    """

    code = "E0011"
    setting: str
    word: str
    known: tuple[str, ...]

    def message(self) -> str:
        if self.setting == "no":
            return f"`no {self.word}` has no meaning"
        return f"unknown kind of `{self.setting}`: `{self.word}`"

    def remark(self) -> str:
        return f"expected {listing(self.known)}"

    def helps(self) -> tuple[Help, ...]:
        if self.word.lower() in ("none", "off", "false") and self.setting != "no":
            start = self.span.start - len(self.setting) - 1
            whole = Span(self.span.source, start, self.span.end)
            edit = Edit(whole, f"no {self.setting}") if whole.text.startswith(f"{self.setting} ") else None
            return (Help(f"write `no {self.setting}`", edit, safe=True),)
        if self.word.lower() in YES and self.setting == "bias":
            edit = Edit(Span(self.span.source, self.span.start - 1, self.span.end), "")
            return (Help("write `bias` alone for all of them", edit),)
        return _guess(self.span, self.word, self.known)

    def notes(self) -> tuple[str, ...]:
        if self.word.lower() in NOT_YET and not self.helps():
            return (f"`{self.word}` is not in the language yet",)
        return ()


class StatedTwice(Diagnostic):
    """The same setting twice in one place.

    What: a statement, or the header, makes a setting once.
    Why it is bad: one of the two would be ignored, and which one is anybody's guess.
    Example:
        layers 1-4 attend, heads 4 x 16, heads 8 x 16
    Mended:
        layers 1-4 attend, heads 8 x 16
    """

    code = "E0012"
    setting: str
    first: Span

    def message(self) -> str:
        return f"`{self.setting}` is stated twice; which one counts? neither"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.first, "first stated here"),)

    def remark(self) -> str:
        return "stated again here"

    def helps(self) -> tuple[Help, ...]:
        if self.setting == "layers":
            example = f"`{self.span.text} attend`"
            return (Help(f"a number alone is the total; a statement about one layer says what it is: {example}"),)
        if self.setting.startswith(("blocks of", "tokens in")):
            return (Help("a model has one level of each kind: `blocks of ... tokens { }` and `tokens in block { }`"),)
        if self.span.text == self.first.text:
            return (Help("leave one of them out: they say the same", without(self.span), safe=True),)
        return (Help("leave one of them out", without(self.span)),)


class DoesNotBelong(Diagnostic):
    """A setting where it has no meaning.

    What: each kind of statement takes the settings that it can act on.
    Why it is bad: a setting that does nothing makes the reader believe in another model.
    Example:
        layers 1-2 attend
        cache@2: kv heads 2 x 16, ffn swiglu(64)
        layers 3-4 cross-attend to cache@2
    Mended:
        layers 1-2 attend
        cache@2: kv heads 2 x 16
        layers 3-4 cross-attend to cache@2
    """

    code = "E0013"
    setting: str
    owner: str
    allowed: tuple[str, ...]
    instead: str | None = None

    def message(self) -> str:
        return f"`{self.setting}` has no meaning for {self.owner}"

    def remark(self) -> str:
        return f"{self.owner} take{'s' if self.owner.startswith('a ') else ''} {listing(self.allowed, 'and')}"

    def helps(self) -> tuple[Help, ...]:
        if self.instead is not None:
            span = Span(self.span.source, self.span.start, self.span.start + len(self.setting))
            return (Help(f"write `{self.instead}`: a cache has keys and values only", Edit(span, self.instead)),)
        return (Help("leave it out", without(self.span)),)


class MissingSetting(Diagnostic):
    """A header without its sizes.

    What: the header states `layers`, `width` and `vocab`.
    Why it is bad: a width made up by the compiler would be a model that nobody wrote, and without the total of layers
    a missing tail could not be seen.
    Example:
        model m {
          width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    Mended:
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    """

    code = "E0014"
    settings: tuple[str, ...]
    example: str

    def message(self) -> str:
        return f"the header does not state {listing(self.settings, 'and')}"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"add a line to the header, for example `{self.example}`"),)


class BadValue(Diagnostic):
    """A number outside of what the setting can mean.

    What: sizes and counts are at least 1; a window counts the current token.
    Why it is bad: there is no such model.
    Example:
        layers 1-4 attend, window 0
    Mended:
        layers 1-4 attend, window 1
    """

    code = "E0015"
    setting: str
    rule: str

    def message(self) -> str:
        return f"`{self.setting}` {self.rule}"

    def helps(self) -> tuple[Help, ...]:
        if self.setting == "window":
            return (Help("for a layer that sees everything, write `no window` or leave the setting out"),)
        return ()


class SourceMismatch(Diagnostic):
    """A reader without a cache, or a cache for a mixer that reads none.

    What: `cross-attend` says where its keys and values come from (`to cache@2`); the others have their own.
    Why it is bad: where keys and values come from is what a spec is about; it is never guessed.
    Example:
        layers 1-2 attend
        layers 3-4 attend to cache@2
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    """

    code = "E0016"
    mixer: str
    source: str

    def message(self) -> str:
        if self.mixer == "cross-attend":
            return "`cross-attend` does not say which cache it reads"
        if self.mixer == "retention":
            return "retention has no queries over a cache"
        return f"`{self.mixer}` reads no cache"

    def helps(self) -> tuple[Help, ...]:
        if self.mixer == "cross-attend":
            return (Help("write `cross-attend to cache@N`, N being the layer whose keys and values are read"),)
        fixed = f"cross-attend to {self.source}"
        if self.mixer == "attend":
            return (
                Help(f"write `{fixed}`", Edit(self.span, fixed)),
                Help("or leave out the cache: `attend` has keys and values of its own"),
            )
        return (
            Help(f"leave out `to {self.source}`", Edit(self.span, self.mixer)),
            Help(f"or write `{fixed}`, which has queries"),
        )


class OpenRange(Diagnostic):
    """A range with one end.

    What: a range has two ends, both counted; `last` is the last layer.
    Why it is bad: "3 and up" silently grows when the model does; `3-last` says so.
    Example:
        layers 1-2 attend
        layers 3- cross-attend to cache@2
    Mended:
        layers 1-2 attend
        layers 3-last cross-attend to cache@2
    """

    code = "E0108"
    first: int | str | None
    last: int | str | None

    def message(self) -> str:
        if self.last == 1:
            return "there is no layer -1: layers are counted from 1, and none from the end"
        return f"the range `{self.span.text}` has only one end"

    def helps(self) -> tuple[Help, ...]:
        if self.last is None:
            closed = f"{self.first}-last"
            word = _END.match(self.span.source.text, self.span.end)
            if word is not None:  # `1-end`
                span = Span(self.span.source, self.span.start, word.end())
                return (Help(f"write `{closed}`", Edit(span, closed), safe=True),)
            return (Help(f"write `{closed}`", Edit(self.span, closed), safe=True),)
        if self.last == 1:
            return (Help("write `last` for the last layer", Edit(self.span, "last")),)
        return (
            Help(f"write `1-{self.last}`", Edit(self.span, f"1-{self.last}")),
            Help("or `last` for the last layer: layers are not counted from the end"),
        )


class TooManyLayers(Diagnostic):
    """A total that no machine could hold.

    What: archspec unfolds every layer, up to a hundred thousand of them.
    Why it is bad: it is nearly certainly a slip of the keyboard.
    Example:
        model m {
          layers 4000000, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    Mended:
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    """

    code = "E0017"
    total: int
    limit: int

    def message(self) -> str:
        return f"{self.total} layers: archspec handles models of at most {self.limit}"


class InvalidJson(Diagnostic):
    """JSON that is no spec.

    What: the JSON form has the fields of `archspec.spec.model.ModelSpec`, no others, and no coercions: a number in
    quotes is no number.
    Why it is bad: a field that is passed over, or read as something else, would be another model.
    Example: `{"name": "m", "num_layers": "4", "hidden_size": 64, "vocab_size": 100}`
    """

    code = "E0018"
    place: str
    problem: str

    def message(self) -> str:
        return f"`{self.place}` {self.problem}" if self.place else self.problem
