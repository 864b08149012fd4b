"""How long `archspec check` takes: from a cold start, and as a spec grows.

`python benchmarks/check.py` prints the page that docs/benchmarks holds for one machine. Nothing is asserted.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from statistics import median
from time import perf_counter

from archspec.driver import analyse_text
from archspec.render import render_text

ROOT = Path(__file__).parents[1]
CHECK = ("-m", "archspec.cli.main", "check")
COLD = {
    "`python -c pass`": ("-c", "pass"),
    "`import archspec`": ("-c", "import archspec"),
    "`archspec check specs/yoco/yoco_3b.arch`": (*CHECK, "specs/yoco/yoco_3b.arch"),
    "`archspec check specs/lckv/tinyllama_lckv_w10.arch`": (*CHECK, "specs/lckv/tinyllama_lckv_w10.arch"),
    "`archspec check specs/block/block_main_b4_1.2b.arch`": (*CHECK, "specs/block/block_main_b4_1.2b.arch"),
    "`archspec check specs` (all {specs} of them)": (*CHECK, "specs"),
}
RUNS = 15
WARM_RUNS = 5
HEADER = "width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000"


def spec(total: int, lines: Sequence[str]) -> str:
    return "\n  ".join(["model m {", f"layers {total}, {HEADER}", *lines]) + "\n}\n"


def in_one_range(total: int) -> str:
    half = total // 2
    return spec(total, [f"layers 1-{half} attend", f"layers {half + 1}-{total} cross-attend to cache@{half}"])


def in_statements(total: int) -> str:
    """Every second layer reads the one below it."""
    return spec(
        total,
        [f"layers {n} attend" if n % 2 else f"layers {n} cross-attend to cache@{n - 1}" for n in range(1, total + 1)],
    )


def wrong_in_statements(total: int) -> str:
    """Every second layer reads a cache that does not exist."""
    return in_statements(total).replace("to cache@", "to cache c")


WARM: tuple[tuple[str, Callable[[int], str], tuple[int, ...]], ...] = (
    ("two ranges, one reads the other", in_one_range, (1_000, 10_000, 100_000)),
    ("a statement a layer", in_statements, (100, 1_000, 10_000)),
    ("a statement a layer, every second one wrong", wrong_in_statements, (100, 1_000, 10_000)),
)


def cold(arguments: Sequence[str], bytecode: Path, uncompiled: bool) -> list[float]:
    """Seconds of processes that start from nothing. `bytecode` is where Python keeps compiled modules.

    `uncompiled`: those of archspec are not kept, and so compiled by each process.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(bytecode)}
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    if uncompiled:
        rmtree(bytecode / (ROOT / "archspec").relative_to("/"), ignore_errors=True)
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    taken = []
    for _ in range(RUNS):
        start = perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
        taken.append(perf_counter() - start)
    return taken


def warm(text: str) -> tuple[list[float], float, int]:
    """Seconds of checks in this process, of one rendering, and the number of findings."""
    taken = []
    for _ in range(WARM_RUNS):
        start = perf_counter()
        found = analyse_text(text).diagnostics
        taken.append(perf_counter() - start)
    start = perf_counter()
    render_text(found)
    return taken, perf_counter() - start, len(found)


def hardware() -> str:
    """The processor by the name that lscpu has for it, and its cores."""
    told = subprocess.run(["lscpu", "--json"], capture_output=True, text=True, check=True).stdout
    fields = {entry["field"]: entry["data"] for entry in json.loads(told)["lscpu"]}
    model = f"model {fields['Model:']}" if "Model:" in fields else ""
    return f"{fields['Model name:']} ({fields['CPU family:']}, {model}), {os.cpu_count()} cores"


def cold_table() -> list[str]:
    rows = [
        "| command | median | least | archspec not compiled: median |",
        "|---|---|---|---|",
    ]
    count = len(list((ROOT / "specs").rglob("*.arch")))
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in COLD.items():
            compiled, plain = (cold(arguments, Path(folder), uncompiled) for uncompiled in (False, True))
            shown = name.format(specs=count)
            rows.append(f"| {shown} | {median(compiled):.3f} s | {min(compiled):.3f} s | {median(plain):.3f} s |")
    return rows


def warm_table() -> list[str]:
    rows = [
        "| spec | layers | check, median | microseconds a layer | findings | to render them |",
        "|---|---|---|---|---|---|",
    ]
    analyse_text(in_statements(10))
    for name, make, totals in WARM:
        for total in totals:
            taken, rendered, findings = warm(make(total))
            middle = median(taken)
            each = f"{middle / total * 1e6:.1f}"
            rows.append(f"| {name} | {total:,} | {middle:.3f} s | {each} | {findings:,} | {rendered:.3f} s |")
    return rows


def page() -> str:
    load = f"{os.getloadavg()[0]:.1f}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("lark", "pydantic", "typer"))
    return "\n".join(
        [
            "# How long a check takes",
            "",
            f"- {hardware()}; {platform.system()} {platform.release()}",
            f"- Python {platform.python_version()}, {versions}",
            f"- `python benchmarks/check.py`, one core; load average of the machine before it: {load}",
            "",
            f"## From a cold start ({RUNS} processes each)",
            "",
            "Modules are compiled beforehand, as `make setup` and installed packages have them. The last column is",
            "where those of archspec are not, and may not be kept either (`PYTHONDONTWRITEBYTECODE`).",
            "",
            *cold_table(),
            "",
            f"## As a spec grows ({WARM_RUNS} checks each in one process)",
            "",
            *warm_table(),
            "",
        ]
    )


if __name__ == "__main__":
    print(page(), end="")
