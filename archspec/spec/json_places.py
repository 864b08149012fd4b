"""Where the values of a JSON text stand in it: path -> characters.

Contract: `Places` expects well-formed JSON, as a parser has found it; one pass, linear in the text.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from archspec.source import Source, Span

Key = str | int
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_LINE_COLUMN = re.compile(r" at line (\d+) column (\d+)$")


@dataclass
class _Value:
    """A value, the key before it (empty for elements of a list), and what is in it."""

    key: tuple[int, int]
    start: int
    end: int
    inside: "dict[Key, _Value]" = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """The value that a path leads to, or the innermost that there is on the way."""

    span: Span
    key_span: Span
    """Its key; the value itself if it has none."""
    path: tuple[Key, ...]


class Places:
    """The places of one JSON text."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._root = _read(source.text)

    def find(self, path: Sequence[Key]) -> Place:
        """Follow a path of keys and indices. Keys that are not there are passed over: pydantic names types as well."""
        value, found = self._root, []
        for key in path:
            if key in value.inside:
                value = value.inside[key]
                found.append(key)
        span = Span(self.source, value.start, value.end)
        key_span = Span(self.source, *value.key) if value.key[1] else span
        return Place(span, key_span, tuple(found))


def _read(text: str) -> _Value:
    root = _Value((0, 0), 0, len(text))
    opened: list[_Value] = []
    key: Key = 0
    key_place = (0, 0)
    expects_key = False
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if expects_key and first == '"':
            key, key_place, expects_key = json.loads(token[0]), token.span(), False
        elif first in "}]":
            opened.pop().end = token.end()
            expects_key = False
        elif first == ",":
            in_object = text[opened[-1].start] == "{"
            expects_key, key, key_place = in_object, len(opened[-1].inside), (0, 0)
        elif first != ":":
            value = _Value(key_place, token.start(), token.end())
            if opened:
                opened[-1].inside[key] = value
            else:
                root = value
            if first in "{[":
                opened.append(value)
                expects_key, key, key_place = first == "{", 0, (0, 0)
    return root


def syntax_place(source: Source, message: str) -> tuple[Span, str]:
    """The place that a message about text that is no JSON ends with (`... at line 3 column 7`), and the rest of it."""
    found = _LINE_COLUMN.search(message)
    if found is None:
        return Span(source, 0, 0), message
    before = source.text.split("\n")[: int(found[1])]
    last = before.pop().encode()[: int(found[2]) - 1].decode(errors="ignore")  # the column counts bytes
    start = sum(len(line) + 1 for line in before) + len(last)
    return Span(source, start, min(start + 1, len(source.text))), message[: found.start()]


def path_text(path: Sequence[Key]) -> str:
    """`statements[2].settings.heads`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")
