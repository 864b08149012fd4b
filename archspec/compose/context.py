"""By which way a place has come into the model: through a template, a base or another file."""

from bisect import bisect_left
from dataclasses import replace
from itertools import pairwise
from typing import Any

from archspec.compose.library import Library
from archspec.diagnostics import MAX_LABELS, Diagnostic, Help, Label
from archspec.source import Source, Span
from archspec.syntax import tree

_MAX_NOTES = 3


class InContext(Diagnostic):
    """A diagnostic with labels on the way to its place, and the values of what is computed there.

    Its edits are left out where the text stands for more than one model or more than one statement.
    """

    inner: Diagnostic
    way: tuple[Label, ...]
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", self.inner.code)
        object.__setattr__(self, "severity", self.inner.severity)

    def message(self) -> str:
        return self.inner.message()

    def remark(self) -> str:
        return self.inner.remark()

    def labels(self) -> tuple[Label, ...]:
        own = self.inner.labels()
        there = {label.span for label in own}
        return (*own, *(label for label in self.way if label.span not in there))

    def helps(self) -> tuple[Help, ...]:
        return tuple(Help(help_.text) for help_ in self.inner.helps()) if self.way else self.inner.helps()

    def notes(self) -> tuple[str, ...]:
        return (*self.inner.notes(), *self.values)


class Way:
    """Knows for every place of a composed model how it came there."""

    def __init__(self, root: Source, library: Library, chain: list[tree.Model], places: dict[Span, int]) -> None:
        self.root = root
        self.library = library
        self.bases = [
            (base.span, Label(model.base.span, f"`{model.name.value}` takes it over here"))
            for model, base in pairwise(chain)
            if model.base is not None
        ]
        self.values: dict[Source, list[tuple[int, int, str]]] = {}
        for span, value in places.items():
            if not span.text.replace("_", "").isdecimal():
                self.values.setdefault(span.source, []).append((span.start, span.end, f"`{span.text}` is {value} here"))
        for entries in self.values.values():
            entries.sort()

    def located(self, diagnostic: Diagnostic) -> Diagnostic:
        """The diagnostic, with what has to be said about its place."""
        way, values = self._labels(diagnostic.span), self._values(diagnostic.span)
        if not way and not values:
            return diagnostic
        return InContext(span=diagnostic.span, inner=diagnostic, way=way, values=values)

    def _labels(self, span: Span) -> tuple[Label, ...]:
        uses, place = [], span
        while place.via is not None:
            place = place.via
            uses.append(Label(replace(place, via=None), "used here"))
        for base, label in self.bases:
            if uses or _is_inside(place, base):
                if _is_inside(place, base):
                    uses.append(label)
                    place = label.span
        if not uses:
            use = self.library.used_by.get(place.source)
            while use is not None:
                uses.append(Label(use, "used here"))
                use = self.library.used_by.get(use.source)
        return tuple(uses[:MAX_LABELS])

    def _values(self, span: Span) -> tuple[str, ...]:
        """The values of the expressions inside of a place."""
        entries = self.values.get(span.source, [])
        start: tuple[Any, ...] = (span.start,)
        found: list[str] = []
        for first, last, text in entries[bisect_left(entries, start) :]:
            if first > span.end or len(found) == _MAX_NOTES:
                break
            if last <= span.end:
                found.append(text)
        return tuple(dict.fromkeys(found))


def _is_inside(place: Span, outer: Span) -> bool:
    return place.source is outer.source and outer.start <= place.start < outer.end
