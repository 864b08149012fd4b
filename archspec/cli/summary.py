"""What `archspec check` prints below the findings: who got which cache, what it costs, where prefill stops."""

import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TextIO

from archspec.cli.columns import fitted
from archspec.cli.tables import cache_table
from archspec.describe import exit_text, iteration_texts, parameters_text, twin_texts
from archspec.levels_plan import AnyPlan


def print_summary(name: str, plan: AnyPlan, stream: TextIO = sys.stdout) -> None:
    """The table and notes of one spec, a blank line below."""
    width = _width(stream)
    sizes = f"{plan.name}, {len(plan.layers)} layers, {parameters_text(plan)}"
    print(_wrapped(f"{name}: {sizes}", width), file=stream)
    table = cache_table(plan, "bfloat16")
    if table.rows:
        print(fitted(table.columns, table.rows, width), file=stream)
    for line in _notes(plan):
        print(_wrapped(line, width), file=stream)
    print(file=stream)


def _notes(plan: AnyPlan) -> Iterator[str]:
    for text in twin_texts(plan):
        yield f"note: {text}"
    yield from iteration_texts(plan)
    yield from exit_text(plan).splitlines()


def _wrapped(line: str, width: int | None) -> str:
    if width is None:
        return line
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _width(stream: TextIO) -> int | None:
    """Columns of the terminal; None where the output is none, and lines may be as long as they are."""
    return shutil.get_terminal_size().columns if stream.isatty() else None
