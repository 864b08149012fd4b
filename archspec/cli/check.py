"""`archspec check`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    text = "text"
    json = "json"


def check(
    files: Annotated[list[Path], typer.Argument(help="Specs: .arch text, or their JSON form.", metavar="FILE...")],
    format: Annotated[Format, typer.Option(help="How findings are printed.")] = Format.text,
) -> None:
    """Check specs, and say which cache each reader got.

    Exit code 0: no errors (warnings are allowed); 1: errors; 2: wrong usage. Works without torch.

    Example: archspec check specs/yoco/yoco_3b_window.arch
    """
    from archspec.driver import analyse

    analyses = [analyse(path) for path in files]
    if format is Format.json:
        import json

        from archspec.render import to_json

        found = [item for analysis in analyses for item in to_json(analysis.diagnostics)]
        print(json.dumps(found, indent=2))
    else:
        from archspec.cli.common import print_diagnostics

        for analysis in analyses:
            print_diagnostics(analysis.diagnostics, sys.stdout)
            if analysis.ok:
                _print_summary(analysis.source.name, analysis.plan())
        _print_verdict(analyses)
    if not all(analysis.ok for analysis in analyses):
        raise typer.Exit(1)


def _print_summary(name, plan) -> None:  # type: ignore[no-untyped-def]
    from archspec.cli.tables import cache_table, print_table
    from archspec.describe import exit_text, iteration_texts

    print(f"{name}: {plan.name}, {len(plan.layers)} layers, {plan.num_parameters():,} parameters")
    print_table(cache_table(plan, "bfloat16"))
    print(f"cache bytes: {plan.cache_formula()}")
    for text in (*iteration_texts(plan), exit_text(plan)):
        print(text)
    print()


def _print_verdict(analyses) -> None:  # type: ignore[no-untyped-def]
    found = [diagnostic for analysis in analyses for diagnostic in analysis.diagnostics]
    errors = sum(diagnostic.severity == "error" for diagnostic in found)
    warnings = len(found) - errors
    files = f"{len(analyses)} file{'s' if len(analyses) != 1 else ''}"
    print(
        f"{files} checked: {errors} error{'s' if errors != 1 else ''}, {warnings} warning{'s' if warnings != 1 else ''}"
    )
