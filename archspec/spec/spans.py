"""Where each part of a spec stands in its text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from archspec.diagnostics import Edit
from archspec.source import Span

_COMMA_AFTER = re.compile(r"[ \t]*,[ \t]*")


@dataclass(frozen=True)
class StatementSpans:
    """Places of one statement; `settings` has one span a setting that the statement makes itself."""

    whole: Span
    head: Span
    """`layers 13-24`, `cache@13`, or the whole of a `prefill exit`."""
    items: tuple[Span, ...]
    mixer: Span | None
    source: Span | None
    settings: Mapping[str, Span]


@dataclass(frozen=True)
class SpecSpans:
    """Places of a whole spec; `settings` are those of the header, `statements` run parallel to the spec's."""

    name: Span
    settings: Mapping[str, Span]
    statements: tuple[StatementSpans, ...]

    def setting(self, statement: int, key: str) -> Span:
        """Where a statement's setting was made: by itself, else in the header, else its head."""
        own = self.statements[statement]
        return own.settings.get(key) or self.settings.get(key) or own.head

    @property
    def total(self) -> Span:
        """Where the number of layers is stated; else the model's name."""
        return self.settings.get("layers", self.name)


def without(setting: Span) -> Edit | None:
    """Take a setting out of its statement, with one of the commas beside it."""
    text = setting.source.text
    before = len(text[: setting.start].rstrip())
    if before and text[before - 1] == ",":
        return Edit(Span(setting.source, before - 1, setting.end), "")
    after = _COMMA_AFTER.match(text, setting.end)
    return Edit(Span(setting.source, setting.start, after.end()), "") if after else None
