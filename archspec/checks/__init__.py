"""All checks of a spec, one module a family; each family's errors stand beside it in `*_errors.py`."""

from archspec.checks import positions, ranges, shapes, sources, use, windows
from archspec.checks.context import Check, Context
from archspec.diagnostics import Diagnostic

CHECKS: tuple[Check, ...] = (
    ranges.check,
    sources.check,
    shapes.check,
    windows.check,
    positions.check,
    use.check,
)


def run_checks(context: Context) -> list[Diagnostic]:
    """Every finding of every family, unsorted."""
    return [diagnostic for check in CHECKS for diagnostic in check(context)]
