"""`archspec diff`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.common import Dtype, counts

if TYPE_CHECKING:
    from archspec.diff import PlanDiff
    from archspec.driver import Analysis


def diff(
    a: Annotated[Path, typer.Argument(help="A spec: .arch text, or its JSON form.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Another one.", metavar="B")],
    context: Annotated[
        str, typer.Option(help="Tokens for which cache bytes are compared; K and M are 1024-based.")
    ] = "4K,32K,128K",
    dtype: Annotated[Dtype, typer.Option(help="Element type of the caches.")] = Dtype.bfloat16,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What differs in meaning between two specs: layers, caches, prefill exit, iteration, parameters, bytes.

    Layout, order of statements, other spellings of ranges and defaults, and names are no difference.

    Exit code 0: the same; 1: different; 2: a file with errors, or wrong usage. Works without torch.

    Example: archspec diff specs/lckv/tinyllama_pizza_bottom.arch specs/lckv/tinyllama_pizza_top.arch
    """
    import json

    from archspec.diff import as_json as to_json
    from archspec.diff import diff_plans

    contexts = counts(context, "--context")
    one, other = _analysed(a), _analysed(b)
    found = diff_plans(one.plan(), other.plan())
    if as_json:
        print(json.dumps(to_json(found, contexts, dtype.value), indent=2))
    else:
        _print(found, a, b, contexts, dtype.value)
    raise typer.Exit(0 if found.same else 1)


def _analysed(path: Path) -> "Analysis":
    from archspec.cli.common import print_diagnostics
    from archspec.driver import analyse

    analysis = analyse(path)
    if not analysis.has_spec:
        print_diagnostics(analysis.diagnostics, sys.stderr)
        if analysis.ok:
            print(f"{path} has no model: it holds definitions for other files to use", file=sys.stderr)
        raise typer.Exit(2)
    return analysis


def _print(found: "PlanDiff", a: Path, b: Path, contexts: tuple[int, ...], dtype: str) -> None:
    from archspec.cli.tables import Table, print_table
    from archspec.units import format_bytes, format_count

    if found.same:
        print(f"{a} and {b} mean the same: {found.a.num_parameters():,} parameters")
        return
    print(f"A: {a}: {found.a.name}\nB: {b}: {found.b.name}\n")
    rows = [(each.place, each.what, each.a or "-", each.b or "-") for each in found.changes]
    print_table(Table(("where", "what", "A", "B"), tuple(rows)))
    print()
    numbers = [("parameters", *_numbers(found.a.num_parameters(), found.b.num_parameters(), "{:,}".format))]
    numbers += [
        (f"cache bytes, {format_count(each.context)} tokens", *_numbers(each.a, each.b, format_bytes))
        for each in found.cache_bytes(contexts, dtype)
    ]
    print_table(Table((f"one sequence, {dtype}", ">A", ">B", ">B / A"), tuple(numbers)))


def _numbers(a: int, b: int, text: Callable[[int], str]) -> tuple[str, str, str]:
    """Both numbers, and how they compare: `-` if nothing is there to compare with."""
    return text(a), text(b), f"{b / a:.4g}" if a else "-"
