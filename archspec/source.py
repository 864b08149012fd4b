"""Source texts and places in them."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True, eq=False)
class Source:
    """A text with a name for messages, a path as the user wrote it or `<text>`."""

    name: str
    text: str = field(repr=False)
    origin: "Callable[[Span], str] | None" = field(default=None, repr=False)
    """Of a text that was made from another: what to say of a place in it."""
    folder: Path | None = field(default=None, repr=False)
    """Where `use` looks for other files; a text that was not read from a file has none."""

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        for idx, char in enumerate(self.text):
            if char == "\n":
                starts.append(idx + 1)
        return starts

    def position(self, offset: int) -> tuple[int, int]:
        """1-based line and column of an offset."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line_text(self, line: int) -> str:
        """The text of a 1-based line, without its end."""
        start = self._line_starts[line - 1]
        end = self._line_starts[line] if line < len(self._line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r\n")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of a source."""

    source: Source
    start: int
    end: int
    via: "Span | None" = field(default=None, compare=False, repr=False)
    """Of the text of a template: where the template is used."""

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    @property
    def line(self) -> int:
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.start)[1]

    def to(self, other: "Span") -> "Span":
        """From the start of the one that comes first to the end of the one that ends last.

        Of two in different texts, this one.
        """
        if other.source is not self.source:
            return self
        return Span(self.source, min(self.start, other.start), max(self.end, other.end), self.via)
