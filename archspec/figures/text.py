"""A figure as lines of text: one row a run of layers, a line from each shared cache to its readers.

Lines run downwards as the data flows, and as a spec reads. At most 80 columns; with ASCII characters alone if asked.
"""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from archspec.figures.labels import item_numbers
from archspec.figures.lanes import lanes_of, span
from archspec.figures.model import Bracket, Figure, Item, Tower

WIDTH = 80
MOST_LANES = 6
"""Lines side by side; a cache that finds no place among them is only named."""
_ASCII = str.maketrans("╭│╰├┼●─↓", "+|+++*-v")
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
Piece = tuple[str, str]
"""Text, and rich's style for it."""
Line = list[Piece]


def figure_lines(figure: Figure, *, ascii_only: bool = False) -> Iterator[Line]:
    """The figure, line by line."""
    for line in _lines(figure):
        yield [(text.translate(_ASCII) if ascii_only else text, style) for text, style in line]


def figure_text(figure: Figure, *, ascii_only: bool = False) -> str:
    """The figure without colour; no blanks at line ends."""
    lines = figure_lines(figure, ascii_only=ascii_only)
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def _lines(figure: Figure) -> Iterator[Line]:
    heading = f"{figure.phase} of {figure.name}" if figure.phase else figure.name
    yield from _wrapped(heading, "bold")
    yield from _wrapped(", ".join(figure.facts))
    table = _Table(figure)
    for idx, tower in enumerate(figure.towers):
        if idx:
            door = figure.doors[idx - 1]
            yield [(f"  ↓ {door.emits}, {door.takes}", "bold")]
        if tower.common and (idx == 0 or tower.common != figure.towers[idx - 1].common):
            yield from _wrapped(", ".join(tower.common), "dim")
        if idx == 0:
            yield []
            yield table.heading()
        yield from table.tower(tower)
    notes = [*figure.notes, *([f"cache bytes = {figure.formula}"] if not figure.phase else [])]
    if notes:
        yield []
    for note in notes:
        yield from _wrapped(note)


def _wrapped(text: str, style: str = "") -> Iterator[Line]:
    for line in textwrap.wrap(text, WIDTH, break_long_words=True):
        yield [(line, style)]


@dataclass(frozen=True)
class _Columns:
    """Widths, without the two blanks between columns."""

    gutter: int
    layers: int
    mixer: int
    middle: tuple[int, ...]


class _Table:
    """Rows of all towers in columns of the same widths."""

    def __init__(self, figure: Figure) -> None:
        self._phase = bool(figure.phase)
        self._headings = ("runs for",) if self._phase else ("heads", "window")
        items = [item for tower in figure.towers for item in tower.items]
        self._columns = _Columns(
            gutter=2 * max((_depth(_with_level(tower)) for tower in figure.towers), default=0) or 1,
            layers=max([len(_numbers(item)) for item in items] + [6]),
            mixer=max([len(item.word) for item in items] + [5]),
            middle=tuple(
                max([len(self._middle(item)[n]) for item in items] + [len(heading)])
                for n, heading in enumerate(self._headings)
            ),
        )

    def heading(self) -> Line:
        cells = ("layers", "mixer", *self._headings)
        return [(" " * self._columns.gutter + self._cells(cells) + "cache", "bold")]

    def tower(self, tower: Tower) -> Iterator[Line]:
        """All lines of one tower."""
        brackets, lanes = _with_level(tower), _Lanes(tower)
        last = len(tower.items)
        for row in range(-1, last + 1):
            for bracket in (each for each in brackets if each.first == row):
                yield self._opening(brackets, bracket, row, lanes)
            if tower.exit is not None and tower.exit.before == row:
                yield self._exit(brackets, tower, row)
            if row in (-1, last):
                yield self._end(brackets, tower, row)
            else:
                yield from self._rows(brackets, tower, row, lanes)

    def _end(self, brackets: list[Bracket], tower: Tower, row: int) -> Line:
        text = tower.bottom if row == -1 else tower.top
        room = WIDTH - self._columns.gutter - self._columns.layers - 2
        shown = textwrap.shorten(text, room, placeholder="...")
        return [(_gutter(brackets, row, self._columns.gutter), ""), (" " * (self._columns.layers + 2) + shown, "dim")]

    def _opening(self, brackets: list[Bracket], bracket: Bracket, row: int, lanes: "_Lanes") -> Line:
        """The first line of a bracket, with what it says."""
        depth = _place(brackets, bracket)
        outer = _gutter([each for each in brackets if _place(brackets, each) < depth], row, 2 * depth, opened=True)
        text = bracket.text if bracket.first == -1 else _bracket_text(bracket)
        start = self._columns.gutter + len(self._cells(("",) * (2 + len(self._headings))))
        line: Line = [(outer, ""), (f"╭─ {text}", "bold")]
        passing = lanes.above(row)
        if passing:
            line += [(" " * max(1, start - len(outer) - len(text) - 3), ""), *passing]
        return line

    def _exit(self, brackets: list[Bracket], tower: Tower, row: int) -> Line:
        assert tower.exit is not None
        where = f" after {tower.exit.after}" if tower.exit.after else ": nothing is cached"
        if tower.exit.copies > 1:
            where += f" (the last of x {tower.exit.copies})"
        gutter = _gutter(brackets, row - 0.5, self._columns.gutter)
        text = f"── prefill exit{where}; below, last position only "
        return [(gutter, ""), (text.ljust(WIDTH - len(gutter), "─")[: WIDTH - len(gutter)], "bold red")]

    def _rows(self, brackets: list[Bracket], tower: Tower, row: int, lanes: "_Lanes") -> Iterator[Line]:
        item = tower.items[row]
        cells = self._cells((_numbers(item), item.word, *self._middle(item)))
        start = self._columns.gutter + len(cells)
        room = max(16, WIDTH - start - 2 * lanes.count)
        texts = textwrap.wrap(_cache_text(tower, item), room) or [""]
        texts += [line for note in item.notes for line in textwrap.wrap(note, room)]
        for number, text in enumerate(texts):
            final = number == len(texts) - 1
            gutter = _gutter(brackets, row, self._columns.gutter, final=final)
            line: Line = [(gutter, ""), (cells if number == 0 else " " * len(cells), "")]
            line += lanes.beside(row, number == 0)
            line.append((text, ""))
            yield line

    def _middle(self, item: Item) -> tuple[str, ...]:
        return (item.runs,) if self._phase else (item.heads, item.window)

    def _cells(self, cells: tuple[str, ...]) -> str:
        widths = (self._columns.layers, self._columns.mixer, *self._columns.middle)
        return "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))


def _numbers(item: Item) -> str:
    """`1-13 x 13`."""
    numbers = item_numbers(item).split(" ", 1)[1]
    return f"{numbers} x {item.count}" if item.count > 1 else numbers


def _cache_text(tower: Tower, item: Item) -> str:
    """What an item writes and reads."""
    written = None if item.writes_idx is None else tower.stores[item.writes_idx]
    read = None if item.reads_idx is None else tower.stores[item.reads_idx]
    parts = []
    if written is not None:
        parts.append(f"{written.name}: {written.size}, {written.keeps}")
    if read is not None and read is not written:
        parts.append(f"reads {read.name}{', earlier tokens' if item.early else ''}")
    return "; ".join(parts)


def _bracket_text(bracket: Bracket) -> str:
    if bracket.kind == "repeat":
        return f"x {bracket.copies}: {bracket.text}"
    return f"iterate: {bracket.text}"


def _colour(store_idx: int) -> str:
    return _COLOURS[store_idx % len(_COLOURS)]


class _Lanes:
    """The lines of shared caches beside the rows of a tower, two characters each."""

    def __init__(self, tower: Tower) -> None:
        self._stores = tower.stores
        self._at: dict[tuple[int, int], int] = {}
        """Lane and row -> the store whose line is there."""
        self.count = 0
        for idx, lane in lanes_of(tower.stores).items():
            if lane < MOST_LANES:
                self.count = max(self.count, lane + 1)
                first, last = span(tower.stores[idx])
                self._at.update({(lane, row): idx for row in range(first, last + 1)})

    def above(self, row: int) -> Line:
        """Lines that pass between a row and the one above it; nothing if none does."""
        pieces: Line = []
        for lane in range(self.count):
            idx = self._at.get((lane, row))
            passes = idx is not None and idx == self._at.get((lane, row - 1))
            pieces.append(("│ ", _colour(idx)) if passes and idx is not None else ("  ", ""))
        return pieces if any(text.strip() for text, _ in pieces) else []

    def beside(self, row: int, first: bool) -> Line:
        """The lanes of a row's first or further line; from a dot or a branch on, a line leads to the text."""
        pieces = [self._sign(lane, row, first) for lane in range(self.count)]
        reached = ""
        for lane, (sign, style) in enumerate(pieces):
            if reached:
                pieces[lane] = ("┼─" if sign == "│ " else "──", reached)
            elif sign.endswith("─"):
                reached = style
        return pieces

    def _sign(self, lane: int, row: int, first: bool) -> Piece:
        """The writer is a dot, readers are branches."""
        idx = self._at.get((lane, row))
        if idx is None:
            return "  ", ""
        store, (begin, end) = self._stores[idx], span(self._stores[idx])
        if not first:
            return ("│ " if row < end else "  "), _colour(idx)
        if row == store.writer_idx:
            return "●─", _colour(idx)
        if row in store.readers:
            return ("╭─" if row == begin else "╰─" if row == end else "├─"), _colour(idx)
        return "│ ", _colour(idx)


def _with_level(tower: Tower) -> list[Bracket]:
    """The brackets of a tower, the one around a level among them, the widest first."""
    brackets = sorted(tower.brackets, key=lambda bracket: (bracket.first - bracket.last, bracket.first))
    if not tower.title:
        return brackets
    return [Bracket("repeat", -1, len(tower.items), 1, tower.title), *brackets]


def _depth(brackets: list[Bracket]) -> int:
    return max((_place(brackets, bracket) + 1 for bracket in brackets), default=0)


def _place(brackets: list[Bracket], bracket: Bracket) -> int:
    """How many brackets stand around one."""
    before = brackets[: brackets.index(bracket)]
    return sum(each.first <= bracket.first and bracket.last <= each.last for each in before)


def _between(ends: tuple[int, int], row: float) -> bool:
    return ends[0] <= row <= ends[1]


def _gutter(brackets: Iterable[Bracket], row: float, width: int, *, opened: bool = False, final: bool = True) -> str:
    """The brackets left of a row; `opened`: on the line that opens a bracket inside of these."""
    all_brackets = list(brackets)
    signs = [" "] * max(width, 1)
    for bracket in all_brackets:
        if _between((bracket.first, bracket.last), row):
            closing = row == bracket.last and final and not opened
            signs[2 * _place(all_brackets, bracket)] = "╰" if closing else "│"
    return "".join(signs)[:width]
