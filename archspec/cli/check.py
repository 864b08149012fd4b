"""`archspec check`."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.common import Set

if TYPE_CHECKING:
    from archspec.checks.deployment import Deployment
    from archspec.driver import Analysis
    from archspec.fixes import Fixed

STDIN = Path("-")


class Format(StrEnum):
    text = "text"
    json = "json"
    sarif = "sarif"
    github = "github"


def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Specs: .arch text, or their JSON form; folders of .arch files; - for standard input.",
            metavar="FILE...",
        ),
    ],
    format: Annotated[Format, typer.Option(help="How findings are printed.")] = Format.text,
    fix: Annotated[bool, typer.Option("--fix", help="Apply the fixes that are surely meant, then check.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what --fix would change; write nothing.")] = False,
    tensor_parallel: Annotated[
        int, typer.Option(metavar="N", min=1, help="Judge how the heads spread over N devices.")
    ] = 1,
    pipeline_split: Annotated[
        str, typer.Option(metavar="N,...", help="Judge pipeline stages that end behind these layers.")
    ] = "",
    set_: Set = None,
) -> None:
    """Check specs, and say which cache each reader got.

    Exit code 0: no errors (warnings are allowed); 1: errors, or with --diff changes; 2: wrong usage. Works without
    torch.

    Example: archspec check specs/yoco/yoco_3b_window.arch
    """
    if fix and diff:
        raise typer.BadParameter("--diff shows what --fix would do: give one of them", param_hint="--diff")
    paths = _expanded(files)
    if fix or diff:
        _fix(paths, diff, format)
        if diff:
            return
    analyses = [_analysed(path, _deployment(tensor_parallel, pipeline_split), set_) for path in paths]
    _print_findings(analyses, format)
    if not all(analysis.ok for analysis in analyses):
        raise typer.Exit(1)


def _expanded(files: Sequence[Path]) -> list[Path]:
    """Folders as the specs in them, sorted; everything else as it is."""
    paths: list[Path] = []
    for path in files:
        if path.is_dir():
            inside = sorted(found for found in path.rglob("*.arch") if found.is_file())
            if not inside:
                raise typer.BadParameter(f"no .arch file in the folder {path}", param_hint="FILE")
            paths += inside
        else:
            paths.append(path)
    return paths


def _analysed(path: Path, deployment: "Deployment", pairs: Sequence[str] | None) -> "Analysis":
    from archspec.cli.common import settings_of, settings_that_fit
    from archspec.driver import analyse, analyse_stdin, deployed

    settings = settings_of(pairs)
    with settings_that_fit():
        analysis = analyse_stdin(settings) if path == STDIN else analyse(path, settings)
    if deployment.pipeline_split and analysis.graph is not None:
        total = getattr(analysis.graph, "num_layers", None)
        if total is None:
            raise typer.BadParameter("a model with levels has no one row of layers", param_hint="--pipeline-split")
        if not all(1 <= split < total for split in deployment.pipeline_split):
            last = f"{path} has {total} layers: a split stands behind one of 1 to {total - 1}"
            raise typer.BadParameter(last, param_hint="--pipeline-split")
    return deployed(analysis, deployment)


def _deployment(tensor_parallel: int, pipeline_split: str) -> "Deployment":
    from archspec.checks.deployment import Deployment

    try:
        splits = tuple(int(part) for part in pipeline_split.split(",")) if pipeline_split else ()
    except ValueError as error:
        message = f"`{pipeline_split}` is no list of layers: write for example 13 or 8,16"
        raise typer.BadParameter(message, param_hint="--pipeline-split") from error
    return Deployment(tensor_parallel, splits)


def _fix(paths: Sequence[Path], diff: bool, format: Format) -> None:
    """Write the fixed files, or print what would change. Effects: with `diff`, ends with 1 if anything would."""
    from archspec.cli.common import CliError
    from archspec.fixes import fix

    fixed: list[Fixed] = []
    for path in paths:
        if path == STDIN:
            raise typer.BadParameter("standard input cannot be fixed", param_hint="FILE")
        fixed.append(fix(path))
        if diff:
            print(fixed[-1].diff(), end="")
            continue
        try:
            fixed[-1].write()
        except OSError as error:
            raise CliError(f"{path}: cannot be written: {error.strerror or error}") from error
    count, changed = sum(one.count for one in fixed), sum(one.changed for one in fixed)
    verb = "would be fixed" if diff else "fixed"
    if count or diff:
        what = f"{count} finding{'s' if count != 1 else ''} {verb} in {changed} file{'s' if changed != 1 else ''}"
        print(what, file=sys.stderr if diff or format is not Format.text else sys.stdout)
    if diff and changed:
        raise typer.Exit(1)


def _print_findings(analyses: "Sequence[Analysis]", format: Format) -> None:
    found = [diagnostic for analysis in analyses for diagnostic in analysis.diagnostics]
    match format:
        case Format.text:
            _print_text(analyses)
        case Format.json:
            import json

            from archspec.render import to_json

            print(json.dumps(to_json(found), indent=2))
        case Format.sarif:
            import json

            from archspec.render.sarif import to_sarif

            print(json.dumps(to_sarif(found, _version()), indent=2))
        case Format.github:
            from archspec.render.github import render_github

            print(render_github(found), end="")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("archspec-lm")
    except PackageNotFoundError:  # run from a folder of sources
        return "0"


def _print_text(analyses: "Sequence[Analysis]") -> None:
    from archspec.cli.common import print_diagnostics
    from archspec.cli.summary import print_summary

    for analysis in analyses:
        print_diagnostics(analysis.diagnostics, sys.stdout)
        if analysis.ok and not analysis.has_spec:
            print(f"{analysis.source.name}: definitions for other files to use, no model\n")
        elif analysis.ok:
            print_summary(analysis.source.name, analysis.plan(), sys.stdout)
    found = [diagnostic for analysis in analyses for diagnostic in analysis.diagnostics]
    errors = sum(diagnostic.severity == "error" for diagnostic in found)
    warnings = len(found) - errors
    files = f"{len(analyses)} file{'s' if len(analyses) != 1 else ''}"
    ending = "" if errors == 1 else "s", "" if warnings == 1 else "s"
    print(f"{files} checked: {errors} error{ending[0]}, {warnings} warning{ending[1]}{_fixable(analyses)}")


def _fixable(analyses: "Sequence[Analysis]") -> str:
    from archspec.fixes import safe_edits

    safe = sum(bool(safe_edits(found, analysis.source)) for analysis in analyses for found in analysis.diagnostics)
    return f" ({safe} can be fixed with `--fix`)" if safe else ""
