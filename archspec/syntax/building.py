"""lark's parse tree -> archspec.syntax.tree: nodes with their places, and nothing more."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from lark import Token, Tree
from lark.tree import Meta

from archspec.source import Source, Span
from archspec.syntax import tree

_Node = TypeVar("_Node")


def _number(token: Token) -> int | float:
    text = str(token).replace("_", "")
    return float(text) if token.type == "FLOAT" else int(text)


class TreeBuilder:
    """Builds the tree of one file; a method a rule. `holes` are the places where clauses were dropped, ascending."""

    def __init__(self, source: Source, lost: frozenset[str], holes: tuple[int, ...]) -> None:
        self.source = source
        self.lost = lost
        self.holes = holes
        self.composed = False
        """Whether the file has anything that is not plain."""

    def build(self, root: Tree[Token]) -> tree.File:
        """The file, from the leaves up. Without recursion: levels may be nested in levels, wrongly, but deeply."""
        order, stack = [], [root]
        while stack:
            node = stack.pop()
            order.append(node)
            stack += [child for child in node.children if isinstance(child, Tree)]
        built: dict[int, Any] = {}
        for node in reversed(order):
            children = [built.pop(id(child)) if isinstance(child, Tree) else child for child in node.children]
            method = getattr(self, node.data, None)
            parts = (node.meta, children)
            built[id(node)] = self.__default__(node.data, children, node.meta) if method is None else method(*parts)
        file: tree.File = built[id(root)]
        return file

    def _at(self, meta: Meta) -> Span:
        return Span(self.source, meta.start_pos, meta.end_pos)

    def _atom(self, token: Token) -> tree.Atom:
        span = Span(self.source, token.start_pos or 0, token.end_pos or 0)
        return tree.Atom(_number(token) if token.type in ("INT", "FLOAT", "TOTAL") else str(token), span)

    @staticmethod
    def _place(child: Token | tree.Atom) -> Any:
        """A layer number, `last` or `below`; a stand-in for what is still to be computed."""
        if isinstance(child, tree.Atom):
            return child.value
        return str(child) if child.type in ("LAST", "BELOW") else _number(child)

    def start(self, meta: Meta, children: list[Any]) -> tree.File:
        defines = tuple(
            replace(define, damaged=any(define.span.start <= hole < define.span.end for hole in self.holes))
            for define in _of(tree.Define, children)
        )
        models, lets = _of(tree.Model, children), _of(tree.Let, children)
        composed = self.composed or len(children) != len(models) or len(models) > 1
        composed = composed or not self.lost.isdisjoint(("use", "let", "define"))  # and so its names mean something
        return tree.File(_of(tree.Use, children), lets, defines, models, self.lost, composed)

    def use(self, meta: Meta, children: list[Token]) -> tree.Use:
        span = Span(self.source, children[0].start_pos or 0, children[0].end_pos or 0)
        return tree.Use(span.text[1:-1], span)

    def let(self, meta: Meta, children: list[Any]) -> tree.Let:
        self.composed = True
        name, value = children
        return tree.Let(self._atom(name), self._expression(value), self._at(meta))

    def define(self, meta: Meta, children: list[Any]) -> tree.Define:
        name, *parts = children
        mixer = parts.pop(0) if parts and isinstance(parts[0], tree.Mixer) else None
        return tree.Define(self._atom(name), mixer, tuple(parts), self._at(meta))

    def base(self, meta: Meta, children: list[Token]) -> tree.Atom:
        self.composed = True
        return self._atom(children[0])

    def model(self, meta: Meta, children: list[Any]) -> tree.Model:
        name, *parts = children
        base = parts.pop(0) if parts and isinstance(parts[0], tree.Atom) else None
        statements, lets, removals = self._sorted_out(parts, self.holes)
        return tree.Model(self._atom(name), statements, self._at(meta), self.lost, base, lets, removals)

    def _sorted_out(self, parts: list[Any], holes: Sequence[int]) -> tuple[Any, Any, Any]:
        """Statements, lets and removals. A statement with a hole, which is where a clause was dropped, is damaged."""
        starts = [part.span.start for part in parts]
        for idx in {bisect_right(starts, hole) - 1 for hole in holes}:
            if idx >= 0 and isinstance(parts[idx], tree.Header | tree.Layers | tree.Cache):
                parts[idx] = replace(parts[idx], damaged=True)
        lets, removals = _of(tree.Let, parts), _of(tree.Removal, parts)
        return tuple(part for part in parts if not isinstance(part, tree.Let | tree.Removal)), lets, removals

    def _expression(self, child: Any) -> tree.Expression:
        """An operand: a token, or what a sum or product has become."""
        if not isinstance(child, Token):
            expression: tree.Expression = child
            return expression
        span = Span(self.source, child.start_pos or 0, child.end_pos or 0)
        return tree.Number(int(_number(child)), span) if child.type == "INT" else tree.Name(str(child), span)

    def sum(self, meta: Meta, children: list[Any]) -> tree.Arithmetic:
        operands = tuple(map(self._expression, children[::2]))
        return tree.Arithmetic(operands, tuple(map(str, children[1::2])), self._at(meta))

    product = sum

    def computed(self, meta: Meta, children: list[Any]) -> tree.Atom:
        """A name or an expression where a number is wanted."""
        self.composed = True
        expression = self._expression(children[0])
        return tree.Atom(0, expression.span, (("value", expression),))

    rope_base = computed

    def amount(self, meta: Meta, children: list[Any]) -> tree.Atom:
        if isinstance(children[0], Token) and children[0].type == "INT":
            return self._atom(children[0])
        return self.computed(meta, children)

    def like(self, meta: Meta, children: list[Token]) -> tree.Clause:
        self.composed = True
        return tree.Clause("like", (self._atom(children[0]),), self._at(meta))

    def no_layers(self, meta: Meta, children: list[Any]) -> tree.Removal:
        self.composed = True
        return tree.Removal("layers", children[0], None, self._at(meta))

    def no_cache(self, meta: Meta, children: list[Any]) -> tree.Removal:
        self.composed = True
        return tree.Removal("cache", (), children[0], self._at(meta))

    def no_iterate(self, meta: Meta, children: list[Any]) -> tree.Removal:
        self.composed = True
        return tree.Removal("iterate", (), None, self._at(meta))

    def no_exit(self, meta: Meta, children: list[Any]) -> tree.Removal:
        self.composed = True
        return tree.Removal("exit", (), None, self._at(meta))

    def header(self, meta: Meta, children: list[Any]) -> tree.Header:
        return tree.Header(tuple(children), self._at(meta))

    def layers(self, meta: Meta, children: list[Any]) -> tree.Layers:
        items, mixer, *clauses = children
        span = self._at(meta)
        return tree.Layers(items, mixer, tuple(clauses), span, Span(self.source, span.start, items[-1].span.end))

    def cache(self, meta: Meta, children: list[Any]) -> tree.Cache:
        (name, place, head), *clauses = children
        return tree.Cache(self._place(place), name, tuple(clauses), self._at(meta), head, _computed(layer=place))

    def cache_head(self, meta: Meta, children: list[Any]) -> tuple[str | None, Any, Span]:
        name = str(children[0]) if len(children) == 2 else None
        return name, children[-1], self._at(meta)

    def cache_ref(self, meta: Meta, children: list[Any]) -> tree.Reference:
        place = children[-1]
        level = self._atom(children[0]) if len(children) == 2 else None
        if isinstance(place, Token) and place.type == "NAME":
            return tree.Reference(None, str(place), self._at(meta), level)
        return tree.Reference(self._place(place), None, self._at(meta), level, _computed(layer=place))

    def iterate(self, meta: Meta, children: list[Any]) -> tree.Iterate:
        layers, forward, backward = children
        return tree.Iterate(self._item(layers), self._amount(forward), self._amount(backward), self._at(meta))

    def _amount(self, child: Token | tree.Atom) -> tree.Atom:
        return child if isinstance(child, tree.Atom) else self._atom(child)

    def prefill_exit(self, meta: Meta, children: list[Any]) -> tree.PrefillExit:
        return tree.PrefillExit(children[0], self._at(meta))

    def blocks_head(self, meta: Meta, children: list[Any]) -> tuple[str, tree.Atom, Span]:
        return "blocks", self._amount(children[1]), self._at(meta)

    def tokens_head(self, meta: Meta, children: list[Token]) -> tuple[str, None, Span]:
        return "tokens", None, self._at(meta)

    def level(self, meta: Meta, children: list[Any]) -> tree.Level:
        (kind, length, head), *parts = children
        span = self._at(meta)
        holes = [hole for hole in self.holes if span.start <= hole < span.end]
        statements, lets, removals = self._sorted_out(parts, holes)
        return tree.Level(kind, length, statements, span, head, lets, removals)

    def emit(self, meta: Meta, children: list[Token]) -> tree.Emit:
        return tree.Emit(self._atom(children[0]), self._at(meta))

    def door(self, meta: Meta, children: list[Token]) -> tuple[tree.Atom, tree.Atom, Span]:
        return self._atom(children[0]), self._atom(children[1]), self._at(meta)

    def take(self, meta: Meta, children: list[Any]) -> tree.Take:
        kind, *length, (level, name, span) = children
        return tree.Take(
            "prefix" if kind.type == "PREFIX" else "summation",
            self._amount(length[0]) if length else None,
            level,
            name,
            self._at(meta),
            span,
        )

    def mixer(self, meta: Meta, children: list[Any]) -> tree.Mixer:
        source = children[1] if len(children) == 2 else None
        return tree.Mixer(self._atom(children[0]), source, self._at(meta))

    def layer_list(self, meta: Meta, children: list[Any]) -> tuple[tree.Item, ...]:
        return tuple(map(self._item, children))

    def stepped_range(self, meta: Meta, children: list[Any]) -> tree.Item:
        item, *step = children
        if not step:
            return tree.Item("range", item.first, item.last, 1, self._at(meta), item.computed)
        number, computed = int(self._amount(step[0]).value), (*item.computed, *_computed(step=step[0]))
        return tree.Item("range", item.first, item.last, number, self._at(meta), computed)

    def layer_range(self, meta: Meta, children: list[Any]) -> tree.Item:
        if len(children) == 2:
            first, last = map(self._place, children)
            return tree.Item("range", first, last, 1, self._at(meta), _computed(first=children[0], last=children[1]))
        first, last = _range_ends(str(children[0]))
        return tree.Item("range", first, last, 1, self._at(meta))

    def _item(self, child: Any) -> tree.Item:
        """One element of a layer list: a range, or a number that is a range of one layer."""
        if isinstance(child, tree.Item):
            return child
        if isinstance(child, tree.Atom):
            return tree.Item("range", 0, 0, 1, child.span, _computed(first=child, last=child))
        span = Span(self.source, child.start_pos or 0, child.end_pos or 0)
        if child.type == "REST":
            return tree.Item("rest", None, None, 1, span)
        if child.type == "OPEN_RANGE":
            first, last = _range_ends(str(child))
            return tree.Item("range", first, last, 1, span)
        place = self._place(child)
        return tree.Item("range", place, place, 1, span)

    def sqrt_width(self, meta: Meta, children: list[Any]) -> tree.Atom:
        return tree.Atom("sqrt(width)", self._at(meta))

    def lacking(self, meta: Meta, children: list[Token]) -> tree.Atom:
        return tree.Atom(f"no {children[0]}", self._at(meta))

    def __default__(self, data: str, children: list[Any], meta: Meta) -> tree.Clause:
        parts = tuple(child for child in children if isinstance(child, tree.Clause))
        values = (child for child in children if not isinstance(child, tree.Clause))
        args = tuple(child if isinstance(child, tree.Atom) else self._atom(child) for child in values)
        return tree.Clause(str(data), args, self._at(meta), parts)


def _of(kind: type[_Node], parts: list[Any]) -> tuple[_Node, ...]:
    return tuple(part for part in parts if isinstance(part, kind))


def _computed(**fields: Any) -> tree.Computed:
    """Which fields of a node are given by expressions."""
    return tuple(
        (field, expression)
        for field, child in fields.items()
        if isinstance(child, tree.Atom)
        for _, expression in child.computed
    )


def _range_ends(text: str) -> tuple[Any, Any]:
    """`13-24`, `13..last`, `13-`, `-24` -> ends; an absent end is None."""
    for dash in ("..", "–", "—", "-"):
        if dash in text:
            first, _, last = (part.strip() for part in text.partition(dash))
            return (int(first) if first else None), (last if last == "last" else int(last) if last else None)
    raise AssertionError(text)
