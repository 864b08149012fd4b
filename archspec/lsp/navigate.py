"""Where a cache comes from and who reads it; the outline of a spec."""

from dataclasses import dataclass
from typing import Literal

from archspec.graph.layer_graph import CacheNode
from archspec.lsp.places import Stack, Statement, View
from archspec.source import Span
from archspec.spec.elaborate_levels import LevelElaborated
from archspec.spec.model import CacheStatement, IterateStatement, LayersStatement, PrefillExitStatement

SymbolKind = Literal["model", "level", "layers", "cache", "iterate", "exit", "door"]


@dataclass(frozen=True)
class Symbol:
    """One entry of the outline."""

    name: str
    kind: SymbolKind
    detail: str
    span: Span
    head: Span
    children: tuple["Symbol", ...] = ()


def definitions(view: View, offset: int) -> list[Span]:
    """Where the thing at an offset is made.

    For a cache: its `cache@12:` statement, else the layers that own it; for `blocks.context`: `emit context`.
    """
    named = view.cache_at(offset)
    if named is None:
        return [view.doors["blocks"]] if view.is_door(offset) and "blocks" in view.doors else []
    spans = [_declaration(named.stack, named.stack.graph.caches[key]) for key in named.keys]
    if not spans and named.number is not None:
        owner = _owner(named.stack, named.number)
        spans = [] if owner is None else [owner]
    return list(dict.fromkeys(spans))


def _declaration(stack: Stack, cache: CacheNode) -> Span:
    statement = Statement(stack, cache.statement)
    if isinstance(statement.spec, CacheStatement):
        return statement.spans.head
    return _owner(stack, cache.layer) or statement.spans.head


def _owner(stack: Stack, number: int) -> Span | None:
    """Where a layer is declared: the part of the list that has it, behind the word `layers`."""
    layer = stack.graph.layers.get(number)
    if layer is None:
        return None
    spec, spans = stack.elaborated.spec.statements[layer.statement], Statement(stack, layer.statement).spans
    assert isinstance(spec, LayersStatement)
    if len(spec.ranges) != len(spans.items):
        return spans.head
    for part, span in zip(spec.ranges, spans.items, strict=True):
        ends = [stack.elaborated.spec.num_layers if end == "last" else end for end in (part.first, part.last)]
        if number in range(min(ends), max(ends) + 1, part.step):
            return span
    return spans.head


def references(view: View, offset: int, declaration: bool = True) -> list[Span]:
    """Every place that names the cache at an offset; on `layers 1-12`, every place that names a cache of theirs."""
    named, owner = view.cache_at(offset), view.layers_at(offset)
    if named is not None:
        stack, keys = named.stack, set(named.keys)
    elif owner is not None:
        stack, keys = owner.stack, set(owner.written)
    else:
        doors = view.doors.items() if view.is_door(offset) else ()
        return [span for level, span in doors if declaration or level != "blocks"]
    found = [
        each.spans.source
        for each in stack.statements
        if each.spans.source is not None and not keys.isdisjoint(each.read)
    ]
    if declaration:
        found += [_declaration(stack, stack.graph.caches[key]) for key in keys]
    return sorted(dict.fromkeys(found), key=lambda span: (span.source.name, span.start, span.end))


def symbols(view: View) -> list[Symbol]:
    """The outline: the model, its levels, their statements."""
    elaborated = view.analysis.elaborated
    if elaborated is None or not view.has(elaborated.spans.name):
        return []
    children: list[Symbol] = []
    for stack in view.stacks:
        inside = _of_statements(view, stack)
        if isinstance(stack.elaborated, LevelElaborated):
            level = stack.elaborated.level
            door = view.doors.get(level.kind)
            inside += [] if door is None else [Symbol(door.text, "door", "", door, door)]
            detail = f"{stack.elaborated.spec.num_layers} layers"
            children.append(Symbol(level.head_span.text, "level", detail, level.span, level.head_span, tuple(inside)))
        else:
            children += inside
    name = elaborated.spans.name
    start = name.source.text.rfind("model", 0, name.start)
    end = max((child.span.end for child in children), default=name.end)
    whole = Span(name.source, start if start >= 0 else name.start, max(end, name.end))
    return [Symbol(elaborated.spec.name, "model", f"{elaborated.spec.num_layers} layers", whole, name, tuple(children))]


def _of_statements(view: View, stack: Stack) -> list[Symbol]:
    found = []
    for statement in stack.statements:
        spans, spec = statement.spans, statement.spec
        if not view.has(spans.whole):
            continue
        name, detail = spans.head.text, ""
        kind: SymbolKind = "layers"
        match spec:
            case LayersStatement(mixer=mixer, source=source):
                detail = mixer if source is None else f"{mixer} to {source}"
            case CacheStatement():
                kind, detail = "cache", "projection"
            case IterateStatement(forward=forward, backward=backward):
                kind, name = "iterate", f"iterate layers {spans.items[0].text}"
                detail = f"{forward} forward, {backward} backward"
            case PrefillExitStatement(after=after):
                kind, name, detail = "exit", "prefill exit", f"after {after}"
        found.append(Symbol(name, kind, detail, spans.whole, spans.head))
    return found
