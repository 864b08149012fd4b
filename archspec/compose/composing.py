"""The order of composition: names, the chain of bases, statements without templates, numbers, and one over another."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from archspec.compose.context import Way
from archspec.compose.errors import Circular, DefinedTwice, Unused
from archspec.compose.extending import merged
from archspec.compose.file_errors import NothingToRemove, UnknownBase
from archspec.compose.filling import Filling
from archspec.compose.findings import Findings
from archspec.compose.library import Library, collect
from archspec.compose.numbers import Numbers
from archspec.compose.settings import SettingError, Settings, as_lets, check_known
from archspec.compose.templates import Templates
from archspec.diagnostics import Diagnostic
from archspec.files import Reader, read_source
from archspec.source import Source, Span
from archspec.syntax import tree
from archspec.syntax.errors import NoModel, SecondModel
from archspec.syntax.limits import BeyondLimits
from archspec.syntax.names import ReservedName
from archspec.syntax.parser import keywords
from archspec.syntax.words import MIXER_WORDS

__all__ = ["Composition", "SettingError", "compose"]

MAX_CHAIN = 50
"""Models that extend one another."""


@dataclass(frozen=True)
class Composition:
    """A plain model, or None if the file has none; and how to speak of its places."""

    model: tree.Model | None
    found: tuple[Diagnostic, ...] = ()
    composed: bool = False
    """Whether the text of the file is more than the model itself."""
    located: Callable[[Diagnostic], Diagnostic] = lambda diagnostic: diagnostic


def compose(
    source: Source,
    file: tree.File,
    settings: Settings | None = None,
    broken: bool = False,
    read: Reader = read_source,
) -> Composition:
    """Work out a file and all that it uses. `broken`: it has errors of syntax. Raises SettingError, and no other."""
    if not file.composed and not settings:
        if file.models:
            return Composition(file.models[-1])
        return Composition(None, () if broken else (NoModel(span=Span(source, 0, 0)),))
    findings = Findings()
    findings.lost |= {"any"} if broken and not file.models else set()
    library = collect(source, file, findings, read)
    return _Composing(source, file, library, settings or {}).run()


class _Composing:
    """One run over one root file."""

    def __init__(self, source: Source, file: tree.File, library: Library, settings: Settings) -> None:
        self.source, self.file, self.library = source, file, library
        self.findings = library.findings
        self.settings = as_lets(settings)
        self.templates = Templates(library.defines, self.findings)
        self.places: dict[Span, int] = {}
        self.lost: set[str] = set()
        self.levels: dict[str, Numbers] = {}

    def run(self) -> Composition:
        for word in [word for word in self.library.defines if word in MIXER_WORDS or word in keywords()]:
            define = self.library.defines.pop(word)
            self.findings.report(ReservedName(span=define.name.span, word=word, what="template"))
            self.findings.lost.add("define")
        chain = self._chain(self.file.models[-1]) if self.file.models else []
        self.numbers = Numbers(self._lets(chain), self.findings)
        self._level_numbers(chain)
        known = {*self.numbers.lets, *(name for level in self.levels.values() for name in level.lets)}
        if not self.findings.misses("let"):
            check_known(self.settings, known)
        model = self._model(chain) if chain else None
        self._check_the_rest(chain)
        way = Way(self.source, self.library, chain, self.places)
        found = (*map(way.located, self.library.found), *self.findings.found)
        return Composition(model, found, True, way.located)

    def _chain(self, model: tree.Model) -> list[tree.Model]:
        """The model, the one that it extends, and so on."""
        chain = [model]
        while (base := chain[-1].base) is not None:
            word = str(base.value)
            following = self.library.models.get(word)
            if following is None:
                if not self.findings.misses("model"):
                    known = self.findings.shown(self.library.models)
                    self.findings.report(UnknownBase(span=base.span, word=word, known=known))
                self.lost.add("any")
                break
            if any(following is part for part in chain):
                self._circular(chain, word)
                break
            if len(chain) == MAX_CHAIN:
                what = "models that extend one another"
                self.findings.report(BeyondLimits(span=base.span, what=what, limit=MAX_CHAIN))
                self.lost.add("any")
                break
            chain.append(following)
        return chain

    def _circular(self, chain: list[tree.Model], word: str) -> None:
        start = next(idx for idx, model in enumerate(chain) if model.name.value == word)
        bases = [model.base for model in chain[start:] if model.base is not None]
        shown = tuple(f"`{name}`" for name in (word, *(base.value for base in bases)))
        steps = tuple(base.span for base in bases)
        self.findings.report(Circular(span=steps[0], what="model", path=shown, steps=steps[1:]))
        self.lost.add("any")

    def _lets(self, chain: list[tree.Model]) -> dict[str, tree.Let]:
        """What each name stands for. A model that extends another one may give a number anew; no other may."""
        lets = dict(self.library.lets)
        for model in reversed(chain):
            self._add_lets(lets, model.lets, may_replace=model.base is not None)
        return {name: self.settings.get(name, let) for name, let in lets.items()}

    def _add_lets(self, lets: dict[str, tree.Let], new: Iterable[tree.Let], may_replace: bool) -> None:
        own: dict[str, tree.Let] = {}
        for let in new:
            word = str(let.name.value)
            first = own.get(word) or (None if may_replace else lets.get(word))
            if first is not None:
                place = first.name.span
                self.findings.report(DefinedTwice(span=let.name.span, what="number", word=word, first=place))
            own.setdefault(word, let)
        lets.update(own)

    def _level_numbers(self, chain: list[tree.Model]) -> None:
        """The numbers of each level: its own lets, those of the same level in a base, and those of the model."""
        lets: dict[str, dict[str, tree.Let]] = {}
        for model in reversed(chain):
            for level in _levels(model):
                own = lets.setdefault(level.kind, {})
                self._add_lets(own, level.lets, may_replace=model.base is not None)
        for kind, own in lets.items():
            for word in own.keys() & self.numbers.lets.keys():
                span, first = own[word].name.span, self.numbers.lets[word].name.span
                self.findings.report(DefinedTwice(span=span, what="number", word=word, first=first))
            own.update({name: let for name, let in self.settings.items() if name in own})
            self.levels[kind] = Numbers(own, self.findings, self.numbers)

    def _model(self, chain: list[tree.Model]) -> tree.Model:
        statements: tuple[tree.Statement, ...] = ()
        above: tree.Model | None = None
        for model in reversed(chain):
            filling = Filling(self.numbers, self.findings, self.places)
            own = tuple(self._plain(model.statements, filling))
            removals = self._removals(model.removals, filling)
            if above is None:
                self._report_removals([*removals, *(part for level in _levels(model) for part in level.removals)])
                statements = tuple(replace(part, removals=()) if isinstance(part, tree.Level) else part for part in own)
            else:
                statements = merged(statements, own, removals, str(above.name.value), self.findings)
            self.lost |= filling.lost | model.lost
            if "pieces" in self.findings.lost:
                self.lost.add("layers")
            above = model
        return tree.Model(chain[0].name, statements, chain[0].span, frozenset(self.lost))

    def _plain(self, statements: Iterable[tree.Statement], filling: Filling) -> Iterator[tree.Statement]:
        """Statements without templates and expressions."""
        for statement in statements:
            match statement:
                case tree.Level():
                    yield self._level(statement, filling)
                    continue
                case tree.Layers():
                    statement = self.templates.layers(statement)
                case tree.Header(settings=clauses, damaged=damaged):
                    settings, damaged = self.templates.settings_of(clauses, damaged)
                    statement = replace(statement, settings=settings, damaged=damaged)
                case tree.Cache(clauses=clauses, damaged=damaged):
                    settings, damaged = self.templates.settings_of(clauses, damaged)
                    statement = replace(statement, clauses=settings, damaged=damaged)
            filled = filling.statement(statement)
            if filled is not None:
                yield filled

    def _level(self, level: tree.Level, outer: Filling) -> tree.Level:
        filling = Filling(self.levels[level.kind], self.findings, self.places)
        inner = tuple(part for part in level.statements if not isinstance(part, tree.Level))
        nested = tuple(part for part in level.statements if isinstance(part, tree.Level))
        length = outer.length(level.length)
        statements = (*self._plain(inner, filling), *nested)
        removals = self._removals(level.removals, filling)
        outer.lost |= filling.lost
        return replace(level, length=length, statements=statements, removals=removals, lets=())

    def _removals(self, removals: Iterable[tree.Removal], filling: Filling) -> tuple[tree.Removal, ...]:
        """Removals with their numbers; those without one are left out."""
        found = []
        for removal in removals:
            items = filling.items(removal.items)
            cache = removal.cache and filling.reference(removal.cache)
            if items is not None and (cache is not None or removal.cache is None):
                found.append(replace(removal, items=items, cache=cache))
        return tuple(found)

    def _report_removals(self, removals: Iterable[tree.Removal]) -> None:
        for removal in removals:
            if not self.lost:
                self.findings.report(NothingToRemove(span=removal.span, what=removal.span.text, base=None))

    def _check_the_rest(self, chain: list[tree.Model]) -> None:
        """What the model does not need: definitions in vain, other models, and mistakes in them."""
        for idx, model in enumerate(self.file.models):
            if idx and not self.lost and not any(self.file.models[idx - 1] is part for part in chain):
                self._second_model(self.file.models[idx - 1], model)
        used = {name for numbers in (self.numbers, *self.levels.values()) for name in numbers.values}
        used |= {f"define {name}" for name in self.templates.used}
        for let in self.file.lets:
            self.numbers.value(tree.Name(str(let.name.value), let.name.span))
        for define in self.file.defines:
            if define.name.value in self.library.defines:
                self.templates.unfold(define.name)
        if chain and not self.findings.lost and not self.lost and not self.findings.found:
            self._report_unused(chain, used)

    def _report_unused(self, chain: list[tree.Model], used: set[str]) -> None:
        """Warn of definitions of the root file that the model came without."""
        levels = [level for model in chain for level in _levels(model)]
        lets = [*self.file.lets, *(let for model in chain for let in model.lets)]
        lets += [let for level in levels for let in level.lets]
        unused = [("`let`", let.name) for let in lets if self._is_root(let.span) and let.name.value not in used]
        unused += [("template", d.name) for d in self.file.defines if f"define {d.name.value}" not in used]
        for what, name in unused:
            self.findings.report(Unused(span=name.span, what=what, word=str(name.value)))

    def _is_root(self, span: Span) -> bool:
        return span.source is self.source

    def _second_model(self, first: tree.Model, second: tree.Model) -> None:
        end, start = first.span.end, second.span.start
        self.findings.report(
            SecondModel(
                span=Span(self.source, start, start + len("model")),
                first=Span(self.source, end - 1, end),
                names=(str(first.name.value), str(second.name.value)),
            )
        )


def _levels(model: tree.Model) -> list[tree.Level]:
    return [part for part in model.statements if isinstance(part, tree.Level)]
