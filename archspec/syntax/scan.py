"""Looking ahead in a text without a grammar: where a clause, a statement or a block ends.

Contract: linear in the text, comments are passed over, and every answer is an offset inside the text.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from archspec.syntax.words import LIKE_A_BLANK, LIKE_A_DASH

_BLANK = re.compile(r"\s*(?:#[^\n]*\s*)*")
_CLAUSE = re.compile(r"[,\n#}{()]")
_STATEMENT = re.compile(r"(,)[ \t\r]*(?:#[^\n]*)?\n|#[^\n]*|[\n}{]")
_BRACES = re.compile(r"#[^\n]*|[{}]")
_NEXT_MODEL = re.compile(r"^[ \t]*(?=[Mm]odel(?![\w-]))", re.MULTILINE)
_NEXT_DEFINITION = re.compile(r"^[ \t]*(?=(?:[Mm]odel|let|define)(?![\w-]))", re.MULTILINE)
_USE = r"(?<![\w-])use[ \t]*\"[^\"\n]*\""
_ODD = re.compile(rf"#[^\n]*|//[^\n]*|{_USE}|[;\[\]\"']|\\(?=[ \t]*\r?\n)|\r(?!\n)|[^\x00-\x7f–—×]")
_CACHE_SLIP = r"(?<![\w-])cache[ \t]*[(\[][ \t]*(?P<layer>\d{1,18}|last|below)[ \t]*[)\]]"
_RANGE_SLIP = (
    r"(?<![\w.])(?P<first>\d{1,18})[ \t]*(?P<word>:|~|\.{3,}|…|&|\b(?:through|thru|until|and)\b)[ \t]*"
    r"(?P<last>\d{1,18}|last)(?![\w.%])(?![ \t]*(?:forward|backward))"
)
_SLIP = re.compile(rf"#[^\n]*|//[^\n]*|{_CACHE_SLIP}|{_RANGE_SLIP}")
_LAYER_LIST = re.compile(
    r"(?<![\w-])[Ll]ayers?[ \t]*[\d\s,.:~…&–—-]*(?:(?:step|through|thru|until|and)[\d\s,.:~…&–—-]*)*$"
)


@dataclass(frozen=True)
class Slip:
    """A piece that is written as in other languages, and what it is here."""

    kind: Literal["cache", "range", "list"]
    start: int
    end: int
    fixed: str


def slips(text: str) -> Iterator[Slip]:
    """`cache(4)` for `cache@4`; in layer lists `1:4`, `1 through 4`, `1...4` for `1-4`, and `1 and 2` for `1, 2`."""
    for found in _SLIP.finditer(text):
        if found["layer"]:
            yield Slip("cache", found.start(), found.end(), f"cache@{found['layer']}")
        elif found["word"] and _is_layer_list(text, found):
            as_list = found["word"] in ("&", "and")
            fixed = f"{found['first']}, {found['last']}" if as_list else f"{found['first']}-{found['last']}"
            yield Slip("list" if as_list else "range", found.start(), found.end(), fixed)


_LOOK_BACK = 400
"""Characters before a slip that are looked at: longer layer lists are not written by hand."""


def _is_layer_list(text: str, found: re.Match[str]) -> bool:
    """Whether the numbers on both sides stand in a layer list; `iterate layers 2-8: 7` has its colon rightly."""
    line = text.rfind("\n", max(0, found.start() - _LOOK_BACK), found.start()) + 1 or max(0, found.start() - _LOOK_BACK)
    if found["word"] == ":" and "iterate" in text[line : found.start()]:
        return ":" in text[found.end() : clause_end(text, found.end())]
    return _LAYER_LIST.search(text, line, found.start("word")) is not None


def mended(text: str, found: list[Slip]) -> str:
    """The text with slips as what they mean, every character at its place."""
    parts, end = [], 0
    for slip in found:
        parts += [text[end : slip.start], slip.fixed.replace(" ", "").ljust(slip.end - slip.start)]
        end = slip.end
    return "".join([*parts, text[end:]])


def after_blanks(text: str, position: int) -> int:
    """The first place at or after `position` that is neither blank nor comment, line ends passed over."""
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def clause_end(text: str, position: int) -> int:
    """The comma, line end, comment or closing brace before which a setting ends; blocks are passed over.

    Commas inside of parentheses do not end it, opened before `position` or behind it.
    """
    depth, comma = 0, -1
    while found := _CLAUSE.search(text, position):
        position = found.end()
        match found[0]:
            case "{":
                position = block_end(text, found.start())
            case "(":
                depth += 1
            case ")":
                depth -= 1
                if depth < 0:  # it closes what was open before: so far, all was inside
                    depth, comma = 0, -1
            case ",":
                comma = found.start() if depth == 0 and comma < 0 else comma
            case _:
                return found.start() if comma < 0 else comma
    return len(text) if comma < 0 else comma


def statement_end(text: str, position: int) -> int:
    """Where the next statement starts, or the closing brace. A comma at a line's end continues the statement."""
    while found := _STATEMENT.search(text, position):
        if found[0] == "\n":
            return after_blanks(text, found.start())
        if found[0] == "}":
            return found.start()
        position = block_end(text, found.start()) if found[0] == "{" else found.end()
    return len(text)


def block_end(text: str, opening: int) -> int:
    """Behind the brace that closes the one at `opening`."""
    depth = 0
    for found in _BRACES.finditer(text, opening):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0 and found[0] == "}":
            return found.end()
    return len(text)


def next_model(text: str, position: int) -> int | None:
    """The next line that starts with `model`."""
    found = _NEXT_MODEL.search(text, position)
    return found.end() if found else None


def next_definition(text: str, position: int) -> int | None:
    """The next line that starts with `model`, `let` or `define`."""
    found = _NEXT_DEFINITION.search(text, position)
    return found.end() if found else None


def last_closing(text: str, position: int) -> int:
    """The last closing brace before a place; the place itself if there is none."""
    places = [found.start() for found in _BRACES.finditer(text, 0, position) if found[0] == "}"]
    return places[-1] if places else position


def word_before(text: str, position: int) -> str:
    """The word that stands before a place, on the same line."""
    found = re.search(r"([\w-]+)[ \t]*$", text[max(0, position - 120) : position])
    return found[1] if found else ""


def read_through(text: str) -> tuple[str, dict[str, list[int]]]:
    """The text with look-alikes as what they look like, and where they are, comments aside.

    One character becomes one character, so that places stay: dashes, blanks and full-width forms that editors and PDFs
    bring along; brackets and quotes as blanks, `;` as the end of a line, `//` as the start of a comment. The file that
    is named in `use "..."` stays as it is.
    """
    if text.startswith("\ufeff"):
        text = " " + text[1:]
    odd: dict[str, list[int]] = {}
    parts, end = [], 0
    for found in _ODD.finditer(text):
        plain = _plain(found[0])
        if plain is not None:
            kind = "//" if found[0].startswith("//") else "[" if found[0] == "]" else found[0]
            odd.setdefault(kind, []).append(found.start())
            parts += [text[end : found.start()], plain]
            end = found.end()
    return "".join([*parts, text[end:]]), odd


def _plain(character: str) -> str | None:
    """What a character stands for; None for comments and `use "..."`, and for what looks like nothing else."""
    if character.startswith("//"):
        return f"#{character[1:]}"
    if len(character) > 1 or character == "#":
        return None
    if character in LIKE_A_DASH:
        return "-"
    if character in LIKE_A_BLANK or character in "[]\"'\\":
        return " "
    if character in ";\r":
        return "\n"
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) == 1 and folded.isascii() and folded.isprintable() else None


def unclosed(text: str) -> list[int]:
    """The braces that are opened and not closed, from the outside in."""
    opened: list[int] = []
    for found in _BRACES.finditer(text):
        if found[0] == "{":
            opened.append(found.start())
        elif found[0] == "}" and opened:
            opened.pop()
    return opened
