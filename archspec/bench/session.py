"""A whole run: the sections, and the machine that they ran on."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from archspec.bench.entries import make_entries
from archspec.bench.machine import bandwidths, this_machine
from archspec.bench.report import Report
from archspec.bench.running import Comparison, Pool, Setting, method_for, run_section
from archspec.bench.suites import Part
from archspec.driver import Analysis


def run(
    theme: str,
    comparisons: Sequence[Comparison],
    *,
    device: torch.device,
    rounds: int,
    command: str,
    compile: bool = True,
    free_memory: Callable[[], int | None] = lambda: None,
    notify: Callable[[str], object] = lambda _: None,
) -> Report:
    """Measure all comparisons. Read bandwidth is measured before and behind them, and the better one counts."""
    start, date = time.perf_counter(), datetime.now(UTC)
    notify("read bandwidth")
    found = bandwidths(device)
    setting = Setting(device, method_for(device, rounds), compile, free_memory, notify)
    pool = Pool(setting)
    sections = [run_section(comparison, setting, pool) for comparison in comparisons]
    pool.clear()
    notify("read bandwidth")
    again = bandwidths(device)
    best = {name: max(speed, again[name]) for name, speed in found.items()}
    return Report(
        theme=theme,
        command=command,
        date=date.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - start, 1),
        machine=this_machine(device),
        read_bandwidth=best,
        rounds=rounds,
        sections=tuple(section.with_shares(max(best.values())) for section in sections),
    )


def comparison_of(part: Part, specs: Path, analyse: Callable[[Path], Analysis]) -> Comparison:
    """A part of a suite with its specs read from the folder `specs`; `analyse` gives specs without errors."""
    analyses = [analyse(specs / f"{name}.arch") for name in part.specs]
    entries, reference = make_entries(analyses, part.baselines)
    chosen = part.reference or reference
    return Comparison(
        part.title,
        entries,
        part.workloads,
        peers=part.peers,
        packages=part.packages,
        alone=part.alone,
        reference=chosen,
    )
