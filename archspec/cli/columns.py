"""Aligned columns in plain text, wrapped to a width. Without rich, whose import takes as long as a check."""

import textwrap
from collections.abc import Sequence

_GAP = "  "


def fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """A table with a rule below its heading; cells are wrapped at blanks where it would be wider than `width`.

    A leading `>` in a heading aligns the column right. A table of words that are too long stays too wide.
    """
    names = [name.removeprefix(">") for name in columns]
    widths = _widths([names, *rows], width)
    right = [name.startswith(">") for name in columns]
    head, *body = (_row(cells, widths, right) for cells in (names, *rows))
    rule = "─" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    return "\n".join([head, rule, *body])


def _widths(rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Headings give way first, then the widest column, a character at a time, as long as words fit."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    room = None if width is None else width - len(_GAP) * (len(widths) - 1)
    if room is None or sum(widths) <= room:
        return widths
    least = [max(len(word) for cell in column for word in (cell.split() or [""])) for column in columns]
    bodies = [max(low, *map(len, column[1:]), 0) for column, low in zip(columns, least, strict=True)]
    for floor in (bodies, least):
        while sum(widths) > room and (loose := [idx for idx, low in enumerate(floor) if widths[idx] > low]):
            widths[max(loose, key=lambda idx: widths[idx])] -= 1
    return widths


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for number in range(max(map(len, wrapped))):
        parts = [lines_[number] if number < len(lines_) else "" for lines_ in wrapped]
        placed = zip(parts, widths, right, strict=True)
        lines.append(_GAP.join(part.rjust(width) if to else part.ljust(width) for part, width, to in placed).rstrip())
    return "\n".join(lines)
