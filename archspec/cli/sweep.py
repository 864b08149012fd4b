"""`archspec sweep`."""

import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archspec.cli.common import counts, plots_needed, settings_that_fit

FEW = 200
"""Fewer combinations than this need no bar."""

if TYPE_CHECKING:
    from archspec.sweep.grid import Point


def sweep(
    file: Annotated[Path, typer.Argument(help="A spec with `let`s.", metavar="FILE")],
    sets: Annotated[
        list[str],
        typer.Option("--set", help="Values of a `let`: W=256,512 or S=8-13.", metavar="NAME=VALUES"),
    ],
    metric: Annotated[
        str, typer.Option(help="What to measure, with commas; less is better.")
    ] = "cache_bytes,parameters",
    batch: Annotated[int, typer.Option(help="Sequences.", min=1)] = 1,
    context: Annotated[str, typer.Option(help="Tokens a sequence; K and M are 1024-based.")] = "4K",
    dtype: Annotated[str, typer.Option(help="Element type of weights and caches.")] = "bfloat16",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the points into a png, svg or pdf.")] = None,
) -> None:
    """Plan every combination of settings, and mark those that no other beats (the Pareto front).

    Combinations that the checker refuses are listed with their first error. Exit code 1 if all are refused.

    Example: archspec sweep specs/sweep/yoco_split.arch --set S=4-28 --set W=256,1024 --context 32K
    """
    from archspec.cli.common import Dtype
    from archspec.sweep.grid import MAX_POINTS, pareto, points
    from archspec.sweep.metrics import METRICS, Workload

    metrics = metric.split(",")
    for name in metrics:
        if name not in METRICS:
            raise typer.BadParameter(f"unknown metric `{name}`; known: {', '.join(METRICS)}", param_hint="--metric")
    if dtype not in Dtype.__members__:
        raise typer.BadParameter(f"unknown dtype `{dtype}`; known: {', '.join(Dtype)}", param_hint="--dtype")
    swept = _values(sets)
    if (total := math.prod(map(len, swept.values()))) > MAX_POINTS:
        raise typer.BadParameter(f"{total:,} combinations; at most {MAX_POINTS:,} are planned", param_hint="--set")
    workload = Workload(batch, counts(context, "--context")[0], dtype)
    with settings_that_fit():
        found = list(_shown(points(file, swept, metrics, workload), total))
    front = pareto(found)
    if as_json or as_csv:
        (_print_json if as_json else _print_csv)(found, front, metrics)
    else:
        _print_text(found, front, metrics)
    if not front:
        raise typer.Exit(1)
    if plot is not None:
        _draw(found, front, metrics, plot)


def _values(sets: list[str]) -> dict[str, tuple[int, ...]]:
    """`W=256,512`, `S=8-13` -> values by name; a wrong one is a usage error."""
    from archspec.sweep.grid import MAX_POINTS

    swept: dict[str, tuple[int, ...]] = {}
    for text in sets:
        name, equals, values = text.partition("=")
        if not equals or not name or name in swept:
            raise typer.BadParameter(f"`{text}`: write each name once, as NAME=VALUES", param_hint="--set")
        try:
            ranges = [_range(part) for part in values.split(",")]
        except ValueError:
            raise typer.BadParameter(f"`{text}`: write values as 256,512 or 8-13", param_hint="--set") from None
        if (total := sum(map(len, ranges))) > MAX_POINTS:
            raise typer.BadParameter(f"`{text}`: {total:,} values; at most {MAX_POINTS:,}", param_hint="--set")
        swept[name] = tuple(dict.fromkeys(value for each in ranges for value in each))
    return swept


def _range(text: str) -> range:
    first, dash, last = text.strip().partition("-")
    values = range(int(first), int(last if dash else first) + 1)
    if not values:
        raise ValueError(text)
    return values


def _shown(found: "Iterator[Point]", total: int) -> "Iterator[Point]":
    """The points, with a bar on the terminal while many are planned."""
    if total < FEW or not sys.stderr.isatty():
        return found
    from rich.console import Console
    from rich.progress import track

    return iter(track(found, "planning", total=total, console=Console(stderr=True), transient=True))


def _rows(found: "list[Point]", front: frozenset[int], metrics: list[str]) -> list[dict[str, Any]]:
    """One flat mapping a point: settings, metrics (None where refused), whether it is on the front, the error."""
    return [
        {
            **dict(point.settings),
            **dict(itertools.zip_longest(metrics, point.metrics)),
            "pareto": idx in front,
            "error": None if point.error is None else f"{point.error.code}: {point.error.message()}",
        }
        for idx, point in enumerate(found)
    ]


def _print_json(found: "list[Point]", front: frozenset[int], metrics: list[str]) -> None:
    import json

    print(json.dumps(_rows(found, front, metrics), indent=2))


def _print_csv(found: "list[Point]", front: frozenset[int], metrics: list[str]) -> None:
    import csv

    rows = _rows(found, front, metrics)
    writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_text(found: "list[Point]", front: frozenset[int], metrics: list[str]) -> None:
    from archspec.cli.tables import Table, print_table

    names = [name for name, _ in found[0].settings]
    columns = (*(f">{name}" for name in names), *(f">{name}" for name in metrics), "")
    rows = [
        (
            *(str(value) for _, value in point.settings),
            *(f"{value:,}" for value in point.metrics),
            *("-" for _ in metrics[len(point.metrics) :]),
            "front" if idx in front else f"{point.error.code}: {point.error.message()}" if point.error else "",
        )
        for idx, point in enumerate(found)
    ]
    print_table(Table(columns, tuple(rows)))
    print(f"{len(front)} of {len(found)} are on the Pareto front: no other is at most as large in every metric")


def _draw(found: "list[Point]", front: frozenset[int], metrics: list[str], path: Path) -> None:
    from archspec.files import write_files

    kind = path.suffix.removeprefix(".") or "png"
    with plots_needed():
        from archspec.sweep.plot import plot_points

        write_files(path.parent, {path.name: lambda target: plot_points(found, front, metrics, target, kind)})
    print(f"wrote {path}")
