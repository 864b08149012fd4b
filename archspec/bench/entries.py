"""Specs -> the models that are measured, with the dense ones that they are compared with. No torch."""

from collections.abc import Sequence
from dataclasses import replace

from archspec.bench.workloads import Entry
from archspec.driver import Analysis, plan
from archspec.graph.dense import dense
from archspec.levels_plan import AnyPlan


def make_entries(analyses: Sequence[Analysis], baselines: bool) -> tuple[tuple[Entry, ...], str]:
    """The models of specs without errors, and the name of the one that speeds refer to.

    That is the dense model of the first spec, or the first spec if it is dense or `baselines` is False. A dense model
    that another one of the specs is already, but for its name, does not appear twice.
    """
    entries: list[Entry] = []
    for analysis in analyses:
        assert analysis.elaborated is not None
        spec = analysis.elaborated.spec
        entries.append(Entry(_unused(spec.name, entries), "spec", spec, analysis.plan()))
    dense_names = []
    for analysis, entry in zip(analyses, tuple(entries) if baselines else (), strict=baselines):
        assert analysis.graph is not None
        spec = dense(entry.spec, analysis.graph)
        made = plan(spec)
        alike = next((other for other in entries if _same(other.plan, made)), None)
        if alike is None:
            alike = Entry(_unused(spec.name, entries), "dense", spec, made)
            entries.append(alike)
        dense_names.append(alike.name)
    return tuple(entries), next(iter(dense_names), entries[0].name)


def _same(plan: AnyPlan, other: AnyPlan) -> bool:
    """Whether two plans differ in nothing but their names."""
    return replace(plan, name="") == replace(other, name="")


def _unused(name: str, entries: Sequence[Entry]) -> str:
    """The name, or a numbered one if another model has it."""
    taken = {entry.name for entry in entries}
    count, found = 1, name
    while found in taken:
        count += 1
        found = f"{name}-{count}"
    return found
