"""`archspec fmt`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from archspec.fmt import Formatted

STDIN = Path("-")


def fmt(
    files: Annotated[
        list[Path], typer.Argument(help="Specs as .arch text; `-` reads standard input.", metavar="FILE...")
    ],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; list the files that would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; show what would change.")] = False,
) -> None:
    """Put specs into the canonical layout, in place. Comments, order and composition stay as they are written.

    Exit code 0: done, or with --check and --diff nothing to do; 1: something to do, or a file with syntax errors, which
    is left alone; 2: wrong usage. `archspec fmt -` writes the result to standard output.

    Example: archspec fmt --check specs/yoco/yoco_3b.arch
    """
    from archspec.cli.common import print_diagnostics

    results = [_formatted(path) for path in files]
    for result in results:
        print_diagnostics(result.diagnostics, sys.stderr)
    changed = [(path, result) for path, result in zip(files, results, strict=True) if result.changed]
    if diff:
        for _, result in changed:
            _print_diff(result)
    elif not check:
        _write(files, results)
    if STDIN not in files or check or diff:
        _print_verdict(results, check or diff)
    if not all(result.ok for result in results) or (changed and (check or diff)):
        raise typer.Exit(1)


def _formatted(path: Path) -> "Formatted":
    """The result for one file; one that cannot be read is a finding as well."""
    from archspec.files import UnreadableFile, read_source, read_stdin
    from archspec.fmt import Formatted, format_source
    from archspec.source import Span

    source, problem = read_stdin() if path == STDIN else read_source(path)
    if problem is None and path.suffix.lower() == ".json":
        reason = "JSON: `archspec fmt` is for .arch text, which `archspec show --emit spec` makes of it"
        problem = UnreadableFile(span=Span(source, 0, 0), problem=reason)
    return format_source(source) if problem is None else Formatted(source, source.text, (problem,))


def _write(files: list[Path], results: "list[Formatted]") -> None:
    from archspec.cli.common import CliError
    from archspec.files import write_text

    for path, result in zip(files, results, strict=True):
        if path == STDIN:
            sys.stdout.buffer.write(result.text.encode() if result.ok else b"")
        elif result.changed:
            try:
                write_text(path, result.text)
            except OSError as error:
                raise CliError(f"{path} cannot be written: {error.strerror or error}") from error


def _print_diff(result: "Formatted") -> None:
    from archspec.cli.common import use_colour

    colours = {"+": "32", "-": "31", "@": "36"} if use_colour(sys.stdout) else {}
    for line in result.diff():
        colour = colours.get(line[0])
        print(f"\x1b[{colour}m{line}\x1b[0m" if colour else line)


def _print_verdict(results: "list[Formatted]", dry: bool) -> None:
    changed = [result for result in results if result.changed]
    kept = sum(result.ok and not result.changed for result in results)
    for result in changed:
        print(f"{'would reformat' if dry else 'reformatted'} {result.source.name}")
    parts = [f"{_files(len(changed))} {'would be ' if dry else ''}reformatted"] if changed else []
    parts += [f"{_files(kept)} {'in' if dry else 'left in'} canonical layout"] if kept else []
    broken = sum(not result.ok for result in results)
    parts += [f"{_files(broken)} left alone"] if broken else []
    print(", ".join(parts))


def _files(number: int) -> str:
    return f"{number} file{'s' if number != 1 else ''}"
