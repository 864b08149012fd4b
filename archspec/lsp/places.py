"""What stands at an offset of an analysed text: a statement, a cache that is named, a setting, a word.

Places that lie in another file (a definition that is used from there) are passed over.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from archspec.driver import Analysis
from archspec.files import Reader, read_source
from archspec.graph.layer_graph import LayerGraph
from archspec.graph.lower import References, lower, place
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import Plan
from archspec.source import Span
from archspec.spec.elaborate import Elaborated
from archspec.spec.elaborate_levels import LevelElaborated, LevelsElaborated
from archspec.spec.model import CacheRef, CacheStatement, LayersStatement, PrefillExitStatement
from archspec.spec.spans import StatementSpans

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*")


@dataclass(frozen=True)
class Stack:
    """The layers of a model without levels, or those of one level."""

    elaborated: Elaborated
    graph: LayerGraph
    level: str = ""
    """`blocks`, `tokens`, or nothing."""

    @cached_property
    def statements(self) -> tuple["Statement", ...]:
        return tuple(Statement(self, idx) for idx in range(len(self.elaborated.spec.statements)))

    @cached_property
    def numbers(self) -> Mapping[int, list[int]]:
        """Statement -> the layers that it declares, ascending."""
        found: dict[int, list[int]] = {}
        for number, layer in self.graph.layers.items():
            found.setdefault(layer.statement, []).append(number)
        return found

    @cached_property
    def written(self) -> Mapping[int, list[str]]:
        """Statement -> the caches that it makes: a projection, or its layers' own."""
        found: dict[int, list[str]] = {}
        for key, cache in self.graph.caches.items():
            found.setdefault(cache.statement, []).append(key)
        return found

    def key_of(self, ref: CacheRef) -> str | None:
        """The cache that a reference means wherever it stands."""
        return References(self.elaborated.spec, self.graph.caches).cache(ref)


@dataclass(frozen=True)
class Statement:
    """One statement of a stack."""

    stack: Stack
    idx: int

    @property
    def spec(self) -> Any:
        return self.stack.elaborated.spec.statements[self.idx]

    @property
    def spans(self) -> StatementSpans:
        return self.stack.elaborated.spans.statements[self.idx]

    @property
    def numbers(self) -> list[int]:
        """The layers that the statement declares, ascending."""
        return self.stack.numbers.get(self.idx, [])

    @property
    def written(self) -> list[str]:
        """Keys of the caches that the statement makes."""
        return self.stack.written.get(self.idx, [])

    @property
    def read(self) -> list[str]:
        """Keys of the caches that the statement reads by name, or names in an assertion."""
        sources = self.stack.graph.sources
        match self.spec:
            case LayersStatement(source=CacheRef()):
                return list(dict.fromkeys(sources[number] for number in self.numbers if number in sources))
            case PrefillExitStatement(after=after):
                key = self.stack.key_of(after)
                return [] if key is None else [key]
        return []


@dataclass(frozen=True)
class CachePlace:
    """A cache that the text names, to read it or to make it. `keys` are several for `cache@below`."""

    span: Span
    stack: Stack
    keys: tuple[str, ...]
    number: int | None
    """The layer after which the cache is taken, where the text says that; there need be no such cache."""


@dataclass(frozen=True)
class View:
    """An analysed text, prepared for questions about it."""

    analysis: Analysis
    read: Reader = read_source
    """Where the files come from that it uses."""

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """The stacks of layers, as far as they could be made out."""
        elaborated, graph = self.analysis.elaborated, self.analysis.graph
        if isinstance(elaborated, LevelsElaborated):
            return tuple(Stack(level, lower(level.spec), level.level.kind) for level in elaborated.levels)
        return () if elaborated is None or not isinstance(graph, LayerGraph) else (Stack(elaborated, graph),)

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """All statements that stand in the text."""
        return tuple(each for stack in self.stacks for each in stack.statements if self.has(each.spans.whole))

    @cached_property
    def plan(self) -> AnyPlan | None:
        """The plan of a text without errors."""
        return self.analysis.plan() if self.analysis.ok and self.analysis.graph is not None else None

    def plan_of(self, stack: Stack) -> Plan | None:
        """The plan of one stack."""
        if isinstance(self.plan, LevelsPlan):
            return dict(self.plan.levels()).get(stack.level)
        return self.plan

    @cached_property
    def doors(self) -> Mapping[str, Span]:
        """Level -> its statement about the context."""
        levels = [stack.elaborated for stack in self.stacks]
        return {
            level.level.kind: level.door.span
            for level in levels
            if isinstance(level, LevelElaborated) and level.door is not None and self.has(level.door.span)
        }

    @property
    def context(self) -> str:
        """The name of the block level's output, as the token level writes it."""
        door = self.doors.get("blocks")
        return f"blocks.{door.text.split()[-1] if door is not None else 'context'}"

    def has(self, span: Span) -> bool:
        """Whether a place lies in the text itself."""
        return span.source.name == self.analysis.source.name

    def covers(self, span: Span | None, offset: int) -> bool:
        """Whether a place of the text covers an offset; its end counts, since cursors stand behind words."""
        return span is not None and self.has(span) and span.start <= offset <= span.end

    def statement_at(self, offset: int) -> Statement | None:
        """The statement at an offset."""
        return next((each for each in self.statements if self.covers(each.spans.whole, offset)), None)

    def cache_at(self, offset: int) -> CachePlace | None:
        """The cache that is named at an offset: `cache@12`, `cache main`, or the head of `cache main@12: ...`."""
        statement = self.statement_at(offset)
        if statement is None:
            return None
        spans, spec, stack = statement.spans, statement.spec, statement.stack
        if spans.source is not None and self.covers(spans.source, offset):
            ref = spec.source if isinstance(spec, LayersStatement) else spec.after
            number = None
            if ref is not None and ref.name is None and ref.layer != "below":
                number = place(stack.elaborated.spec, ref.layer)
            return CachePlace(spans.source, stack, tuple(statement.read), number)
        if isinstance(spec, CacheStatement) and self.covers(spans.head, offset):
            number = place(stack.elaborated.spec, spec.layer)
            return CachePlace(spans.head, stack, tuple(statement.written), number)
        return None

    def layers_at(self, offset: int) -> Statement | None:
        """The statement whose `layers 13-24` is at an offset."""
        statement = self.statement_at(offset)
        is_layers = statement is not None and isinstance(statement.spec, LayersStatement)
        return statement if is_layers and statement and self.covers(statement.spans.head, offset) else None

    def setting_at(self, offset: int) -> tuple[Span, str] | None:
        """The setting at an offset, in a statement or in a header, and its key."""
        elaborated = self.analysis.elaborated
        places = [stack.elaborated.spans.settings for stack in self.stacks]
        places += [] if elaborated is None else [elaborated.spans.settings]
        statement = self.statement_at(offset)
        if statement is not None and isinstance(statement.spec, LayersStatement | CacheStatement):
            places.insert(0, statement.spans.settings)
        found = ((span, key) for settings in places for key, span in settings.items() if self.covers(span, offset))
        return next(found, None)

    def is_door(self, offset: int) -> bool:
        """Whether the offset is in `emit context` or in `prefix 2 from blocks.context`."""
        return any(self.covers(span, offset) for span in self.doors.values())

    def word_at(self, offset: int) -> Span | None:
        """The word at an offset, outside of comments."""
        source = self.analysis.source
        start = source.text.rfind("\n", 0, offset) + 1
        end = source.text.find("\n", offset)
        line = source.text[start : end if end >= 0 else len(source.text)]
        comment = line.find("#")
        for word in _WORD.finditer(line, 0, comment if comment >= 0 else len(line)):
            if start + word.start() <= offset <= start + word.end():
                return Span(source, start + word.start(), start + word.end())
        return None
