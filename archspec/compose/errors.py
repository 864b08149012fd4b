"""Errors of composition: names, numbers and templates. E0032 to E0038, and W0902."""

from typing import ClassVar

from archspec.diagnostics import MAX_LABELS, Diagnostic, Edit, Help, Label, Severity, listing, suggest
from archspec.source import Span


def guesses(span: Span, word: str, known: tuple[str, ...]) -> tuple[Help, ...]:
    """The known name that was probably meant; without one, what there is."""
    guess = suggest(word, known) or next((name for name in known if name.lower() == word.lower()), None)
    if guess is not None:
        return (Help(f"did you mean `{guess}`?", Edit(span, guess)),)
    return (Help(f"there is {listing(known[:MAX_LABELS], 'and')}"),) if known else ()


_NEIGHBOURS = ("above", "previous", "prev", "next", "before")
"""What people write for `below`."""


class UnknownNumber(Diagnostic):
    """A name that stands for no number.

    What: where a number is expected, a name is that of a `let`: in the model, in a model that it extends, or at the
    top of one of the files.
    Why it is bad: a number made up in its place would build another model.
    Example:
        let W = 16
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-2 attend, window W
          layers 3-4 attend, window X
        }
    Mended:
        let W = 16
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-2 attend, window W
          layers 3-4 attend, window W
        }
    """

    code = "E0032"
    word: str
    known: tuple[str, ...]

    def message(self) -> str:
        return f"no `let` gives `{self.word}` a number"

    def remark(self) -> str:
        return "expected a number, or the name of one"

    def helps(self) -> tuple[Help, ...]:
        if self.word in _NEIGHBOURS:
            return (Help("a cache is named by its layer; `cache@below` is the nearest that a layer below has"),)
        return (*guesses(self.span, self.word, self.known), Help(f"or define it: `let {self.word} = 1024`"))


class NoResult(Diagnostic):
    """An expression without a result that a spec can use.

    What: numbers are whole, from 0 on and of at most 18 digits; a division leaves no remainder.
    Why it is bad: 22 / 4 layers, rounded, would be a model that nobody wrote.
    Example:
        let N = 22
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window (N / 4)
        }
    Mended:
        let N = 24
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window (N / 4)
        }
    """

    code = "E0033"
    problem: str

    def message(self) -> str:
        return f"`{self.span.text}` {self.problem}"


class DefinedTwice(Diagnostic):
    """A name that is defined twice.

    What: a number, a template and a model each have a name of their own, in the file and in all that it uses. Only a
    model that extends another one may give one of its numbers anew.
    Why it is bad: one of the two would be passed over, and which one is anybody's guess.
    Example:
        let W = 16
        let W = 32
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window W
        }
    Mended:
        let W = 32
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window W
        }
    """

    code = "E0034"
    what: str
    word: str
    first: Span

    def message(self) -> str:
        return f"there are two {self.what}s `{self.word}`; which one counts? neither"

    def remark(self) -> str:
        return "defined again here"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.first, "first defined here"),)

    def helps(self) -> tuple[Help, ...]:
        return (Help("leave one of them out, or give it another name"),)


class Circular(Diagnostic):
    """Something that is made from itself.

    What: a number, a template, a model or a file needs itself, in one step or in several.
    Why it is bad: there is no first one to begin with.
    Example:
        let A = B + 1
        let B = A - 1
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window A
        }
    Mended:
        let A = B + 1
        let B = 15
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window A
        }
    """

    code = "E0035"
    what: str
    path: tuple[str, ...]
    steps: tuple[Span, ...]

    def message(self) -> str:
        shown = self.path if len(self.path) <= MAX_LABELS else (*self.path[:3], "...", *self.path[-2:])
        return f"this {self.what} needs itself: {' -> '.join(shown)}"

    def labels(self) -> tuple[Label, ...]:
        return tuple(Label(span, "by way of this") for span in self.steps[: MAX_LABELS - 1])


class UnknownTemplate(Diagnostic):
    """A template that is not defined.

    What: `like NAME`, and a mixer that the language does not have, name a `define` of the file or of one that it uses.
    Why it is bad: without the template's settings the layers would be others.
    Example:
        define small { heads 2 x 16, kv heads 1 }
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-2 attend, like small
          layers 3-4 attend, like smal
        }
    Mended:
        define small { heads 2 x 16, kv heads 1 }
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, like small
        }
    """

    code = "E0036"
    word: str
    known: tuple[str, ...]

    def message(self) -> str:
        return f"there is no template `{self.word}`"

    def helps(self) -> tuple[Help, ...]:
        return guesses(self.span, self.word, self.known) or (Help(f"write `define {self.word} {{ ... }}`"),)


class TemplateWithoutMixer(Diagnostic):
    """A template in the place of a mixer that has none.

    What: a template that says what layers are begins with a mixer: `define local { attend, window 16 }`.
    Why it is bad: where keys and values come from is never guessed.
    Example:
        define small { heads 2 x 16 }
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 small
        }
    Mended:
        define small { heads 2 x 16 }
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, like small
        }
    """

    code = "E0037"
    word: str
    template: Span

    def message(self) -> str:
        return f"template `{self.word}` does not say what layers are: it has no mixer"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.template, "defined here, with settings alone"),)

    def helps(self) -> tuple[Help, ...]:
        return (Help("take its settings beside a mixer", Edit(self.span, f"attend, like {self.word}")),)


class TemplatesDisagree(Diagnostic):
    """Two templates that make the same setting.

    What: a statement takes two templates with `like`, and both say the same thing.
    Why it is bad: one of the two would be passed over, and which one is anybody's guess.
    Example:
        define small { heads 2 x 16 }
        define large { heads 8 x 16 }
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), rope 10000
          layers 1-4 attend, like small, like large
        }
    Mended:
        define small { heads 2 x 16 }
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), rope 10000
          layers 1-4 attend, like small
        }
    """

    code = "E0038"
    setting: str
    first: Span

    def message(self) -> str:
        return f"`{self.setting}` comes from two templates; which one counts? neither"

    def remark(self) -> str:
        return "stated again here"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.first, "first stated here"),)

    def helps(self) -> tuple[Help, ...]:
        return (Help("say it beside them: what a statement says itself counts before its templates"),)


class Unused(Diagnostic):
    """A `let` or `define` that nothing uses.

    What: no statement of the model comes to need it.
    Why it is bad: whoever changes it believes that the model changes.
    Example:
        let W = 16
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window 16
        }
    Mended:
        let W = 16
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window W
        }
    """

    code = "W0902"
    severity: ClassVar[Severity] = "warning"
    what: str
    word: str

    def message(self) -> str:
        return f"nothing uses {self.what} `{self.word}`"

    def helps(self) -> tuple[Help, ...]:
        return (Help("leave it out, or use it"),)
