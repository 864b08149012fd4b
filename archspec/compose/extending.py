"""`extends`: the statements of a model over those of the model that it extends. Both are plain.

Contract: a layer, a header setting, a cache and so on comes from above if it is said there, else from below; `rest`,
`last` and the total are those of the whole. Linear in the statements, up to sorting.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from archspec.compose.file_errors import NothingToRemove
from archspec.compose.findings import Findings
from archspec.compose.ranges import MAX_PIECES, NO_END, Taken, ends_of
from archspec.compose.templates import setting
from archspec.diagnostics import MAX_LABELS
from archspec.syntax import tree
from archspec.syntax.limits import BeyondLimits

_Kind = TypeVar("_Kind")
Statements = Sequence[tree.Statement]


def merged(
    below: Statements, above: Statements, removals: Sequence[tree.Removal], base: str, findings: Findings
) -> tuple[tree.Statement, ...]:
    """What `above` says, each statement where the one that it replaces stood, and what is left of `below`."""
    total = total_of(above) or total_of(below) or NO_END
    _report_idle(below, removals, total, base, findings)
    removed = _Named((), removals, total)
    kept = [left for part in below if (left := removed.left_of(part)) is not None]
    said, places = _Named(above, (), total), _Places(kept, total)
    ranked: list[tuple[int, int, tree.Statement]] = []
    for rank, statement in enumerate(kept):
        left = said.left_of(statement)
        if left is not None:
            ranked.append((rank, -1, left))
    for order, statement in enumerate(above):
        rank = places.rank_of(statement)
        if isinstance(statement, tree.Level):
            inner = next((part.statements for part in _of(tree.Level, kept) if part.kind == statement.kind), ())
            layers = merged(inner, statement.statements, statement.removals, base, findings)
            statement = replace(statement, statements=layers, removals=())
        ranked.append((rank, order, statement))
    if any(named.layers.pieces > MAX_PIECES for named in (removed, said)):
        ranked = [entry for entry in ranked if entry[1] >= 0 or not isinstance(entry[2], tree.Layers)]
        findings.lost.add("pieces")
        span = next(part.list_span for part in below if isinstance(part, tree.Layers))
        what = "pieces into which the layers of a base fall"
        findings.report(BeyondLimits(span=span, what=what, limit=MAX_PIECES))
    ranked.sort(key=lambda entry: entry[:2])
    return tuple(statement for _, _, statement in ranked)


def total_of(statements: Iterable[tree.Statement]) -> int | None:
    """The number of layers that a header states."""
    for header in _of(tree.Header, statements):
        for clause in header.settings:
            if clause.key == "total" and isinstance(clause.args[0].value, int):
                return clause.args[0].value or None
    return None


class _Named:
    """What statements, or removals, take away from those below them."""

    def __init__(self, statements: Statements, removals: Sequence[tree.Removal], total: int) -> None:
        self.total = total
        self.settings = {setting(clause) for part in _of(tree.Header, statements) for clause in part.settings}
        items = [item for part in _of(tree.Layers, statements) for item in part.items]
        self.has_rest = any(item.kind == "rest" for item in items)
        self.layers = Taken([*items, *(item for removal in removals for item in removal.items)], total)
        caches: list[tree.Cache | tree.Reference] = [*_of(tree.Cache, statements)]
        caches += [removal.cache for removal in removals if removal.cache is not None]
        self.names = {cache.name for cache in caches} - {None}
        self.places = {cache.layer for cache in caches if isinstance(cache, tree.Cache) or cache.name is None}
        self.unnamed = {cache.layer for cache in caches if cache.name is None}
        self.levels = {part.kind for part in _of(tree.Level, statements)}
        self.iterated = Taken([part.layers for part in _of(tree.Iterate, statements)], total)
        kinds: set[type] = {type(part) for part in statements} - {tree.Iterate}
        kinds |= {_SINGLE[removal.kind] for removal in removals if removal.kind in _SINGLE}
        self.kinds = kinds

    def left_of(self, statement: tree.Statement) -> tree.Statement | None:
        """What is left of a statement; None if nothing is."""
        match statement:
            case tree.Header():
                settings = tuple(clause for clause in statement.settings if not self._makes(clause))
                unknown = statement.unknown - self.settings
                kept = settings or unknown or statement.damaged
                return replace(statement, settings=settings, unknown=unknown) if kept else None
            case tree.Layers(items=items) if any(item.kind == "rest" for item in items):
                return None if self.has_rest else statement
            case tree.Layers():
                pieces = tuple(piece for item in statement.items for piece in self.layers.left_of(item))
                return replace(statement, items=pieces) if pieces else None
            case tree.Cache(name=name, layer=layer):
                same = name in self.names if name is not None else layer in self.places
                return None if same or layer in self.unnamed else statement
            case tree.Level():
                return None if statement.kind in self.levels else statement
            case tree.Iterate(layers=layers) if tree.Iterate not in self.kinds:
                ends = ends_of(layers, self.total)
                return None if ends is not None and self.iterated.within(*ends) else statement
            case tree.Emit() | tree.Take():
                return None if self.kinds & {tree.Emit, tree.Take} else statement
            case _:
                return None if type(statement) in self.kinds else statement

    def _makes(self, clause: tree.Clause) -> bool:
        return setting(clause) in self.settings or (clause.key == "sinks" and "window" in self.settings)


_SINGLE: dict[str, type] = {"iterate": tree.Iterate, "exit": tree.PrefillExit}


class _Places:
    """Where in a stack of layers a person would look for a statement."""

    def __init__(self, statements: Statements, total: int) -> None:
        self.total = total
        self.ranks: dict[object, int] = {}
        """The first layer of an item, a cache, or a kind of statement -> the statement that has it."""
        self.reached: list[int] = []
        """For each statement, how far it and those before it have come where they begin."""
        highest = 0
        for rank, statement in enumerate(statements):
            for key in self._keys(statement):
                self.ranks.setdefault(key, rank)
            if isinstance(statement, tree.Header):
                self.ranks[tree.Header] = rank  # behind the last of them
            highest = max(highest, self._begin(statement))
            self.reached.append(highest)

    def rank_of(self, statement: tree.Statement) -> int:
        """The statement behind which this one goes."""
        for key in self._keys(statement):
            if key in self.ranks:
                return self.ranks[key]
        begin = self._begin(statement)
        return bisect_right(self.reached, begin) - 1 if begin else len(self.reached)

    def _keys(self, statement: tree.Statement) -> list[object]:
        match statement:
            case tree.Layers(items=items):
                return [("layers", self._first(item)) for item in items]
            case tree.Cache(name=name, layer=layer):
                return [("name", name), ("place", layer)] if name is not None else [("place", layer)]
            case tree.Level(kind=kind):
                return [kind]
            case _:
                return [type(statement)]

    def _begin(self, statement: tree.Statement) -> int:
        """Where on the way through the layers a statement begins; 0 for those that belong to no layer."""
        match statement:
            case tree.Layers(items=items):
                return 2 * self._first(items[0])
            case tree.Cache(layer=layer):
                return 2 * (layer if isinstance(layer, int) else self.total) + 1  # behind its layer
            case _:
                return 0

    def _first(self, item: tree.Item) -> int:
        ends = ends_of(item, self.total)
        return 0 if ends is None else ends[0]


def _report_idle(
    below: Statements, removals: Sequence[tree.Removal], total: int, base: str, findings: Findings
) -> None:
    """Report removals of what is not there."""
    caches = _of(tree.Cache, below)
    named = _Named(below, (), total)
    for removal in removals:
        match removal.kind:
            case "layers":
                hit = any(
                    named.layers.within(*ends) for item in removal.items if (ends := ends_of(item, total)) is not None
                )
            case "cache":
                cache = removal.cache
                assert cache is not None
                hit = cache.name in named.names if cache.name is not None else cache.layer in named.places
            case kind:
                hit = any(isinstance(part, _SINGLE[kind]) for part in below)
        if not hit:
            there = tuple(f"`{cache.head_span.text}`" for cache in caches[:MAX_LABELS])
            there = there if removal.kind == "cache" else ()
            findings.report(NothingToRemove(span=removal.span, what=removal.span.text, base=base, there=there))


def _of(kind: type[_Kind], statements: Iterable[object]) -> list[_Kind]:
    return [part for part in statements if isinstance(part, kind)]
