"""Text -> the same text in the canonical layout. Every token and every comment stays, and so does their order.

Contract: `format_source` changes blanks, line ends and the spelling of dashes and `×`, nothing else; it is idempotent,
and a text with syntax errors is left alone. Blanks follow from the kinds of tokens, lines from commas and braces: no
rule here knows a statement or a setting.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from archspec.collecting import few_collections
from archspec.diagnostics import Diagnostic
from archspec.source import Source
from archspec.spec.format import HANGING, INDENT, WIDTH
from archspec.syntax.lexemes import Lexeme
from archspec.syntax.parser import lexemes, parse_text, plain_lexemes

COMMENT_COLUMN = 49
"""Where comments at line ends stand, if the lines before them are shorter."""
ALIGNED = 76
"""A line longer than this does not push the comments of its neighbours to the right."""

_DASH = re.compile(r"\s*(?:–|—|-|\.\.)\s*")
_BLANKS = re.compile(r"\s+")
_TIGHT_BEFORE = frozenset(",:)]%@.")
_TIGHT_AFTER = frozenset("([@.")
_CONTINUES = frozenset(",([=+-*/")
"""A line end behind one of these does not end the statement."""


@dataclass(frozen=True)
class Formatted:
    """What came of a text: itself in canonical layout, or why it was left alone."""

    source: Source
    text: str
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.diagnostics

    @property
    def changed(self) -> bool:
        return self.text != self.source.text

    def diff(self) -> Iterator[str]:
        """The lines of a unified diff, without their ends."""
        from difflib import unified_diff

        name = self.source.name
        before, after = self.source.text.split("\n"), self.text.split("\n")
        return unified_diff(before, after, name, f"{name} (formatted)", lineterm="")


@few_collections()
def format_source(source: Source) -> Formatted:
    """The canonical layout of a text. With syntax errors, the text as it is and the errors."""
    text = source.text.removeprefix("\ufeff")
    tokens = plain_lexemes(source)
    if tokens is None:
        _, found = parse_text(source)
        if found:
            return Formatted(source, source.text, tuple(found))
        tokens = lexemes(text)
    gaps = [_gap(part) for part in _between(text, tokens)]
    written = _print(_Layout(tokens, gaps).lines())
    if _statement_texts(tokens) != _statement_texts(lexemes(written)):
        raise RuntimeError("the formatted text does not say what the original says")  # and is not written
    return Formatted(source, written)


def _statement_texts(tokens: Sequence[Lexeme]) -> list[list[str]]:
    return [[_spelling(tokens[idx]) for idx in statement] for statement in _statements(tokens)]


@dataclass(frozen=True)
class _Gap:
    """What stands between two tokens: a comment on the line of the first, lines of their own below it."""

    trailing: str
    below: tuple[str, ...]
    """Comments, and `""` for blank lines; no two of these in a row."""


def _between(text: str, tokens: Sequence[Lexeme]) -> Iterator[str]:
    """The text before, between and behind tokens: one part more than there are tokens."""
    ends = [0, *(token.end for token in tokens)]
    starts = [*(token.start for token in tokens), len(text)]
    for number, (end, start) in enumerate(zip(ends, starts, strict=True)):
        yield text[end:start] if number else "\n" + text[end:start]


def _gap(part: str) -> _Gap:
    trailing, *lines = (line.strip() for line in part.split("\n"))
    below: list[str] = []
    for line in lines[:-1] + ([lines[-1]] if lines and lines[-1] else []):
        if line or (below and below[-1]) or not below:
            below.append(line)
    return _Gap(trailing, tuple(below))


@dataclass
class _Line:
    indent: int
    code: str
    comment: str = ""

    @property
    def width(self) -> int:
        return self.indent + len(self.code)


@dataclass
class _Layout:
    """Puts statements on lines. `gaps[i]` stands before `tokens[i]`, the last one behind all of them."""

    tokens: Sequence[Lexeme]
    gaps: Sequence[_Gap]
    done: list[_Line] = field(default_factory=list)
    depth: int = 0

    def lines(self) -> list[_Line]:
        previous: Sequence[int] = ()
        for statement in _statements(self.tokens):
            self._above(previous, statement)
            if self.tokens[statement[0]].text == "}":
                self.depth -= 1
            self._statement(statement)
            if self.tokens[statement[-1]].text == "{":
                self.depth += 1
            previous = statement
        self._own_lines(self.gaps[-1].below)
        return self.done

    def _above(self, previous: Sequence[int], statement: Sequence[int]) -> None:
        """Blank lines and comments before a statement; none of the former inside of a brace."""
        below = list(self.gaps[statement[0]].below)
        opened = bool(previous) and self.tokens[previous[-1]].text == "{"
        closes = self.tokens[statement[0]].text == "}"
        if not previous or opened:
            below = below[1:] if below and not below[0] else below
        if closes:
            below = below[:-1] if below and not below[-1] else below
        if self.depth == 0 and previous and "" not in below and self._is_block(previous, statement):
            below.insert(0, "")
        self._own_lines(below)

    def _is_block(self, previous: Sequence[int], statement: Sequence[int]) -> bool:
        """Whether one of two neighbours has braces."""
        return self.tokens[previous[-1]].text == "}" or self.tokens[statement[-1]].text == "{"

    def _own_lines(self, below: Sequence[str]) -> None:
        self.done += [_Line(INDENT * self.depth if line else 0, line) for line in below]

    def _statement(self, statement: Sequence[int]) -> None:
        """One line, or several if there are comments inside or it is too long."""
        indent = INDENT * self.depth
        line = _Line(indent, "")
        for part in self._parts(statement):
            first, last = part[0], part[-1]
            words = _joined([self.tokens[idx] for idx in part])
            inside = self.gaps[first] if first != statement[0] else _Gap("", ())
            comments = [text for text in inside.below if text]
            if inside.trailing or comments or (line.code and line.width + 1 + len(words) > WIDTH):
                self.done.append(line)
                self.done += [_Line(indent + HANGING, comment) for comment in comments]
                line = _Line(indent + HANGING, words)
            else:
                line.code = f"{line.code} {words}" if line.code else words
            line.comment = self.gaps[last + 1].trailing
        self.done.append(line)

    def _parts(self, statement: Sequence[int]) -> Iterator[list[int]]:
        """Pieces of a statement between which a line may end: not inside of parentheses, unless a comment is there."""
        part: list[int] = []
        depth = 0
        for idx in statement:
            part.append(idx)
            token, gap = self.tokens[idx], self.gaps[idx + 1]
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            may_break = token.text == "," and token.may_end_line and depth == 0
            if idx != statement[-1] and (may_break or gap.trailing or any(gap.below)):
                yield part
                part = []
        yield part


def _statements(tokens: Sequence[Lexeme]) -> Iterator[list[int]]:
    """Indices of tokens, statement by statement; `model m {` and `}` are one each."""
    statement: list[int] = []
    for idx, token in enumerate(tokens):
        before = tokens[idx - 1].text if idx else ""
        ends = token.first_of_line and before not in _CONTINUES
        if statement and (ends or token.text == "}" or before in ("{", "}")):
            yield statement
            statement = []
        statement.append(idx)
    if statement:
        yield statement


def _joined(tokens: Sequence[Lexeme]) -> str:
    loose = {
        dash
        for before, dash, token in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if _is_loose(before, dash, token)
    }
    words = [_spelling(tokens[0])]
    for before, token in pairwise(tokens):
        tight = _is_tight(before, token) and loose.isdisjoint((before, token))
        words += ["" if tight else " ", _spelling(token)]
    return "".join(words)


def _is_loose(before: Lexeme, dash: Lexeme, token: Lexeme) -> bool:
    """Whether a range would become one word without blanks: `a - b`."""
    return dash.kind == "_DASH" and before.kind == token.kind == "IDENT" and token.text[0].islower()


def _is_tight(before: Lexeme, token: Lexeme) -> bool:
    """Whether no blank stands between two tokens."""
    if before.text in _TIGHT_AFTER or "_DASH" in (before.kind, token.kind):
        return True
    if token.text == "(":
        return not before.takes_number and (before.text[-1].isalnum() or before.text[-1] in "_")
    return token.text in _TIGHT_BEFORE


def _spelling(token: Lexeme) -> str:
    """`13 .. 24` -> `13-24`, `1 + w` -> `1+w`, `×` -> `x`; all else as it was written."""
    if token.text[0] in "\"'":
        return token.text
    if "RANGE" in token.kind:
        return _DASH.sub("-", token.text)
    return "x" if token.text == "×" else _BLANKS.sub("", token.text)


def _print(lines: list[_Line]) -> str:
    while lines and not lines[-1].code:
        lines.pop()
    while lines and not lines[0].code:
        lines.pop(0)
    columns = _comment_columns(lines)
    printed = (
        f"{' ' * line.indent + line.code:<{column}}{line.comment}".rstrip()
        for line, column in zip(lines, columns, strict=True)
    )
    return "".join(f"{line}\n" for line in printed)


def _comment_columns(lines: Sequence[_Line]) -> list[int]:
    """The column of each line's comment: the same within a run of lines without a blank one between."""
    columns: list[int] = []
    start = 0
    for end in range(len(lines) + 1):
        if end == len(lines) or not lines[end].code:
            run = lines[start:end]
            widths = [line.width for line in run if line.comment and line.width <= ALIGNED]
            common = max([COMMENT_COLUMN, *(width + 2 for width in widths)])
            columns += [max(common, line.width + 2) for line in run]
            columns += [0] * (end < len(lines))
            start = end + 1
    return columns
