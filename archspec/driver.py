"""The order of the phases: read, parse, compose, elaborate, lower, check, plan. No torch.

Contract: `analyse` raises for no file, and SettingError for `settings` that do not fit it; `parse_spec_text` and `plan`
raise SpecError with every finding.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from archspec.checks import run_checks, run_level_checks
from archspec.checks.context import Context
from archspec.checks.deployment import Deployment, check_deployment
from archspec.collecting import few_collections
from archspec.compose import compose
from archspec.compose.settings import Settings, check_known
from archspec.diagnostics import Diagnostic, has_errors
from archspec.files import Reader, read_source, read_stdin
from archspec.graph.layer_graph import LayerGraph, LevelsGraph
from archspec.graph.lower import lower
from archspec.levels_plan import AnyPlan
from archspec.planner import make_levels_plan, make_plan
from archspec.render import render_text
from archspec.source import Source, Span
from archspec.spec.elaborate import MAX_LAYERS, Elaborated, elaborate
from archspec.spec.elaborate_levels import LevelsElaborated, elaborate_levels, has_levels
from archspec.spec.errors import TooManyLayers
from archspec.spec.format import format_spec
from archspec.spec.level_errors import OutsideItsLevel
from archspec.spec.levels import LevelsSpec
from archspec.spec.model import ModelSpec
from archspec.spec.read_json import as_text, read_json
from archspec.syntax.errors import NoModel, UnclosedBrace
from archspec.syntax.parser import parse_file
from archspec.syntax.tree import Model


class SpecError(ValueError):
    """A spec with errors; `.diagnostics` has all of them, warnings included, sorted by place."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__("\n" + render_text(diagnostics))
        self.diagnostics = diagnostics


@dataclass(frozen=True)
class Analysis:
    """What is known of a file. `spec` and `graph` are there only if no phase before them failed."""

    source: Source
    diagnostics: tuple[Diagnostic, ...]
    elaborated: Elaborated | None = None
    graph: LayerGraph | LevelsGraph | None = None
    composed: bool = False
    """Whether other text, or numbers from outside, have gone into the spec."""

    @property
    def ok(self) -> bool:
        return not has_errors(self.diagnostics)

    @property
    def has_spec(self) -> bool:
        """Whether there is a spec without errors. A file may also hold definitions alone, for others to use."""
        return self.ok and self.elaborated is not None

    @property
    def text(self) -> str:
        """A text of the spec that needs no other file: that of the file, or the canonical one. Raises SpecError."""
        return format_spec(_spec(self)) if self.composed else self.source.text

    def plan(self) -> AnyPlan:
        """The plan of a spec without errors; raises SpecError for others."""
        if not self.ok or self.elaborated is None or self.graph is None:
            raise SpecError(self.diagnostics or (NoModel(span=Span(self.source, 0, 0)),))
        spec, graph = self.elaborated.spec, self.graph
        if isinstance(graph, LayerGraph):
            return make_plan(spec, graph)
        assert isinstance(spec, LevelsSpec)
        return make_levels_plan(spec, graph.blocks, graph.tokens)


def analyse(path: str | Path, settings: Settings | None = None) -> Analysis:
    """Read and check one file: `.arch` text, or the JSON form of a spec.

    `settings` gives the named `let`s of the file, or of those that it uses, other numbers. Raises SettingError.
    """
    source, problem = read_source(Path(path))
    if problem is not None:
        return Analysis(source, (problem,))
    if Path(path).suffix == ".json":
        check_known(settings or (), ())
        return _analyse_json(source)
    return analyse_source(source, settings)


def analyse_stdin(settings: Settings | None = None) -> Analysis:
    """Check `.arch` text from standard input."""
    source, problem = read_stdin()
    return analyse_source(source, settings) if problem is None else Analysis(source, (problem,))


def deployed(analysis: Analysis, deployment: Deployment) -> Analysis:
    """A spec without errors judged for a deployment as well; others stay as they are."""
    elaborated, graph = analysis.elaborated, analysis.graph
    if not analysis.ok or elaborated is None or graph is None:
        return analysis
    if isinstance(graph, LayerGraph):
        contexts = [Context(elaborated, graph)]
    else:
        assert isinstance(elaborated, LevelsElaborated)
        graphs = {"blocks": graph.blocks, "tokens": graph.tokens}
        contexts = [Context(level, graphs[level.level.kind]) for level in elaborated.levels]
    found = [diagnostic for context in contexts for diagnostic in check_deployment(context, deployment)]
    return replace(analysis, diagnostics=_sorted([*analysis.diagnostics, *found]))


def analyse_text(text: str, name: str = "<text>", settings: Settings | None = None) -> Analysis:
    """Check a text. It cannot `use` files, since it has no folder."""
    return analyse_source(Source(name, text), settings)


def analyse_spec(spec: ModelSpec) -> Analysis:
    """Check a spec that has no text: messages point into its canonical form."""
    return analyse_text(format_spec(spec), f"<{spec.name}>")


@few_collections()
def analyse_source(source: Source, settings: Settings | None = None, read: Reader = read_source) -> Analysis:
    """Every phase over one source, as far as they go. `read` has the files that it uses. Raises SettingError."""
    file, broken = parse_file(source)
    composition = compose(source, file, settings, bool(broken), read)
    found = [*broken, *composition.found]
    elaborated, graph = None, None
    if composition.model is not None:
        elaborated, graph = _analyse_model(composition.model, found)
    plain = set(broken)
    # What several statements inherit from the header, or from a template, is said once.
    located = [one if one in plain else composition.located(one) for one in dict.fromkeys(found)]
    return Analysis(source, _sorted(located), elaborated, graph, composition.composed)


def _analyse_model(parsed: Model, found: list[Diagnostic]) -> tuple[Elaborated | None, LayerGraph | LevelsGraph | None]:
    """The spec of a plain model, and its graph. Effects: extends `found`."""
    if has_levels(parsed):
        return _analyse_levels(parsed, found)
    elaborated, problems = elaborate(parsed)
    found += problems
    if elaborated.spec.num_layers > MAX_LAYERS:
        found.append(_too_many(elaborated))
        return None, None
    graph = lower(elaborated.spec)
    found += run_checks(Context(elaborated, graph))
    return elaborated, graph


def _analyse_levels(
    parsed: Model, found: list[Diagnostic]
) -> tuple[Elaborated | None, LayerGraph | LevelsGraph | None]:
    """The same for a model with levels: each is lowered and checked as a model of its own."""
    elaborated, problems = elaborate_levels(parsed)
    if any(isinstance(problem, OutsideItsLevel) and problem.opened is not None for problem in problems):
        found[:] = [problem for problem in found if not isinstance(problem, UnclosedBrace)]  # it follows from that
    found += problems
    too_many = [_too_many(level) for level in elaborated.levels if level.spec.num_layers > MAX_LAYERS]
    if too_many:
        found += too_many
        return None, None
    graphs = {level.level.kind: lower(level.spec) for level in elaborated.levels}
    found += run_level_checks(elaborated, [Context(level, graphs[level.level.kind]) for level in elaborated.levels])
    graph = LevelsGraph(graphs["blocks"], graphs["tokens"]) if len(graphs) == 2 else None
    return elaborated, graph


def _too_many(elaborated: Elaborated) -> Diagnostic:
    span = elaborated.spans.settings.get("layers", elaborated.spans.name)
    return TooManyLayers(span=span, total=elaborated.spec.num_layers, limit=MAX_LAYERS)


def _analyse_json(source: Source) -> Analysis:
    """Findings point into the text form, and say where in the JSON text that is."""
    spec, found = read_json(source)
    if spec is None:
        return Analysis(source, _sorted(found))
    return analyse_source(as_text(source, spec))


def _sorted(found: list[Diagnostic]) -> tuple[Diagnostic, ...]:
    """By place."""
    return tuple(sorted(found, key=lambda diagnostic: diagnostic.sort_key))


def check(path: str | Path, settings: Settings | None = None) -> list[Diagnostic]:
    """All findings of a file, sorted by place; never raises for a bad file, but SettingError for bad `settings`."""
    return list(analyse(path, settings).diagnostics)


def parse(path: str | Path, settings: Settings | None = None) -> ModelSpec:
    """The spec in a file, checked. `settings` gives `let`s other numbers: `{"W": 512}`.

    Raises SpecError, which lists every finding, and SettingError for a name that no `let` has.
    """
    return _spec(analyse(path, settings))


def parse_spec_text(text: str, name: str = "<text>", settings: Settings | None = None) -> ModelSpec:
    """The spec in a text, checked. Raises SpecError and SettingError."""
    return _spec(analyse_text(text, name, settings))


def _spec(analysis: Analysis) -> ModelSpec:
    if not analysis.ok or analysis.elaborated is None:
        raise SpecError(analysis.diagnostics or (NoModel(span=Span(analysis.source, 0, 0)),))
    return analysis.elaborated.spec


def plan(spec: ModelSpec) -> AnyPlan:
    """The plan of a spec. Raises SpecError if the spec is inconsistent."""
    return analyse_spec(spec).plan()
