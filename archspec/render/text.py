"""Diagnostics -> text as rustc prints it."""

from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import combining, east_asian_width

from archspec.diagnostics import Diagnostic, Help
from archspec.source import Source, Span

Style = str
Segments = list[tuple[str, Style]]

_BAR = "blue"
_WIDEST = 160
"""Characters of a line that are shown; of a longer one, those around the marks."""
_LONGEST = 600


_ANSI = {"bold": "1", "bold red": "1;31", "bold yellow": "1;33", "blue": "34", "green": "32"}


def render_text(diagnostics: Sequence[Diagnostic], colour: bool = False) -> str:
    """All diagnostics as text, a blank line between two; with `colour`, in ANSI escape sequences."""
    return "\n\n".join(
        "".join(_painted(text, style) if colour else text for text, style in segments(diagnostic))
        for diagnostic in diagnostics
    )


def _painted(text: str, style: Style) -> str:
    return f"\x1b[{_ANSI[style]}m{text}\x1b[0m" if style else text


def segments(diagnostic: Diagnostic) -> Segments:
    """One diagnostic as styled pieces (those of `_ANSI`, or none), without a final line end."""
    style = "bold red" if diagnostic.severity == "error" else "bold yellow"
    out: Segments = [
        (f"{diagnostic.severity}[{diagnostic.code}]", style),
        (f": {_clipped(diagnostic.message())}", "bold"),
    ]
    span = diagnostic.span
    helps = diagnostic.helps()
    shown = _shown_lines(diagnostic)
    gutter = len(str(max(shown, default=1)))
    place = f":{span.line}:{span.column}" if span.source.text else ""
    out += [(f"\n{' ' * gutter}--> ", _BAR), (f"{span.source.name}{place}", "")]
    if span.source.text:
        out += _snippet(diagnostic, gutter, style)
    for help_ in helps:
        out += _help(help_, gutter)
    for note in diagnostic.all_notes():
        out += [(f"\n{' ' * gutter} = ", _BAR), ("note", "bold"), (f": {note}", "")]
    out += [(f"\n{' ' * gutter} = ", _BAR), ("note", "bold"), (f": `archspec explain {diagnostic.code}`", "")]
    return out


def _shown_lines(diagnostic: Diagnostic) -> list[int]:
    lines = [diagnostic.span.line, *(label.span.line for label in diagnostic.labels())]
    lines += [help_.edit.span.line for help_ in diagnostic.helps() if help_.edit and help_.edit.text.endswith("\n")]
    return lines if diagnostic.span.source.text else []


@dataclass(frozen=True)
class _Mark:
    span: Span
    text: str
    primary: bool


def _snippet(diagnostic: Diagnostic, gutter: int, style: Style) -> Segments:
    """The lines that take part: those of the primary file, and below them those of others."""
    files: dict[Source, list[_Mark]] = {diagnostic.span.source: []}
    for label in diagnostic.labels():
        files.setdefault(label.span.source, []).append(_Mark(label.span, label.text, False))
    files[diagnostic.span.source].append(_Mark(diagnostic.span, diagnostic.remark(), True))
    out: Segments = []
    for source, marks in files.items():
        if source is not diagnostic.span.source:
            out += [(f"\n{' ' * gutter}::: ", _BAR), (f"{source.name}:{marks[0].span.line}:{marks[0].span.column}", "")]
        out += _lines(source, marks, gutter, style)
    return out


def _lines(source: Source, found: list[_Mark], gutter: int, style: Style) -> Segments:
    """The marked lines of one file, with dots where others lie between them."""
    marks: dict[int, list[_Mark]] = {}
    for mark in found:
        marks.setdefault(mark.span.line, []).append(mark)
    out: Segments = [(f"\n{' ' * gutter} |", _BAR)]
    previous: int | None = None
    for line in sorted(marks):
        if previous is not None and line > previous + 2:
            out.append(("\n...", _BAR))
        out += _line(source.line_text(line), line, marks[line], gutter, style)
        previous = line
    return out


def _line(text: str, line: int, marks: list[_Mark], gutter: int, style: Style) -> Segments:
    """One line of the source, a piece of it if it is long, with its marks below, rightmost first."""
    start = 0
    if len(text) > _WIDEST:
        start = max(0, min(mark.span.column - 1 for mark in marks) - _WIDEST // 4)
    piece = text[start : start + _WIDEST]
    shown = f"{'...' if start else ''}{_printable(piece)}{'...' if start + _WIDEST < len(text) else ''}"
    out: Segments = [(f"\n{line:>{gutter}} | ", _BAR), (shown, "")]
    for mark in sorted(marks, key=lambda mark: -mark.span.start):
        first = min(mark.span.column - 1 - start, len(piece))
        last = min(first + mark.span.end - mark.span.start, len(piece))
        blanks = (3 if start else 0) + _columns(piece[:first])
        signs = ("^" if mark.primary else "-") * max(1, _columns(piece[first:last]))
        remark = f" {_clipped(mark.text)}" if mark.text else ""
        out.append((f"\n{' ' * gutter} | {' ' * blanks}", _BAR))
        out.append((signs + remark, style if mark.primary else _BAR))
    return out


def _printable(text: str) -> str:
    """Tabs as single blanks, so that marks stay below what they mark; control characters as dots."""
    return "".join(char if char.isprintable() else " " if char == "\t" else "·" for char in text)


def _columns(text: str) -> int:
    """How many columns a terminal takes for a text: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _clipped(text: str) -> str:
    """A message with a word of a million letters in it is cut."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _help(help_: Help, gutter: int) -> Segments:
    out: Segments = [(f"\n{' ' * gutter} = ", _BAR), ("help", "bold"), (f": {_clipped(help_.text)}", "")]
    if help_.edit is not None and help_.edit.text.endswith("\n"):
        number = help_.edit.span.line
        for offset, line in enumerate(help_.edit.text.rstrip("\n").split("\n")):
            out += [(f"\n{number + offset:>{gutter}} + ", "green"), (line, "green")]
    return out
