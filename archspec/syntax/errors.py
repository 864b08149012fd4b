"""Errors of the syntax: words, characters and braces. E0001 to E0003, E0006 to E0009, E0019 and E0024."""

import re
import unicodedata

from archspec.diagnostics import Diagnostic, Edit, Help, Label, listing
from archspec.source import Span
from archspec.syntax.words import LIKE_A_BLANK, LIKE_A_DASH, NOT_YET, meant, surely_means


class UnexpectedText(Diagnostic):
    """A statement that does not parse.

    What: the text at the label fits no form of the statement that it stands in.
    Why it is bad: what was meant cannot be taken over; a guess could build another model.
    Example:
        layers 1-4 attend, heads 4 x
    Mended:
        layers 1-4 attend, heads 4 x 16
    """

    code = "E0001"
    written: str
    expected: tuple[str, ...]
    hint: str | None = None
    edit: Edit | None = None

    def message(self) -> str:
        return f"{self.written} does not fit here"

    def remark(self) -> str:
        return f"expected {_one_of(self.expected)}" if self.expected else ""

    def helps(self) -> tuple[Help, ...]:
        return () if self.hint is None else (Help(self.hint, self.edit, safe=True),)


class UnexpectedWord(Diagnostic):
    """A word that means nothing at its place.

    What: a word stands where the language has other words, or where no word can stand.
    Why it is bad: a misspelt setting that is passed over silently would leave the default in force.
    Example:
        layers 1-4 attend, kv haeds 2
    Mended:
        layers 1-4 attend, kv heads 2
    """

    code = "E0002"
    word: str
    words: tuple[str, ...]
    expected: tuple[str, ...]
    hint: str | None = None
    edit: Edit | None = None

    def message(self) -> str:
        return f"`{self.word}` does not fit here"

    def remark(self) -> str:
        return f"expected {_one_of(self.expected)}" if self.expected else ""

    def helps(self) -> tuple[Help, ...]:
        if self.hint is not None:
            return (Help(self.hint, self.edit, safe=True),)
        guess = meant(self.word, self.words)
        if guess is None:
            return ()
        safe = surely_means(self.word, guess, self.words)
        return (Help(f"did you mean `{guess}`?", Edit(self.span, guess), safe),)


class CapitalKeyword(Diagnostic):
    """A keyword in capitals.

    What: keywords are written in lower case.
    Why it is bad: names are case-sensitive, so a second spelling of a keyword would be a name.
    Example:
        Layers 1-4 attend
    Mended:
        layers 1-4 attend
    """

    code = "E0003"
    word: str

    def message(self) -> str:
        return f"`{self.word}` is not a keyword: keywords are lower case"

    def helps(self) -> tuple[Help, ...]:
        lower = self.word.lower()
        return (Help(f"write `{lower}`", Edit(self.span, lower), safe=True),)


class UnclosedBrace(Diagnostic):
    """A `{` without its `}`.

    What: the file ends inside a model.
    Why it is bad: the rest of the file may be missing.
    Example:
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
    Mended:
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    """

    code = "E0006"
    opening: Span
    depth: int
    what: str = "the model"

    def message(self) -> str:
        return f"the file ends before {self.what} is closed"

    def remark(self) -> str:
        return "expected `}`"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.opening, "opened here"),)

    def helps(self) -> tuple[Help, ...]:
        return (Help("write `}` on a last line, if the file is complete", Edit(self.span, "\n}" * self.depth)),)


class StrayCharacter(Diagnostic):
    """A character that the language does not have.

    What: specs are made of words, numbers and `@ : , ( ) { } % - #`, in sums and products also of `= + * /`, and in
    `use` of quotes; a comment starts with `#`.
    Why it is bad: characters that look alike, or like nothing, hide what a spec says.
    Example:
        layers 1-4 attend, heads = 4 x 16
    Mended:
        layers 1-4 attend, heads 4 x 16
    """

    code = "E0007"
    character: str
    others: tuple[Span, ...] = ()
    """Further places of the same character."""

    def message(self) -> str:
        if self.character == "\0":
            return "a NUL byte: this is not a text file"
        if self.character == "//":
            return "`//` starts no comment here"
        name = unicodedata.name(self.character, "").lower()
        shown = f"U+{ord(self.character):04X}{f' ({name})' if name else ''}"
        if self.character.isprintable() and self.character not in LIKE_A_DASH:
            return f"stray `{self.character}`" + ("" if self.character.isascii() else f", {shown}")
        return f"stray character {shown}"

    def remark(self) -> str:
        return "does not fit here" if self.character in "=*/+" else "not part of the language"

    def helps(self) -> tuple[Help, ...]:
        text = self._instead()
        if text is None:
            return ()
        first, *more = (_replaced(span) for span in (self.span, *self.others))
        return (Help(text, first, first is not None, tuple(edit for edit in more if edit is not None)),)

    def _instead(self) -> str | None:
        character = self.character
        if character in LIKE_A_DASH:
            return "write `-`"
        if character in LIKE_A_BLANK:
            return "write a blank"
        if character in _INSTEAD:
            return _INSTEAD[character]
        folded = _folded(character)
        return None if folded is None else f"write `{folded}`"

    def notes(self) -> tuple[str, ...]:
        return (f"there are {1 + len(self.others)} of them in this file",) if self.others else ()


_BRACKETS = "ranges and lists stand without brackets: `layers 1, 21-22 attend`"
_INSTEAD: dict[str, str] = {
    "=": "a setting is its word and its value: `heads 24 x 128`",
    "//": "comments start with `#`",
    "\\": "a comma at the end of a line continues the statement: leave this out",
    "/": "comments start with `#`; a quotient stands in parentheses, as in `(W / 2)`",
    ";": "a statement ends at the end of its line, and settings are separated by `,`",
    "*": "write `x`; a product stands in parentheses, as in `(2 * W)`",
    "+": "a sum stands in parentheses, as in `(W + 1)`",
    "[": _BRACKETS,
    "]": _BRACKETS,
    '"': "names stand without quotes",
    "'": "names stand without quotes",
    "\r": "lines end with a line feed: save the file with Unix or Windows line ends",
}


def _folded(character: str) -> str | None:
    """The ASCII character that a full-width one, or one in bold, stands for."""
    folded = unicodedata.normalize("NFKC", character)
    return folded if folded != character and len(folded) == 1 and folded.isascii() else None


def _replaced(span: Span) -> Edit | None:
    """What a person would type instead of a look-alike; None where that is not clear."""
    text, character = span.source.text, span.text
    before, behind = text[max(span.start - 1, 0) : span.start], text[span.end : span.end + 1]
    if character in LIKE_A_DASH:
        return Edit(span, "-")
    if character in LIKE_A_BLANK:
        return Edit(span, " ")
    if character in ("//", "*"):
        return Edit(span, "#" if character == "//" else "x")
    if character == "=":
        start = span.start
        while text[start - 1 : start] in (" ", "\t"):
            start -= 1
        return Edit(Span(span.source, start, _blanks_end(text, span.end)), " ")
    if character == "\\":
        return Edit(span, "") if _ENDS_LINE.match(text, span.end) else None
    if character in "[]\"'":
        return Edit(span, " " if _is_word(before) and _is_word(behind) else "")
    if character == ";":
        if _ENDS_LINE.match(text, span.end):
            return Edit(span, "")
        line = text.rfind("\n", 0, span.start) + 1
        indent = text[line : _blanks_end(text, line)]
        end = _blanks_end(text, span.end)
        return Edit(Span(span.source, span.start, end), f"\n{indent}")
    folded = None if character in _INSTEAD else _folded(character)
    return None if folded is None else Edit(span, folded)


_ENDS_LINE = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)")


def _blanks_end(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t"):
        position += 1
    return position


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


class NoModel(Diagnostic):
    """A file without a model.

    What: a spec is one `model NAME { ... }`. A header states the sizes, then every layer says what it is; this one has
    eight layers, of which the upper four read the keys and values of layer 4:
        model my_model {
          layers 8, width 512, vocab 32000, ffn swiglu(1376), norm rms(1e-5)
          heads 8 x 64, kv heads 2, rope 10000

          layers 1-4 attend
          layers 5-8 cross-attend to cache@4
        }
    Why it is bad: there is nothing to check or to build.
    Example:
        # a file with nothing but a comment
    Mended:
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    """

    code = "E0008"
    like_json: bool = False

    def message(self) -> str:
        return "the file has no model"

    def remark(self) -> str:
        return "expected `model NAME {`"

    def helps(self) -> tuple[Help, ...]:
        if self.like_json:
            return (Help("is this the JSON form of a spec? then its name ends in `.json`"),)
        return (Help("a spec is `model NAME { ... }`; `archspec explain E0008` shows a whole one"),)


class SecondModel(Diagnostic):
    """Two models in one file that have nothing to do with each other.

    What: the last model of a file is the one that it describes; those before it are there to be extended.
    Why it is bad: whoever compiles the file would get one of the two, and not know which.
    Example:
        model a {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
        model b {
          layers 2, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-2 attend
        }
    Mended:
        model a {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
        model b extends a {
          layers 2
          layers 1-2 attend
          no layers 3-4
        }
    """

    code = "E0009"
    first: Span
    names: tuple[str, str]

    def message(self) -> str:
        return "a second model in the file"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.first, "the first model ends here"),)

    def helps(self) -> tuple[Help, ...]:
        first, second = self.names
        return (Help(f"put each model in a file of its own, or write `model {second} extends {first} {{`"),)


class NotYet(Diagnostic):
    """A word of the language to come.

    What: the word is known, but this version has nothing behind it.
    Why it is bad: a statement that is skipped would leave another model than the one that was described.
    Example:
        layers 1-3 mamba
        layers 4 attend
    Mended:
        layers 1-3 retention
        layers 4 attend
    """

    code = "E0019"
    word: str

    def message(self) -> str:
        return f"`{self.word}` is not in the language yet"

    def notes(self) -> tuple[str, ...]:
        return (f"for now: {NOT_YET[self.word.lower()]}",)


class AfterModel(Diagnostic):
    """Text after the end of the model.

    What: the model ended with its `}`; nothing but comments may follow.
    Why it is bad: a `}` too many ends the model early, and what follows would be passed over.
    Example:
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
        }
    Mended:
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    """

    code = "E0024"
    closing: Span

    def message(self) -> str:
        if self.span.text == "}":
            return "a `}` too many: the model is closed already"
        return "text after the end of the model"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.closing, "the model ends here"),)

    def helps(self) -> tuple[Help, ...]:
        if self.span.text == "}":
            return (Help("leave it out", Edit(self.span, "")),)
        return (Help("is the `}` before it one too many? then leave that out", Edit(self.closing, "")),)


def _one_of(expected: tuple[str, ...]) -> str:
    return listing(expected, "or", quote=False)
