"""Tables for the terminal (rich); plain text where there is no terminal."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from archspec.cli.common import use_colour
from archspec.describe import cache_rows
from archspec.levels_plan import AnyPlan

PLAIN_WIDTH = 160
"""Columns where the output is no terminal: wide enough that nothing is cut."""


@dataclass(frozen=True)
class Table:
    """Column headings (a leading `>` aligns right) and rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def cache_table(plan: AnyPlan, dtype: str) -> Table:
    """Who writes and who reads each cache, what it keeps, what a token costs."""
    rows = [
        (
            row.cache,
            row.holds,
            row.readers,
            row.keeps,
            row.kv_heads,
            f"{row.token_bytes:,}" if row.token_bytes else "-",
        )
        for row in cache_rows(plan, dtype)
    ]
    return Table(("cache", "holds", "read by", "keeps", "kv heads", f">bytes/token ({dtype})"), tuple(rows))


def print_table(table: Table) -> None:
    """Print with aligned columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable

    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else PLAIN_WIDTH, no_color=not use_colour(sys.stdout), highlight=False)
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        shown.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in table.rows:
        shown.add_row(*row)
    if not terminal:
        with console.capture() as capture:
            console.print(shown)
        print("\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n"))
    else:
        console.print(shown)


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as two-blank separated columns, without headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
