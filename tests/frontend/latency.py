"""How long a check takes. `python tests/frontend/latency.py` prints a table; nothing is asserted."""

import subprocess
import sys
from time import perf_counter

from archspec.driver import analyse_text

HEADER = "width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000"


def wrap(total: int, lines: list[str]) -> str:
    body = "".join(f"  {line}\n" for line in [f"layers {total}, {HEADER}", *lines])
    return f"model m {{\n{body}}}\n"


def single_statements(count: int) -> str:
    """Every second layer reads the one below it."""
    lines = [
        f"layers {n} attend" if n % 2 else f"layers {n} cross-attend to cache@{n - 1}" for n in range(1, count + 1)
    ]
    return wrap(count, lines)


CASES = {
    "1,000 layers, one range": wrap(1000, ["layers 1-1000 attend"]),
    "1,000 layers, 1,000 statements": single_statements(1000),
    "10,000 statements": single_statements(10_000),
    "10,000 statements, each with an error of syntax": single_statements(10_000).replace(" attend", " attend heads 4"),
    "10,000 readers of one another": wrap(
        10_000, [f"layers {n} cross-attend to cache@{n % 10_000 + 1}" for n in range(1, 10_001)]
    ),
    "10,000 readers in a chain": wrap(
        10_000, ["layers 1 attend", *(f"layers {n} cross-attend to cache@{n - 1}" for n in range(2, 10_001))]
    ),
    "10,000 readers before their sources": wrap(
        10_000,
        [f"layers {n} attend" if n % 2 == 0 else f"layers {n} cross-attend to cache@{n + 1}" for n in range(1, 10_001)],
    ),
    "5,000 readers that nest before their sources": wrap(
        10_000,
        [
            f"layers {n} cross-attend to cache@{10_001 - n}" if n <= 5000 else f"layers {n} attend"
            for n in range(1, 10_001)
        ],
    ),
    "10,000 readers of the cache below": wrap(
        10_000, ["layers 1 attend", *(f"layers {n} cross-attend to cache@below" for n in range(2, 10_001))]
    ),
    "10,000 readers of unknown names": wrap(
        10_000, ["layers 1 attend", *(f"layers {n} cross-attend to cache c{n}" for n in range(2, 10_001))]
    ),
    "10,000 caches nobody reads": wrap(10_000, ["layers 1-10000 attend", *(f"cache@{n}:" for n in range(1, 10_001))]),
    "10,000 named caches, 10,000 misspelt readers": wrap(
        10_000,
        [
            *(f"cache a{n}@{n}: kv heads 4" for n in range(1, 5001)),
            *(f"layers {n} cross-attend to cache b{n}" for n in range(1, 5001)),
        ],
    ),
    "100,000 layers, 10,000 times over": wrap(100_000, ["layers 1-100000 attend"] * 10_000),
    "100,000 layers, 10,000 times the rest": wrap(100_000, ["layers rest attend"] * 10_000),
    "1 MiB of comment": wrap(4, ["layers 1-4 attend", "# " + "x" * (1 << 20)]),
    "1 MiB of parentheses": wrap(4, ["layers 1-4 attend, rope " + "(" * (1 << 20)]),
    "1 MiB of commas": wrap(4, ["layers 1-4 attend, " + "," * (1 << 20)]),
    "1 MiB of braces": "model m " + "{" * (1 << 20),
    "1 MiB of blank lines": "model m {" + "\n" * (1 << 20) + "}",
    "1 MiB of equal signs": "model m {" + "=" * (1 << 20) + "}",
}


def cold() -> float:
    start = perf_counter()
    code = "from archspec.driver import analyse_text; analyse_text('model m {\\n}\\n')"
    subprocess.run([sys.executable, "-c", code], check=True)
    return perf_counter() - start


def measure(text: str) -> tuple[float, float, int]:
    """Seconds to check and to render, and the number of findings."""
    from archspec.render import render_text

    start = perf_counter()
    found = analyse_text(text).diagnostics
    checked = perf_counter()
    render_text(found)
    return checked - start, perf_counter() - checked, len(found)


if __name__ == "__main__":
    print(f"{'a process that checks one small file':55} {min(cold() for _ in range(3)):7.3f} s")
    analyse_text("")
    for name, text in CASES.items():
        check, render, findings = measure(text)
        print(f"{name:55} {check:7.3f} s, render {render:7.3f} s, {findings} findings", flush=True)
