"""Diagnostics: one frozen class an error, its facts as fields, its texts as methods, its page as docstring.

A class is registered under its code when it is defined; `archspec explain CODE` prints the docstring.
"""

from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Any, ClassVar, Literal

from archspec.records import Facts
from archspec.source import Span

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Label:
    """A remark on a place: the other end of a relation."""

    span: Span
    text: str


@dataclass(frozen=True)
class Edit:
    """Replace `span` by `text`. An insertion has an empty span."""

    span: Span
    text: str


Applicability = Literal["safe", "unsafe"]


@dataclass(frozen=True)
class Help:
    """What to type. `edit`, if given, does it; whole new lines are shown with their number."""

    text: str
    edit: Edit | None = None
    safe: bool = False
    """The edit is surely what the writer meant, so that `archspec check --fix` may apply it without being asked.

    Whatever chooses between two models, or takes something out that somebody wrote, is not.
    """
    more: tuple[Edit, ...] = ()
    """Edits that belong to `edit`: the same slip at other places of the file."""

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All that has to be done, in one go."""
        return () if self.edit is None else (self.edit, *self.more)

    @property
    def applicability(self) -> Applicability:
        return "safe" if self.safe else "unsafe"


REGISTRY: dict[str, type["Diagnostic"]] = {}


class Diagnostic(Facts):
    """Base of all diagnostics. `span` is where a person would point at."""

    code: ClassVar[str] = ""
    severity: ClassVar[Severity] = "error"

    span: Span

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            if cls.code in REGISTRY:
                raise TypeError(f"diagnostic code {cls.code} is used twice")
            REGISTRY[cls.code] = cls

    def message(self) -> str:
        """One line: lower case, no full stop, identifiers in backticks, the consequence included."""
        raise NotImplementedError

    def remark(self) -> str:
        """The text at the primary place."""
        return ""

    def labels(self) -> tuple[Label, ...]:
        """The other places that take part."""
        return ()

    def helps(self) -> tuple[Help, ...]:
        """Ways out, most likely first."""
        return ()

    def notes(self) -> tuple[str, ...]:
        """Facts that help to understand."""
        return ()

    def all_notes(self) -> tuple[str, ...]:
        """Its notes, and where to look if the text that it points into is not what the user wrote."""
        origin = self.span.source.origin
        return self.notes() if origin is None else (*self.notes(), origin(self.span))

    @property
    def sort_key(self) -> tuple[str, int, int, str]:
        return (self.span.source.name, self.span.start, self.span.end, self.code)


def has_errors(diagnostics: tuple[Diagnostic, ...] | list[Diagnostic]) -> bool:
    """Whether any of them is more than a warning."""
    return any(diagnostic.severity == "error" for diagnostic in diagnostics)


_LONGEST_WORD = 60


def suggest(word: str, known: list[str] | tuple[str, ...]) -> str | None:
    """The known word that `word` was probably meant to be."""
    if len(word) > _LONGEST_WORD:
        return None
    matches = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def is_slip(word: str, guess: str, known: list[str] | tuple[str, ...]) -> bool:
    """Whether `word` is surely a misspelt `guess`: nearly the same letters, and no other known word is near."""
    near = [] if len(word) > _LONGEST_WORD else get_close_matches(word.lower(), known, n=2, cutoff=0.7)
    return near == [guess] and SequenceMatcher(None, guess, word.lower()).ratio() > 0.8


def listing(words: list[str] | tuple[str, ...], last: str = "or", quote: bool = True) -> str:
    """`a`, `b` or `c`, each in backticks."""
    quoted = [f"`{word}`" if quote else word for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"


MAX_RUNS = 12
"""More runs of layer numbers than this are abbreviated in messages."""

MAX_LABELS = 6
"""Labels of one kind that a message shows; a hundred declared caches help nobody."""


def layer_numbers(indices: tuple[int, ...] | list[int], short: bool = False) -> str:
    """1-based numbers folded into ranges, with the noun: `layer 12`, `layers 1-3, 7`; `short` leaves some out."""
    numbers = sorted(idx + 1 for idx in indices)
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    if short and len(parts) > MAX_RUNS:
        parts = [*parts[: MAX_RUNS - 2], "...", parts[-1]]
    text = ", ".join(parts)
    return f"layer{'s' if len(numbers) != 1 else ''} {text}"


def zero_based(number: int) -> str:
    """A 1-based layer number with the index that HF and vLLM print: `layer 12 (index 11 in HF)`."""
    return f"layer {number} (index {number - 1} in HF)"
