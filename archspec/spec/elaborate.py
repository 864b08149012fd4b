"""Syntax tree -> spec: words are looked up, clauses become settings, every part keeps its span.

Contract: `elaborate` reports every wrong word and value and goes on with the most likely meaning, so that later checks
can run over the rest; what is a guess is named in `Elaborated.unsure`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from archspec.diagnostics import Diagnostic
from archspec.source import Span
from archspec.spec import errors, level_errors, model
from archspec.spec.clauses import setting_of
from archspec.spec.spans import SpecSpans, StatementSpans
from archspec.syntax import tree
from archspec.syntax.errors import NotYet
from archspec.syntax.words import NOT_YET, meant

MIXERS: tuple[str, ...] = get_args(model.Mixer)
SETTING_KEYS: tuple[str, ...] = tuple(model.Settings.model_fields)
MAX_LAYERS = 100_000
HEAD_KEYS = ("final_norm", "head_bias", "logit_scale", "final_softcap")
"""Header settings about what follows the last layer."""
HEADER = -1
"""Stands for the header where statements are given by index."""

_LAYER = ("placement", "residual_scale", "layer_scalar")
"""What any layer takes, whatever its mixer."""
_TAKES = {
    "attend": SETTING_KEYS,
    "cross-attend": SETTING_KEYS,
    **dict.fromkeys(model.DECAYS, ("heads", "rope", "norm", "ffn", "bias", "residual", *_LAYER)),
    "ffn-only": ("norm", "ffn", "bias", *_LAYER),
    "cache": ("kv_heads", "window", "rope", "norm", "qk_norm", "bias", "v_norm", "values_from_keys"),
}
_DISPLAYED = {
    "qk_norm": "qk-norm",
    "tied": "tied embeddings",
    "head_bias": "head-bias",
    "layer_scalar": "layer-scalar",
    "v_norm": "v-norm",
    "values_from_keys": "values-from-keys",
    "sink_logits": "sink-logits",
    "output_gate": "output-gate",
}
_HEADER_EXAMPLES = {"layers": "layers 24", "width": "width 2048", "vocab": "vocab 32000"}


def display_key(key: str) -> str:
    """The words of a setting: `kv_heads` -> `kv heads`."""
    return _DISPLAYED.get(key, key.replace("_", " "))


def settings_of(kind: str) -> tuple[str, ...]:
    """Keys of the settings that layers with a mixer take, or a `cache` statement; all for a word that is neither."""
    return _TAKES.get(kind, SETTING_KEYS)


@dataclass(frozen=True)
class Elaborated:
    """A spec with its places, and what in it is not what the writer said but a stand-in."""

    spec: model.ModelSpec
    spans: SpecSpans
    lost: frozenset[str]
    """Kinds of statements of which one could not be read; nothing can be said about what is absent."""
    unsure: Mapping[int, frozenset[str]]
    """Statement or HEADER -> settings whose value was reported, `mixer`, `ranges`; `*`: any that it does not make."""

    def misses(self, *kinds: str) -> bool:
        """Whether a statement of one of these kinds is missing here."""
        return not self.lost.isdisjoint((*kinds, "any"))

    def doubts(self, statement: int, key: str) -> bool:
        """Whether something of a statement was reported and is a guess here."""
        return key in self.unsure.get(statement, ())

    def sure(self, statement: int, key: str) -> bool:
        """Whether what holds for a statement's setting is what was written, in it or in the header."""
        doubts = self.unsure.get(statement, frozenset())
        places = self.spans.settings if statement == HEADER else self.spans.statements[statement].settings
        if key in doubts:
            return False
        if key in places:
            return True
        return "*" not in doubts and (statement == HEADER or self.sure(HEADER, key))


def elaborate(parsed: tree.Model) -> tuple[Elaborated, list[Diagnostic]]:
    """Give every word of the tree its meaning."""
    return Elaborator(parsed).run()


def embedding(values: dict[str, Any]) -> model.Embedding:
    """Effects: takes what belongs to the embedding out of a header's values."""
    return model.Embedding(
        scale=values.pop("embed_scale", 1.0),
        tied=values.pop("tied", False),
        positions=values.pop("positions", None),
        norm=values.pop("embed_norm", None),
    )


def head(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of a spec about what follows the last layer. Effects: takes them out of a header's values."""
    return {key: values.pop(key) for key in HEAD_KEYS if key in values}


class Elaborator:
    """Reads one stack of layers."""

    needed: Mapping[str, str] = _HEADER_EXAMPLES
    """Settings without which there is no header, with an example of each."""
    place = "in a model without levels"

    def __init__(self, parsed: tree.Model) -> None:
        self.parsed = parsed
        self.found: list[Diagnostic] = []
        self.statements: list[model.LayersStatement | model.CacheStatement | model.PrefillExitStatement] = []
        self.spans: list[StatementSpans] = []
        self.unsure: dict[int, set[str]] = {}

    def run(self) -> tuple[Elaborated, list[Diagnostic]]:
        header, header_spans = self.read()
        spec = model.ModelSpec(
            name=str(self.parsed.name.value),
            num_layers=header.pop("layers", 0) or self._highest_layer(),
            hidden_size=header.pop("width", 1),
            vocab_size=header.pop("vocab", 1),
            embedding=embedding(header),
            **head(header),
            defaults=model.Settings(**header),
            statements=tuple(self.statements),
        )
        spans = SpecSpans(self.parsed.name.span, header_spans, tuple(self.spans))
        return Elaborated(spec, spans, self.parsed.lost, self.doubted()), self.found

    def read(self) -> tuple[dict[str, Any], dict[str, Span]]:
        """Read every statement; the header's settings and their places."""
        header, header_spans = self._header()
        for statement in self.parsed.statements:
            if not isinstance(statement, tree.Header):
                if isinstance(statement, tree.Layers | tree.Cache):
                    for key in (*statement.unknown, *(("*",) if statement.damaged else ())):
                        self._doubt(key)
                self._statement(statement)
        self.drop(header, header_spans, "embed_lookup", belongs="`blocks of ... tokens`")
        return header, header_spans

    def doubted(self) -> dict[int, frozenset[str]]:
        return {idx: frozenset(keys) for idx, keys in self.unsure.items()}

    def drop(self, header: dict[str, Any], spans: dict[str, Span], *keys: str, belongs: str) -> None:
        """Report header settings that have no meaning here."""
        for key in keys:
            header.pop(key, None)
            if key in spans:
                setting, span = display_key(key), spans.pop(key)
                self.found.append(
                    level_errors.SettingOfAnotherLevel(span=span, setting=setting, place=self.place, belongs=belongs)
                )

    def _doubt(self, key: str, statement: int | None = None) -> None:
        """Note that a setting of a statement, of the next one if none is given, is a stand-in."""
        self.unsure.setdefault(len(self.statements) if statement is None else statement, set()).add(key)

    def _statement(self, statement: tree.Statement) -> None:
        match statement:
            case tree.Layers():
                self._layers(statement)
            case tree.Cache():
                settings, spans = self._own_settings(statement.clauses, "cache")
                places = StatementSpans(statement.span, statement.head_span, (), None, None, spans)
                self._add(model.CacheStatement(layer=statement.layer, name=statement.name, settings=settings), places)
            case tree.Iterate():
                self._iterate(statement)
            case tree.Level(head_span=span) | tree.Emit(span=span):
                self._outside(span, "`blocks of ... tokens { }`")
            case tree.Take(span=span):
                self._outside(span, "`tokens in block { }`")
            case tree.PrefillExit(after=after, span=span):
                if after.name == "":
                    return
                if after.level is not None:
                    self._other_level(after)
                    return
                if after.layer == "below":
                    rule = "is another cache for each reader: name one"
                    self.found.append(errors.BadValue(span=after.span, setting="cache@below", rule=rule))
                    return
                places = StatementSpans(span, span, (), None, after.span, {})
                self._add(model.PrefillExitStatement(after=_ref(after)), places)

    def _outside(self, span: Span, *belongs: str) -> None:
        self.found.append(level_errors.OutsideItsLevel(span=span, place=self.place, levels=belongs))

    def _other_level(self, reference: tree.Reference) -> None:
        """A reference with a level before it: no level has a choice."""
        level, cache = str(reference.level.value) if reference.level else "", _text(reference)
        self.found.append(level_errors.LevelNamed(span=reference.span, level=level, cache=cache, has_levels=False))

    def _iterate(self, statement: tree.Iterate) -> None:
        part = statement.layers
        if part.first is None or part.last is None or isinstance(part.first, str):
            return  # the grammar lets neither through
        self._add(
            model.IterateStatement(
                first=part.first,
                last=part.last,
                forward=int(statement.forward.value),
                backward=int(statement.backward.value),
            ),
            StatementSpans(
                statement.span,
                statement.span,
                (part.span,),
                None,
                None,
                {"forward": statement.forward.span, "backward": statement.backward.span},
            ),
        )

    def _add(self, statement: Any, spans: StatementSpans) -> None:
        self.statements.append(statement)
        self.spans.append(spans)

    def _header(self) -> tuple[dict[str, Any], dict[str, Span]]:
        headers = [part for part in self.parsed.statements if isinstance(part, tree.Header)]
        values, spans = self._settings((clause for part in headers for clause in part.settings), HEADER)
        damaged = not self.parsed.lost.isdisjoint(("header", "any")) or any(part.damaged for part in headers)
        if damaged:
            self._doubt("*", HEADER)
        for key in (key for part in headers for key in part.unknown):
            self._doubt(key, HEADER)
        unknown = self.unsure.get(HEADER, set())
        missing = tuple(key for key in self.needed if key not in spans and key not in unknown)
        for key in missing:
            self._doubt(key, HEADER)
        if missing and not damaged:
            example = ", ".join(self.needed[key] for key in missing)
            shown = tuple(map(display_key, missing))
            self.found.append(errors.MissingSetting(span=self.parsed.name.span, settings=shown, example=example))
        return values, spans

    def _settings(self, clauses: Iterable[tree.Clause], owner: int) -> tuple[dict[str, Any], dict[str, Span]]:
        values: dict[str, Any] = {}
        spans: dict[str, Span] = {}
        for clause in clauses:
            key, value, problem = setting_of(clause)
            if problem is not None:
                self.found.append(problem)
                self._doubt("*" if key is None else key, owner)
            if key is None:
                continue
            if key in spans:
                twice = errors.StatedTwice(span=clause.span, setting=display_key(key), first=spans[key])
                self.found.append(twice)
                self._doubt(key, owner)
                continue
            spans[key] = clause.span
            if value is not None:
                values[key] = value
        self._join_sinks(values, spans, owner)
        return values, spans

    def _join_sinks(self, values: dict[str, Any], spans: dict[str, Span], owner: int) -> None:
        """`window W, sinks S` are two clauses and one setting."""
        if "sinks" not in spans:
            return
        sinks, span = values.pop("sinks", None), spans.pop("sinks")
        window = values.get("window")
        if window is None or window.size is None:
            if "window" not in spans or window is not None:
                rule = "stand beside the window that they are kept with: `window 1020, sinks 4`"
                self.found.append(errors.BadValue(span=span, setting="sinks", rule=rule))
            self._doubt("window", owner)
        elif sinks is not None:
            values["window"] = model.Window(size=window.size, sinks=sinks.sinks)
            spans["window"] = spans["window"].to(span)

    def _own_settings(self, clauses: Iterable[tree.Clause], kind: str) -> tuple[model.Settings, dict[str, Span]]:
        """Settings of one statement; those that its kind does not take are reported and dropped."""
        values, spans = self._settings(clauses, len(self.statements))
        takes = _TAKES[kind]
        for key in [key for key in spans if key not in takes]:
            owner = "a cache" if kind == "cache" else f"`{kind}` layers"
            allowed = tuple(display_key(name) for name in takes)
            instead = "kv heads" if key == "heads" and kind == "cache" else None
            self.found.append(
                errors.DoesNotBelong(
                    span=spans[key], setting=display_key(key), owner=owner, allowed=allowed, instead=instead
                )
            )
            if instead is not None:
                self._doubt("kv_heads")
            values.pop(key, None)
            spans.pop(key)
        return model.Settings(**values), spans

    def _layers(self, statement: tree.Layers) -> None:
        mixer, source = self._mixer(statement.mixer)
        known = mixer if str(statement.mixer.word.value) == mixer else "attend"  # what a guess takes is not judged
        settings, spans = self._own_settings(statement.clauses, known)
        ranges = self._ranges(statement)
        self._add(
            model.LayersStatement(
                ranges=ranges,
                mixer=mixer,  # type: ignore[arg-type]
                source=None if source is None else _ref(source),
                settings=settings,
            ),
            StatementSpans(
                whole=statement.span,
                head=statement.list_span,
                items=tuple(item.span for item in statement.items),
                mixer=statement.mixer.word.span,
                source=None if source is None else source.span,
                settings=spans,
            ),
        )

    def _mixer(self, mixer: tree.Mixer) -> tuple[str, tree.Reference | None]:
        """The mixer meant, and the cache it reads; what nothing can be made of counts as `attend`."""
        word = str(mixer.word.value)
        if mixer.source is not None and mixer.source.name == "":  # filled in where the cache could not be read
            self._guess()
            return "cross-attend", None
        guess = word if word in MIXERS else meant(word, MIXERS)
        if guess is None and word.lower() in NOT_YET:
            self.found.append(NotYet(span=mixer.word.span, word=word))
        elif guess != word and word:
            self.found.append(errors.UnknownMixer(span=mixer.word.span, word=word, known=MIXERS))
        if guess is None:
            self._guess()
            return ("attend", None) if mixer.source is None else ("cross-attend", mixer.source)
        reads = guess == "cross-attend"
        if reads and mixer.source is None and "*" in self.unsure.get(len(self.statements), ()):
            self._doubt("mixer")  # the cache may be what was dropped
        elif reads != (mixer.source is not None):
            self.found.append(errors.SourceMismatch(span=mixer.span, mixer=guess, source=_text(mixer.source)))
            if guess == "attend":
                self._guess()
                return "cross-attend", mixer.source
            if reads:
                self._doubt("mixer")
        if reads and mixer.source is not None and mixer.source.level is not None:
            self._other_level(mixer.source)
            self._doubt("mixer")
            return guess, None
        return guess, mixer.source if reads else None

    def _guess(self) -> None:
        self._doubt("mixer")
        self._doubt("*")

    def _ranges(self, statement: tree.Layers) -> tuple[model.LayerRange, ...]:
        """Ranges of a layer list, none for `rest`. Open ends are taken as the ends of the model."""
        ranges = []
        for item in statement.items:
            if item.kind == "rest":
                continue
            if item.first is None or item.last is None:
                self.found.append(errors.OpenRange(span=item.span, first=item.first, last=item.last))
                self._doubt("ranges")
            if item.step < 1:
                self.found.append(errors.BadValue(span=item.span, setting="step", rule="must be at least 1"))
                self._doubt("ranges")
            first = 1 if item.first is None else item.first
            last = "last" if item.last is None else item.last
            ranges.append(model.LayerRange(first=first, last=last, step=max(item.step, 1)))
        if len(ranges) == len(statement.items):
            return tuple(ranges)
        if not self.parsed.lost.isdisjoint(("layers", "any")):
            self._doubt("ranges")  # which layers are left depends on what was lost
        if len(statement.items) > 1:
            alone = "stands alone: it means every other layer"
            self.found.append(errors.BadValue(span=statement.list_span, setting="rest", rule=alone))
            self._doubt("ranges")
        return ()

    def _highest_layer(self) -> int:
        """A stand-in for a total that was not stated; that has been reported."""
        ends = [
            end
            for statement in self.statements
            if isinstance(statement, model.LayersStatement)
            for part in statement.ranges
            for end in (part.first, part.last)
            if isinstance(end, int)
        ]
        return max(1, min(max(ends, default=1), MAX_LAYERS))


def _ref(reference: tree.Reference) -> model.CacheRef:
    return model.CacheRef(layer=reference.layer, name=reference.name)


def _text(reference: tree.Reference | None) -> str:
    return "" if reference is None else str(_ref(reference))
