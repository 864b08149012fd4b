"""The tokens of a text as they were written: what a formatter works on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lexeme:
    """Characters `start` to `end` of a text."""

    kind: str
    """The name of its terminal in the grammar."""
    text: str
    start: int
    end: int
    first_of_line: bool
    """A line end stands before it."""
    may_end_line: bool
    """The grammar allows a line end behind it."""
    takes_number: bool = False
    """The grammar allows a number behind it, which may also be an expression in parentheses."""
