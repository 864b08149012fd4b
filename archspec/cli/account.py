"""`archspec compile --explain`: dynamo's account as a table, or for programs."""

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from archspec.cli.tables import Table, print_table

if TYPE_CHECKING:
    from archspec.runtime.account import Compiled
    from archspec.runtime.build import AnyModel

COLUMNS = ("phase", "unit", "serves", ">graphs", ">breaks", ">guards", ">recompiles", ">compile s")


def print_account(model: "AnyModel", as_json: bool, training: bool) -> None:
    """Compile a model and print what was compiled."""
    from archspec.runtime.account import account
    from archspec.runtime.explaining import LATER

    made = account(model, training)
    if as_json:
        backends = [explained._asdict() for explained in made.backends]
        print(json.dumps({**asdict(made), "backends": backends}, indent=2))
        return
    print_table(Table(COLUMNS, tuple(map(_cells, made.rows))))
    phases = {"all", *(row.phase for row in made.rows)}
    if model.plan.prefill_chunk is not None:
        phases.add(LATER)  # nothing of them was run, but long prompts have them
    seconds = sum(row.seconds for row in made.rows)
    cached = f"{made.cache_hits} from the cache on disk, {made.cache_misses} new"
    print(f"\n{made.graphs} graphs in {seconds:.1f} s ({cached})")
    for layers, phase, backend, reason, level in made.backends:
        if phase in phases:
            names = [f"{level} {layer}".strip() for layer in layers]
            print(f"{phase}, {served_text(names)}: {backend}, {reason}")
    for tape in made.tapes:
        print(f"decode step{f' of {tape.stack}' if tape.stack else ''}: {tape.calls} calls, {tape.launches} kernels")
        for why, number in Counter(tape.unwatched).items():
            print(f"  {number} of the calls are whole graphs: {why}")
    for row in made.rows:
        for why in row.recompiles:
            print(f"recompiled in {row.phase}, {row.unit}: {' '.join(why.split())}")


def _cells(row: "Compiled") -> tuple[str, ...]:
    numbers = (row.graphs, row.breaks, row.guards, len(row.recompiles))
    return (row.phase, row.unit, served_text(row.served), *map(str, numbers), f"{row.seconds:.1f}")


def served_text(names: list[str]) -> str:
    """`1-4` for layers that follow one another, with how many there are; other names as they are."""
    parts: list[str] = []
    runs: list[tuple[str, int, int]] = []
    for name in names:
        prefix, _, last = name.rpartition(" ")
        if not last.isdecimal():
            parts.append(name)
        elif runs and runs[-1][0] == prefix and runs[-1][2] + 1 == int(last):
            runs[-1] = (prefix, runs[-1][1], int(last))
        else:
            runs.append((prefix, int(last), int(last)))
    count = sum(last - first + 1 for _, first, last in runs)
    if runs:
        level = f"{runs[0][0]} " if runs[0][0] else ""
        ranges = ", ".join(str(first) if first == last else f"{first}-{last}" for _, first, last in runs)
        parts.append(f"{level}layers {ranges} ({count})" if count > 1 else f"{level}layer {ranges}")
    return ", ".join(parts)
