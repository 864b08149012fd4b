"""Looking ahead in a text without a grammar: where a clause, a statement or a block ends.

Contract: linear in the text, comments are passed over, and every answer is an offset inside the text.
"""

import re
import unicodedata

from archspec.syntax.words import LIKE_A_BLANK, LIKE_A_DASH

_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_CLAUSE = re.compile(r"[,\n#}{]")
_STATEMENT = re.compile(r"(,)(?:[ \t\r]|#[^\n]*)*\n|#[^\n]*|[\n}{]")
_BRACES = re.compile(r"#[^\n]*|[{}]")
_NEXT_MODEL = re.compile(r"^[ \t]*(?=[Mm]odel(?![\w-]))", re.MULTILINE)
_ODD = re.compile(r"#[^\n]*|//[^\n]*|[=*;\[\]\"']|\r(?!\n)|[^\x00-\x7f–—×]")


def after_blanks(text: str, position: int) -> int:
    """The first place at or after `position` that is neither blank nor comment, line ends passed over."""
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def clause_end(text: str, position: int) -> int:
    """The comma, line end, comment or closing brace before which a setting ends; blocks are passed over."""
    while found := _CLAUSE.search(text, position):
        if found[0] != "{":
            return found.start()
        position = block_end(text, found.start())
    return len(text)


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


def word_before(text: str, position: int) -> str:
    """The word that stands before a place, on the same line."""
    found = re.search(r"([\w-]+)[ \t]*$", text[max(0, position - 120) : position])
    return found[1] if found else ""


def read_through(text: str) -> tuple[str, dict[str, list[int]]]:
    """The text with look-alikes as what they look like, and where they are, comments aside.

    One character becomes one character, so that places stay: dashes, blanks and full-width forms that editors and PDFs
    bring along; `=`, brackets and quotes as blanks, `*` as `x`, `;` as the end of a line, `//` as the start of a
    comment.
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
    """What a character stands for; None for comments, and for characters that look like nothing else."""
    if character.startswith("#"):
        return None
    if character in LIKE_A_DASH:
        return "-"
    if character in LIKE_A_BLANK or character in "=[]\"'":
        return " "
    if character in "*;\r":
        return "x" if character == "*" else "\n"
    if character.startswith("//"):
        return f"#{character[1:]}"
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
