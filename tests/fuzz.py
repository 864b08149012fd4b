"""Check many broken texts: `python tests/fuzz.py --inputs 20000 --seed 0`, or `make fuzz`.

Every input is made from a shipped spec by `archspec.testing.mutations`. An input fails if the checker raises, if a
finding lies outside the text, or if it takes longer than the bound. Failing inputs are kept in out/fuzz.
"""

import argparse
import random
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

from rich.progress import track

from archspec.testing.judging import judged
from archspec.testing.mutations import odd_text

ROOT = Path(__file__).parent.parent
SPECS = sorted((ROOT / "specs").rglob("*.arch")) + sorted((ROOT / "tests/frontend/errors").glob("*.arch"))
BOUND = 2.0
"""Processor seconds for one input."""
BATCH = 250


@dataclass
class Outcome:
    """What came of a batch."""

    inputs: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    """Inputs by finding; `clean` are those without any."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Text and what was wrong with it."""
    slowest: float = 0.0

    def take(self, text: str) -> None:
        """Check one more text."""
        self.inputs += 1
        start = process_time()
        try:
            codes = {diagnostic.code for diagnostic in judged(text).diagnostics}
            self.codes.update(codes or {"clean"})
        except Exception:
            self.failures.append((text, traceback.format_exc()))
        seconds = process_time() - start
        self.slowest = max(self.slowest, seconds)
        if seconds > BOUND:
            self.failures.append((text, f"took {seconds:.1f} s"))

    def join(self, other: "Outcome") -> None:
        self.inputs += other.inputs
        self.codes += other.codes
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)


def texts(seed: int, count: int) -> Iterator[str]:
    """The inputs of one batch."""
    rng = random.Random(seed)
    pool = [path.read_text("utf-8") for path in SPECS]
    for _ in range(count):
        text = rng.choice(pool)
        for _ in range(rng.choice([1, 1, 1, 2])):
            text = odd_text(text, rng, pool)
        yield text


def run_batch(seed: int, count: int = BATCH) -> Outcome:
    outcome = Outcome()
    for text in texts(seed, count):
        outcome.take(text)
    return outcome


def run(inputs: int, seed: int, workers: int) -> Outcome:
    """All batches, in processes of their own; a bar shows how far they are."""
    seeds = range(seed, seed + (inputs + BATCH - 1) // BATCH)
    total = Outcome()
    with ProcessPoolExecutor(workers) as pool:
        for outcome in track(pool.map(run_batch, seeds), "checking broken specs", total=len(seeds)):
            total.join(outcome)
    return total


def report(outcome: Outcome, folder: Path) -> None:
    """Print what came out, and keep what failed."""
    print(f"{outcome.inputs:,} inputs, {len(outcome.failures)} failures; the slowest took {outcome.slowest:.2f} s")
    print(", ".join(f"{code} {count:,}" for code, count in sorted(outcome.codes.items())))
    if outcome.failures:
        folder.mkdir(parents=True, exist_ok=True)
    for number, (text, problem) in enumerate(outcome.failures):
        path = folder / f"failure_{number}.arch"
        path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        print(f"\n{path.relative_to(ROOT)}: {problem}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="how many texts to check")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch; another one gives other texts")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    outcome = run(options.inputs, options.seed, options.workers)
    report(outcome, ROOT / "out" / "fuzz")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
