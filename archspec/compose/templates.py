"""`define`: a template becomes a mixer and settings, and what stands beside it counts before it.

Contract: each template is worked out once, whatever the number of its uses; its settings have one value each, so that
templates that use one another do not grow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from archspec.compose import errors
from archspec.compose.findings import Findings
from archspec.diagnostics import suggest
from archspec.source import Span
from archspec.syntax import tree
from archspec.syntax.limits import BeyondLimits
from archspec.syntax.words import MIXER_WORDS, NEGATED_KEYS, NOT_YET, OTHER_KEYS, meant

MAX_DEPTH = 50
"""Templates that use one another in a chain."""
MAX_SETTINGS = 50_000
"""Settings that all uses of templates may unfold to."""


@dataclass(frozen=True)
class Unfolded:
    """What a template comes to. `damaged`: a part of it was reported, and is missing here."""

    mixer: tree.Mixer | None
    clauses: tuple[tree.Clause, ...]
    damaged: bool
    depth: int = 0
    """Templates below it, one in the other."""


NOTHING = Unfolded(None, (), damaged=True)


class Templates:
    """The templates of a spec."""

    def __init__(self, defines: Mapping[str, tree.Define], findings: Findings) -> None:
        self.defines = defines
        self.findings = findings
        self.used: set[str] = set()
        self.done: dict[str, Unfolded] = {}
        self.opened: dict[str, tree.Define] = {}
        self.settings = 0
        self.is_too_deep = False

    def layers(self, statement: tree.Layers) -> tree.Layers:
        """A statement without templates. A mixer about which an error was reported is the empty word."""
        mixer, below = self._mixer(statement.mixer)
        beside = self._clauses(statement.clauses, below.clauses)
        damaged = statement.damaged or below.damaged or beside.damaged
        return replace(statement, mixer=mixer, clauses=beside.clauses, damaged=damaged)

    def settings_of(self, clauses: tuple[tree.Clause, ...], damaged: bool) -> tuple[tuple[tree.Clause, ...], bool]:
        """The settings of a header or a cache without `like`, and whether one of them is missing."""
        unfolded = self._clauses(clauses, ())
        return unfolded.clauses, damaged or unfolded.damaged

    def unfold(self, name: tree.Atom) -> Unfolded:
        """What a template that is there comes to."""
        word = str(name.value)
        self.used.add(word)
        if word in self.opened:
            self._circular(word)
            return NOTHING
        if word not in self.done:
            self.opened[word] = self.defines[word]
            unfolded = self._unfolded(name) if len(self.opened) <= MAX_DEPTH else self._too_deep(name)
            self.done[word] = unfolded if unfolded.depth <= MAX_DEPTH else self._too_deep(name)
            del self.opened[word]
        return self.done[word]

    def _unfolded(self, name: tree.Atom) -> Unfolded:
        define = self.defines[str(name.value)]
        mixer, below = None, Unfolded(None, (), define.damaged)
        if define.mixer is not None:
            mixer, below = self._mixer(define.mixer)
        beside = self._clauses(define.clauses, below.clauses)
        damaged = define.damaged or below.damaged or beside.damaged
        return Unfolded(mixer, beside.clauses, damaged, max(below.depth, beside.depth) + 1)

    def _too_deep(self, name: tree.Atom) -> Unfolded:
        if not self.is_too_deep:
            what = "templates that use one another in a chain"
            self.findings.report(BeyondLimits(span=name.span, what=what, limit=MAX_DEPTH))
        self.is_too_deep = True
        return NOTHING

    def _circular(self, word: str) -> None:
        path = list(self.opened)[list(self.opened).index(word) :]
        steps = tuple(self.opened[step].name.span for step in path)
        shown = tuple(f"`{step}`" for step in (*path, word))
        self.findings.report(errors.Circular(span=steps[0], what="template", path=shown, steps=steps[1:]))

    def _mixer(self, mixer: tree.Mixer) -> tuple[tree.Mixer, Unfolded]:
        """The mixer itself and the settings below it, if it is a template. A cache that is named beside it counts."""
        word = str(mixer.word.value)
        if word not in self.defines:
            return mixer if self._is_known(mixer.word) else _no_mixer(mixer), Unfolded(None, (), damaged=False)
        unfolded = self._through(self.unfold(mixer.word), mixer.word.span)
        inner = unfolded.mixer
        if inner is None:
            if unfolded is not NOTHING and not unfolded.damaged:
                place = self.defines[word].name.span
                self.findings.report(errors.TemplateWithoutMixer(span=mixer.word.span, word=word, template=place))
            return _no_mixer(mixer), replace(unfolded, damaged=True)
        return replace(inner, source=mixer.source or inner.source), unfolded

    def _is_known(self, word: tree.Atom) -> bool:
        """Whether a word that is no template is for others to judge; else it has been reported."""
        text = str(word.value)
        if text in MIXER_WORDS or text.lower() in NOT_YET:
            return True
        known = self.findings.shown(self.defines)
        if suggest(text, known) is None or meant(text, MIXER_WORDS) is not None:
            return not self.findings.misses("define")
        self.findings.report(errors.UnknownTemplate(span=word.span, word=text, known=known))
        return False

    def _clauses(self, own: tuple[tree.Clause, ...], below: tuple[tree.Clause, ...]) -> Unfolded:
        """Settings of a statement over those of the templates that it is like, over those of its mixer's template."""
        likes = [clause for clause in own if clause.key == "like"]
        if not likes:
            return Unfolded(None, _over(own, below), damaged=False)
        said = tuple(clause for clause in own if clause.key != "like")
        taken: dict[str, tree.Clause] = {}
        damaged, depth = False, 0
        for like in likes:
            name = like.args[0]
            unfolded = self._like(name)
            damaged, depth = damaged or unfolded.damaged, max(depth, unfolded.depth)
            for clause in self._through(unfolded, name.span).clauses:
                first = taken.setdefault(setting(clause), clause)
                if first.span != clause.span and not _covered(clause, said):
                    shown = setting(clause).replace("_", " ")
                    self.findings.report(errors.TemplatesDisagree(span=clause.span, setting=shown, first=first.span))
                    damaged = True
        return Unfolded(None, _over(said, _over(tuple(taken.values()), below)), damaged, depth)

    def _like(self, name: tree.Atom) -> Unfolded:
        word = str(name.value)
        if word in self.defines:
            return self.unfold(name)
        if not self.findings.misses("define"):
            known = self.findings.shown(self.defines)
            self.findings.report(errors.UnknownTemplate(span=name.span, word=word, known=known))
        return NOTHING

    def _through(self, unfolded: Unfolded, use: Span) -> Unfolded:
        """The same, every place in it knowing by which use it came here."""
        before, self.settings = self.settings, self.settings + len(unfolded.clauses)
        if self.settings > MAX_SETTINGS:
            if before <= MAX_SETTINGS:
                what = "settings that templates unfold to"
                self.findings.report(BeyondLimits(span=use, what=what, limit=MAX_SETTINGS))
            return NOTHING
        mixer = unfolded.mixer
        if mixer is not None:
            word = replace(mixer.word, span=_via(mixer.word.span, use))
            source = mixer.source and replace(mixer.source, span=_via(mixer.source.span, use))
            mixer = tree.Mixer(word, source, _via(mixer.span, use))
        return replace(unfolded, mixer=mixer, clauses=tuple(_clause_via(clause, use) for clause in unfolded.clauses))


def setting(clause: tree.Clause) -> str:
    """What a clause is about: `no window` is about the window."""
    if clause.key != "negation":
        return OTHER_KEYS.get(clause.key, clause.key)
    word = str(clause.args[0].value)
    return NEGATED_KEYS.get(word, word)


def _covered(clause: tree.Clause, over: Iterable[tree.Clause]) -> bool:
    """Whether other clauses take the place of one. A window brings its sinks along."""
    keys = {setting(other) for other in over}
    return setting(clause) in keys or (clause.key == "sinks" and "window" in keys)


def _over(own: tuple[tree.Clause, ...], below: tuple[tree.Clause, ...]) -> tuple[tree.Clause, ...]:
    """All settings of `own`, and those of `below` that it does not make."""
    if not below:
        return own
    return (*(clause for clause in below if not _covered(clause, own)), *own)


def _no_mixer(mixer: tree.Mixer) -> tree.Mixer:
    """What is left of a mixer that was reported: later phases say nothing about the empty word."""
    return tree.Mixer(tree.Atom("", mixer.word.span), mixer.source, mixer.span)


def _via(span: Span, use: Span) -> Span:
    """A span with one more use on the way from it to the statement."""
    return Span(span.source, span.start, span.end, use if span.via is None else _via(span.via, use))


def _clause_via(clause: tree.Clause, use: Span) -> tree.Clause:
    args = tuple(tree.Atom(arg.value, _via(arg.span, use), arg.computed) for arg in clause.args)
    parts = tuple(_clause_via(part, use) for part in clause.parts)
    return tree.Clause(clause.key, args, _via(clause.span, use), parts)
