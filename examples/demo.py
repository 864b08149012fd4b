"""The whole path on a small YOCO: text, checks, plan, bytes, a trained model that writes, proof that caching is exact.

Run with `make demo`. Needs no network and no GPU.
"""

import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

import archspec
from archspec.cli.tables import Table, cache_table, print_table
from archspec.describe import exit_text, iteration_texts
from archspec.driver import analyse, analyse_text
from archspec.graph.unshare import without_sharing
from archspec.render import render_text
from archspec.runtime.model import Model
from archspec.units import format_bytes, format_count

SPECS = Path(__file__).parents[1] / "specs"
NANO = SPECS / "nano" / "nano_yoco.arch"
SYSTEMS = [SPECS / "nano" / f"nano_{name}.arch" for name in ("llama", "yoco", "lckv", "block")]
LARGE = SPECS / "yoco" / "yoco_3b_window.arch"
CONTEXTS = (4 << 10, 128 << 10, 1 << 20)
TRAINED = Path(__file__).parent / "yoco_python"
PROMPT = b"class Reader:\n    def __init__(self, path):\n"
WRITTEN, NEW_TOKENS = 360, 48
"""Bytes to read, and those that are compared."""
TEMPERATURE, TOP_K, SEED = 0.8, 40, 1
TOLERANCE = 1e-4

console = Console(highlight=False)


def title(text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


def show_spec() -> None:
    """The text, and what the checker makes of it."""
    title(f"1. A spec: specs/{NANO.relative_to(SPECS)}")
    print(NANO.read_text().rstrip())
    analysis = analyse(NANO)
    plan = analysis.plan()
    title("2. Checked: who writes and who reads each cache")
    print_table(cache_table(plan, "float32"))
    print(exit_text(plan))


def show_mistake() -> None:
    """The same spec without its projection: the readers would silently see a window."""
    title("3. The same spec with line `cache@4: ...` forgotten")
    lines = [line for line in NANO.read_text().splitlines() if not line.strip().startswith(("cache@4", "prefill"))]
    print(render_text(analyse_text("\n".join(lines) + "\n", "nano_yoco.arch").diagnostics))


def show_bytes() -> None:
    """Cache bytes of one sequence, beside the same model in which every layer has keys and values of its own."""
    title("4. Cache bytes of one sequence, bfloat16")
    rows = []
    for path in (NANO, LARGE):
        analysis = analyse(path)
        assert analysis.elaborated is not None
        assert analysis.graph is not None
        plan = analysis.plan()
        dense = archspec.plan(without_sharing(analysis.elaborated.spec, analysis.graph))
        for context in CONTEXTS:
            shared, unshared = (each.cache_bytes(1, context, "bfloat16") for each in (plan, dense))
            ratio = f"1/{unshared / shared:.1f}"
            rows.append((plan.name, format_count(context), format_bytes(shared), format_bytes(unshared), ratio))
        print(f"{plan.name}: {plan.cache_formula()}")
    print_table(Table(("model", ">tokens", ">as written", ">without sharing", ">ratio"), tuple(rows)))


def write() -> bool:
    """Let a trained model of the same layout write, compiled; then compare cached generation with the full forward."""
    model = archspec.load(TRAINED, dtype="float32")
    title(f"5. Trained on Python's standard library: {model.plan.num_parameters():,} parameters")
    print("The same layout, larger: specs/quality/yoco_window.arch. How it was trained: docs/quality.md")
    prompt = torch.tensor([list(PROMPT)])
    start = time.perf_counter()
    with console.status("compiling prefill and decode"):
        tokens = model.generate(prompt, max_new_tokens=NEW_TOKENS)
        model.generate(prompt, max_new_tokens=2, temperature=TEMPERATURE, top_k=TOP_K)
    print(f"compiled with torch.compile, first run included: {time.perf_counter() - start:.0f} s")
    start = time.perf_counter()
    written = model.generate(prompt, max_new_tokens=WRITTEN, temperature=TEMPERATURE, top_k=TOP_K, seed=SEED)
    seconds = time.perf_counter() - start
    console.print(f"\n[dim]{escape(PROMPT.decode())}[/dim]", end="")
    print(bytes(written[0, len(PROMPT) :].tolist()).decode(errors="replace"))
    print(f"\n{WRITTEN} bytes, {WRITTEN / seconds:.0f} a second")
    return compare(model, archspec.load(TRAINED, dtype="float32", compile=False), tokens)


@torch.no_grad()
def compare(model: Model, reference: Model, tokens: torch.Tensor) -> bool:
    """The reference's full forward against prefill (with and without the exit) and decoding of the generated text."""
    title("6. Compiled, cached generation equals the full forward (eager, no cache)")
    full = reference(tokens)
    length = len(PROMPT)
    cache = model.new_cache(batch=1, context=tokens.shape[1])
    steps = [model.prefill(tokens[:, :length], cache)]
    steps += [model.decode(tokens[:, position], cache) for position in range(length, tokens.shape[1] - 1)]
    whole = reference.new_cache(batch=1, context=tokens.shape[1])
    in_full = reference.prefill(tokens[:, :length], whole, early_exit=False)
    gaps = {
        "prefill with the exit": steps[0] - full[:, length - 1],
        "prefill without the exit": in_full - full[:, length - 1],
        f"{len(steps) - 1} decode steps": torch.stack(steps[1:], 1) - full[:, length:-1],
    }
    largest = {name: float(gap.abs().max()) for name, gap in gaps.items()}
    print_table(
        Table(("path", ">largest difference of a logit"), tuple((n, f"{gap:.1e}") for n, gap in largest.items()))
    )
    same = bool((full[:, length - 1 : -1].argmax(-1) == tokens[:, length:]).all())
    planned = model.plan.cache_bytes(1, tokens.shape[1], "float32")
    print(f"greedy tokens equal those of the full forward: {'yes' if same else 'NO'}")
    print(f"cache bytes planned {planned:,}, allocated {cache.nbytes:,}")
    return same and planned == cache.nbytes and max(largest.values()) < TOLERANCE


@torch.no_grad()
def side_by_side() -> bool:
    """The three systems beside a dense model of the same width: what they cache, where prefill stops, what they say."""
    title("7. Three systems beside the dense model of the same width (random weights, not compiled)")
    rows, good = [], True
    for path in SYSTEMS:
        plan = analyse(path).plan()
        model = archspec.compile(archspec.parse(path), seed=0, compile=False)
        tokens = model.generate(torch.tensor([list(PROMPT)]), max_new_tokens=8)
        cache = model.new_cache(1, tokens.shape[1])
        good &= cache.nbytes == plan.cache_bytes(1, tokens.shape[1], "float32")
        generated = ",".join(map(str, tokens[0, len(PROMPT) :].tolist()))
        sizes = [format_bytes(plan.cache_bytes(1, context, "bfloat16")) for context in CONTEXTS[:2]]
        rows.append((plan.name, f"{plan.num_parameters():,}", *sizes, generated))
        print(f"{plan.name}: cache bytes {plan.cache_formula()}")
        for text in (*iteration_texts(plan), exit_text(plan)):
            print(f"  {text}")
    columns = ("model", ">parameters", *(f">cache at {format_count(c)}" for c in CONTEXTS[:2]), "generated tokens")
    print_table(Table(columns, tuple(rows)))
    return good


def main() -> int:
    show_spec()
    show_mistake()
    show_bytes()
    good = write()
    good &= side_by_side()
    title("All as it should be." if good else "SOMETHING DIFFERS: see above.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
