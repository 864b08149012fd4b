"""Expressions in statements become numbers.

Contract: a part whose number could not be computed is left out, and its statement says so (`unknown`, `damaged`), or
its kind is in `lost`, so that nothing follows from it.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from archspec.compose import errors
from archspec.compose.findings import Findings
from archspec.compose.numbers import Numbers
from archspec.compose.templates import setting
from archspec.source import Span
from archspec.syntax import tree

_Node = TypeVar("_Node", tree.Atom, tree.Item, tree.Reference, tree.Cache)


class Filling:
    """Fills in the numbers of one stack of layers. `places` collects what was computed, and where."""

    def __init__(self, numbers: Numbers, findings: Findings, places: dict[Span, int]) -> None:
        self.numbers = numbers
        self.findings = findings
        self.places = places
        self.lost: set[str] = set()
        """Kinds of statements of which one has no place in the model any more."""

    def statement(self, statement: tree.Statement) -> tree.Statement | None:
        """The statement with its numbers; None if it cannot stand without one of them."""
        match statement:
            case tree.Header():
                settings, unknown = self._clauses(statement.settings)
                return replace(statement, settings=settings, unknown=unknown)
            case tree.Layers():
                return self._layers(statement)
            case tree.Cache():
                cache = self._node(statement)
                if cache is None:
                    self._without("cache")
                    return None
                clauses, unknown = self._clauses(cache.clauses)
                return replace(cache, clauses=clauses, unknown=unknown)
            case tree.Iterate():
                layers = self._node(statement.layers)
                forward, backward = self._node(statement.forward), self._node(statement.backward)
                if layers is None or forward is None or backward is None:
                    self._without("iterate")
                    return None
                return replace(statement, layers=layers, forward=forward, backward=backward)
            case tree.PrefillExit():
                after = self._node(statement.after)
                if after is None:
                    self._without("exit")
                    return None
                return replace(statement, after=after)
            case tree.Take(length=length) if length is not None:
                filled = self._node(length)
                if filled is None:
                    self._without("level")
                    return None
                return replace(statement, length=filled)
            case _:
                return statement

    def _without(self, kind: str) -> None:
        """Note that a statement is left out."""
        self.lost.add(kind)

    def _layers(self, statement: tree.Layers) -> tree.Layers | None:
        items = self.items(statement.items)
        if items is None:
            self._without("layers")
            return None
        clauses, unknown = self._clauses(statement.clauses)
        source = statement.mixer.source
        filled = source and self._node(source)
        damaged = statement.damaged or (filled is None and source is not None)
        mixer = replace(statement.mixer, source=filled)
        return replace(statement, items=items, mixer=mixer, clauses=clauses, damaged=damaged, unknown=unknown)

    def items(self, items: tuple[tree.Item, ...]) -> tuple[tree.Item, ...] | None:
        """A layer list; None if one of its numbers is not known."""
        filled = [self._node(item) for item in items]
        known = tuple(item for item in filled if item is not None)
        return known if len(known) == len(items) else None

    def reference(self, reference: tree.Reference) -> tree.Reference | None:
        return self._node(reference)

    def length(self, atom: tree.Atom | None) -> tree.Atom | None:
        return None if atom is None else self._node(atom)

    def _clauses(self, clauses: Iterable[tree.Clause]) -> tuple[tuple[tree.Clause, ...], frozenset[str]]:
        """Clauses with their numbers, and the settings of those that were left out."""
        known, unknown = [], set()
        for clause in clauses:
            filled = self._clause(clause)
            if filled is None:
                unknown.add("window" if clause.key == "sinks" else setting(clause))
            else:
                known.append(filled)
        return tuple(known), frozenset(unknown)

    def _clause(self, clause: tree.Clause) -> tree.Clause | None:
        if not _is_computed(clause):
            return clause
        args = [self._node(arg) for arg in clause.args]
        parts = [self._clause(part) for part in clause.parts]
        if None in args or None in parts:
            return None
        known = tuple(arg for arg in args if arg is not None), tuple(part for part in parts if part is not None)
        return tree.Clause(clause.key, known[0], clause.span, known[1])

    def _node(self, node: _Node) -> _Node | None:
        """A node with its numbers in the place of its expressions."""
        if not node.computed:
            return node
        fields: dict[str, Any] = {}
        for field, expression in node.computed:
            number = self.numbers.value(expression)
            if number is not None and number < 0:
                problem = f"is {number}, and no number of a model is below zero"
                self.findings.report(errors.NoResult(span=expression.span, problem=problem))
                number = None
            if number is None:
                return None
            self.places[expression.span] = number
            fields[field] = number
        return replace(node, computed=(), **fields)


def _is_computed(clause: tree.Clause) -> bool:
    return any(arg.computed for arg in clause.args) or any(map(_is_computed, clause.parts))
