"""All checks of a spec, one module a family; each family's errors stand beside it in `*_errors.py`."""

from archspec.checks import cache_settings, iteration, levels, positions, ranges, shapes, sources, use, windows
from archspec.checks.context import Check, Context
from archspec.diagnostics import Diagnostic
from archspec.spec.elaborate_levels import LevelsElaborated

CHECKS: tuple[Check, ...] = (
    ranges.check,
    sources.check,
    iteration.check,
    shapes.check,
    windows.check,
    positions.check,
    cache_settings.check,
    use.check,
)


def run_checks(context: Context) -> list[Diagnostic]:
    """Every finding of every family, unsorted."""
    return [diagnostic for check in CHECKS for diagnostic in check(context)]


def run_level_checks(elaborated: LevelsElaborated, contexts: list[Context]) -> list[Diagnostic]:
    """What is found inside of each level, and between them; what is said of both is said once, of the model."""
    found = [diagnostic for context in contexts for diagnostic in run_checks(context)]
    silent = [diagnostic for diagnostic in found if isinstance(diagnostic, positions.NoPositions)]
    if len(silent) > 1:
        found = [diagnostic for diagnostic in found if diagnostic not in silent]
        found.append(positions.NoPositions(span=elaborated.spans.name))
    return [*found, *levels.check_levels(elaborated)]
