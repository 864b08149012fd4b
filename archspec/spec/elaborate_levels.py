"""Syntax tree -> spec with two levels. Each level is read as a stack of its own, with the model's header behind it.

Contract: that of `elaborate`; a level that is missing or incomplete is reported, and a stand-in takes its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from archspec.diagnostics import Diagnostic, Edit
from archspec.source import Span
from archspec.spec import errors, level_errors, model
from archspec.spec.elaborate import HEAD_KEYS, HEADER, Elaborated, Elaborator, embedding, head
from archspec.spec.levels import BlockLevel, LevelsSpec, Lookup, Take, TokenLevel, block_view, token_view
from archspec.spec.spans import SpecSpans
from archspec.syntax import tree

_SETTINGS_OF = {
    "blocks": {"layers": "layers 6", "width": "width 768", "embed_lookup": "embed lookup 192 concat"},
    "tokens": {"layers": "layers 6", "width": "width 768"},
}
_PLACES = {"blocks": "in the block level", "tokens": "in the token level"}
_ONE_STACK = ("positions", "embed_norm")
_WITHOUT_LEVELS = "models without levels"
_STATEMENT = {"blocks": "`blocks of ... tokens { }`", "tokens": "`tokens in block { }`"}


@dataclass(frozen=True)
class LevelElaborated(Elaborated):
    """One level as a spec of its own, and its statements that a one-level spec does not have."""

    level: tree.Level
    door: tree.Emit | tree.Take | None


@dataclass(frozen=True)
class LevelsElaborated(Elaborated):
    """A spec with levels; `spans` has the model's header only. A level that is not in the text is None."""

    spec: LevelsSpec
    blocks: LevelElaborated | None = None
    tokens: LevelElaborated | None = None

    @property
    def levels(self) -> tuple[LevelElaborated, ...]:
        return tuple(level for level in (self.blocks, self.tokens) if level is not None)


def has_levels(parsed: tree.Model) -> bool:
    """Whether this is a model with `blocks of ... { }` or `tokens in block { }`."""
    return any(isinstance(statement, tree.Level) for statement in parsed.statements)


def elaborate_levels(parsed: tree.Model) -> tuple[LevelsElaborated, list[Diagnostic]]:
    """Give every word of a tree with levels its meaning."""
    header = _Header(parsed)
    values, spans = header.read()
    header.drop(values, spans, "layers", belongs="each level: write the total into it")
    header.drop(values, spans, "tied", belongs=_STATEMENT["tokens"])
    header.drop(values, spans, *_ONE_STACK, belongs=_WITHOUT_LEVELS)
    readers: dict[str, _Level] = {}
    for level in (part for part in parsed.statements if isinstance(part, tree.Level)):
        if level.kind in readers:
            first = readers[level.kind].level.head_span
            header.found.append(errors.StatedTwice(span=level.head_span, setting=level.head_span.text, first=first))
        else:
            readers[level.kind] = _Level(parsed, level, spans, readers)
    for reader in readers.values():
        reader.read_all()
    spec = _spec(parsed, values, readers)
    found = [*header.found, *(problem for reader in readers.values() for problem in reader.found)]
    found += _missing_level(parsed, readers)
    outer = SpecSpans(parsed.name.span, spans, ())
    doubted = header.doubted().get(HEADER, frozenset())
    views = {"blocks": block_view(spec), "tokens": token_view(spec)}
    levels = {kind: reader.elaborated(views[kind], outer, doubted) for kind, reader in readers.items()}
    unsure = {HEADER: doubted}
    return LevelsElaborated(spec, outer, parsed.lost, unsure, levels.get("blocks"), levels.get("tokens")), found


def _spec(parsed: tree.Model, values: dict[str, Any], readers: Mapping[str, "_Level"]) -> LevelsSpec:
    """The spec; what is missing in it was reported."""
    width, scale = values.pop("width", 1), values.pop("embed_scale", 1.0)
    vocab_size, ending = values.pop("vocab", 1), head(values)
    blocks, tokens = readers.get("blocks"), readers.get("tokens")
    emit = _door(blocks) or _door(tokens) or "context"
    return LevelsSpec(
        name=str(parsed.name.value),
        vocab_size=vocab_size,
        **ending,
        defaults=model.Settings(**values),
        blocks=_block_level(blocks, width, scale, emit),
        tokens=_token_level(tokens, width, scale, emit),
    )


def _door(reader: "_Level | None") -> str | None:
    return None if reader is None or reader.door is None else str(reader.door.name.value)


def _block_level(reader: "_Level | None", width: int, scale: Any, emit: str) -> BlockLevel:
    values = dict(reader.values) if reader is not None else {}
    hidden_size = values.pop("width", width)
    return BlockLevel(
        length=reader.length if reader is not None else 1,
        num_layers=values.pop("layers", 1),
        hidden_size=hidden_size,
        lookup=values.pop("embed_lookup", Lookup(size=hidden_size, merge="sum")),
        emit=emit,
        embed_scale=values.pop("embed_scale", scale),
        defaults=model.Settings(**values),
        statements=tuple(reader.statements) if reader is not None else (),
    )


def _token_level(reader: "_Level | None", width: int, scale: Any, emit: str) -> TokenLevel:
    values = {"embed_scale": scale, **(reader.values if reader is not None else {})}
    token_embedding = embedding(values)
    return TokenLevel(
        num_layers=values.pop("layers", 1),
        hidden_size=values.pop("width", width),
        take=_take(reader.door if reader is not None else None, emit),
        embedding=token_embedding,
        defaults=model.Settings(**values),
        statements=tuple(reader.statements) if reader is not None else (),
    )


def _take(door: tree.Emit | tree.Take | None, emit: str) -> Take:
    if not isinstance(door, tree.Take):
        return Take(kind="prefix", door=emit, length=1)
    length = None if door.length is None or door.kind == "summation" else max(int(door.length.value), 1)
    return Take(kind=door.kind, door=str(door.name.value), length=length or (1 if door.kind == "prefix" else None))


def _missing_level(parsed: tree.Model, readers: Mapping[str, "_Level"]) -> list[Diagnostic]:
    if sum(isinstance(part, tree.Level) for part in parsed.statements) > len(readers):
        return []  # one is stated twice, in the place of the other
    inside = any(isinstance(part, tree.Level) for reader in readers.values() for part in reader.level.statements)
    if len(readers) == 2 or inside or not parsed.lost.isdisjoint(("level", "any")):
        return []
    (reader,) = readers.values()
    absent = "tokens in block" if reader.level.kind == "blocks" else "blocks of ... tokens"
    return [level_errors.LevelMissing(span=reader.level.head_span, absent=absent)]


class _Header(Elaborator):
    """The model's own statements: settings for both levels, and nothing else."""

    needed: Mapping[str, str] = {"vocab": "vocab 50304"}
    place = "outside of the levels"

    def _statement(self, statement: tree.Statement) -> None:
        match statement:
            case tree.Level():
                pass
            case tree.Emit(span=span):
                self._outside(span, _STATEMENT["blocks"])
            case tree.Take(span=span):
                self._outside(span, _STATEMENT["tokens"])
            case tree.Layers(list_span=span) | tree.Cache(head_span=span):
                self._outside(span, *_STATEMENT.values())
            case tree.Iterate(span=span) | tree.PrefillExit(span=span):
                self._outside(span, *_STATEMENT.values())


class _Level(Elaborator):
    """The statements of one level, read as those of a model. `readers` are the levels of the model by kind."""

    def __init__(
        self, whole: tree.Model, level: tree.Level, outer: Mapping[str, Span], readers: Mapping[str, "_Level"]
    ) -> None:
        name = tree.Atom(level.kind, level.head_span)
        super().__init__(replace(whole, name=name, statements=level.statements))
        self.level, self.readers = level, readers
        self.place = _PLACES[level.kind]
        # A width in the model's header counts here as well.
        self.needed = {key: shown for key, shown in _SETTINGS_OF[level.kind].items() if key not in outer}
        self.values: dict[str, Any] = {}
        self.own_spans: dict[str, Span] = {}
        self.door: tree.Emit | tree.Take | None = None
        self.length = 1

    def read_all(self) -> None:
        """Read the level. Effects: fills `values`, `own_spans`, `door`, `length` and `found`."""
        self.values, self.own_spans = self.read()
        self._block_length()
        model_wide = "the model: write it before the levels"
        self.drop(self.values, self.own_spans, "vocab", *HEAD_KEYS, belongs=model_wide)
        self.drop(self.values, self.own_spans, *_ONE_STACK, belongs=_WITHOUT_LEVELS)
        if self.level.kind == "blocks":
            self.drop(self.values, self.own_spans, "tied", belongs=_STATEMENT["tokens"])
        if "layers" not in self.values:
            self.values["layers"] = self._highest_layer()
        if self.door is None and self.parsed.lost.isdisjoint(("level", "any")):
            self.found.append(self._no_door())

    def drop(self, header: dict[str, Any], spans: dict[str, Span], *keys: str, belongs: str) -> None:
        if self.level.kind != "blocks" or keys != ("embed_lookup",):
            super().drop(header, spans, *keys, belongs=belongs)

    def _block_length(self) -> None:
        atom = self.level.length
        if atom is None:
            if self.level.kind == "blocks":  # composition has reported what became of it
                self._doubt("length", HEADER)
            return
        if isinstance(atom.value, int) and atom.value >= 1:
            self.length = atom.value
        else:
            rule = "must be at least 1"
            self.found.append(errors.BadValue(span=atom.span, setting="blocks of ... tokens", rule=rule))
            self._doubt("length", HEADER)

    def _statement(self, statement: tree.Statement) -> None:
        match statement:
            case tree.Level(head_span=span):
                opened = self.level.head_span
                self.found.append(
                    level_errors.OutsideItsLevel(span=span, place=self.place, levels=("the model",), opened=opened)
                )
            case tree.Emit(span=span) if self.level.kind == "tokens":
                self._outside(span, _STATEMENT["blocks"])
            case tree.Take(span=span) if self.level.kind == "blocks":
                self._outside(span, _STATEMENT["tokens"])
            case tree.Emit() | tree.Take():
                self._door(statement)
            case _:
                super()._statement(statement)

    def _door(self, statement: tree.Emit | tree.Take) -> None:
        if self.door is not None:
            setting = statement.kind if isinstance(statement, tree.Take) else "emit"
            self.found.append(errors.StatedTwice(span=statement.span, setting=setting, first=self.door.span))
            return
        self.door = statement
        length = statement.length if isinstance(statement, tree.Take) and statement.kind == "prefix" else None
        if length is not None and length.value == 0:
            self.found.append(errors.BadValue(span=length.span, setting="prefix", rule="must be at least 1"))

    def _other_level(self, reference: tree.Reference) -> None:
        named, cache = str(reference.level.value) if reference.level else "", str(_bare(reference))
        if named == self.level.kind:
            self.found.append(level_errors.LevelNamed(span=reference.span, level=named, cache=cache, has_levels=True))
            return
        kind = level_errors.ReadsBlockCache if named == "blocks" else level_errors.ReadsTokenCache
        other = self.readers.get(named)
        self.found.append(
            kind(
                span=reference.span,
                cache=cache,
                level_span=None if other is None else other.level.head_span,
                door=_door(self.readers.get("blocks")),
            )
        )

    def _no_door(self) -> Diagnostic:
        other = self.readers.get("tokens" if self.level.kind == "blocks" else "blocks")
        name = _door(other) or "context"
        line = f"emit {name}" if self.level.kind == "blocks" else f"prefix 2 from blocks.{name}"
        place = None if other is None or other.door is None else other.door.span
        return level_errors.NoDoor(
            span=self.level.head_span,
            level=self.level.kind,
            line=line,
            insertion=_before_end(self.level.span, line),
            other=place,
        )

    def elaborated(self, view: model.ModelSpec, outer: SpecSpans, doubted: frozenset[str]) -> LevelElaborated:
        """The level as a spec of its own; the model's header counts where the level says nothing."""
        inherited = {key for key in doubted if key not in self.own_spans}
        unsure = self.doubted()
        unsure[HEADER] = unsure.get(HEADER, frozenset()) | inherited
        spans = SpecSpans(self.level.head_span, {**outer.settings, **self.own_spans}, tuple(self.spans))
        return LevelElaborated(view, spans, self.parsed.lost, unsure, self.level, self.door)


def _bare(reference: tree.Reference) -> model.CacheRef:
    return model.CacheRef(layer=reference.layer, name=reference.name)


def _before_end(level: Span, line: str) -> Edit | None:
    """A new last line of a level, if its `}` has a line to itself."""
    text = level.source.text
    start = text.rfind("\n", 0, level.end) + 1
    indent = text[start : level.end - 1]
    if indent.strip() or text[level.end - 1] != "}":
        return None
    return Edit(Span(level.source, start, start), f"{indent}  {line}\n")
