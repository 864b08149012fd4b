"""How `archspec memory` prints its rows: text, JSON, CSV, LaTeX."""

import csv
import json
import sys
import textwrap
from dataclasses import dataclass
from typing import Any

from archspec import formula
from archspec.cli.tables import Table, print_table
from archspec.describe import parameters_text
from archspec.levels_plan import AnyPlan
from archspec.memory.account import Terms, weight_bytes
from archspec.memory.report import Row
from archspec.units import format_bytes, format_count


@dataclass(frozen=True)
class Report:
    """What is printed: rows of every model, in the same order of batch and context."""

    plans: list[AnyPlan]
    rows: list[list[Row]]
    terms: Terms
    budget: int | None


def print_json(report: Report) -> None:
    """One object for one model, a list of them under `models` for several."""
    facts = [_facts(report, plan, rows) for plan, rows in zip(report.plans, report.rows, strict=True)]
    print(json.dumps(facts[0] if len(facts) == 1 else {"models": facts}, indent=2))


def _facts(report: Report, plan: AnyPlan, rows: list[Row]) -> dict[str, Any]:
    terms = report.terms
    facts: dict[str, Any] = {
        "model": plan.name,
        "dtype": terms.dtype,
        "cache_dtype": terms.cache_dtype or terms.dtype,
        "allocator": str(terms.allocator),
        "prefill_chunk": terms.chunk_of(plan),
        "num_parameters": plan.num_parameters(),
        "num_active_parameters": plan.num_active_parameters(),
        "weight_bytes": weight_bytes(plan, terms.dtype),
        "cache_formula": plan.cache_formula(),
        "cache_formula_latex": formula.latex(plan.cache_terms()),
    }
    if report.budget is not None:
        facts["budget_bytes"] = report.budget
    return facts | {"rows": rows}


def print_csv(report: Report) -> None:
    """Exact bytes, one line for each model, batch and context."""
    rows = [{"model": plan.name} | row for plan, rows in zip(report.plans, report.rows, strict=True) for row in rows]
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_text(report: Report) -> None:
    """Tables of at most 80 columns for one model; several models take two columns each."""
    terms = report.terms
    for plan in report.plans:
        weights = format_bytes(weight_bytes(plan, terms.dtype))
        print(f"{plan.name}: {parameters_text(plan)}, {weights} of weights in {terms.dtype}")
        print(f"cache bytes = {plan.cache_formula()}")
    print(f"B sequences, T tokens of context, e = {terms.cache_element} bytes an element")
    if terms.allocator.kind != "exact":
        print(f"the table: as {terms.allocator} allocates them")
    print()
    if len(report.plans) == 1:
        _print_caches(report.rows[0])
        print()
        _print_lines(report, report.rows[0])
    else:
        _print_side_by_side(report)
    for plan, rows in zip(report.plans, report.rows, strict=True):
        _print_measured(plan, rows)
        if report.budget is not None:
            _print_fits(report, plan, rows)


def _place(row: Row) -> tuple[str, str]:
    return str(row["batch"]), format_count(row["context"])


def _print_caches(rows: list[Row]) -> None:
    columns = (">batch", ">context", ">cache bytes", ">", ">without sharing", ">ratio")
    print_table(Table(columns, tuple(_cache_cells(row) for row in rows)))


def _cache_cells(row: Row) -> tuple[str, ...]:
    shared, unshared = row["cache_bytes"], row["cache_bytes_without_sharing"]
    ratio = f"1/{unshared / shared:.1f}" if shared else "-"
    return (*_place(row), f"{shared:,}", format_bytes(shared), format_bytes(unshared), ratio)


def _print_lines(report: Report, rows: list[Row]) -> None:
    """Everything that needs memory, line by line."""
    columns = (">B x T", ">K/V", ">states", ">prefill*", ">RoPE*", ">decode*", ">total")
    keys = ("slot_bytes", "state_bytes", "prefill_peak_bytes", "rope_table_bytes", "decode_peak_bytes", "total_bytes")
    cells = [(" x ".join(_place(row)), *(format_bytes(row[key]) for key in keys)) for row in rows]
    print_table(Table(columns, tuple(cells)))
    print(f"* estimated peaks of activations, {_chunks(report)};")
    print(f"  RoPE tables are part of prefill's; the total has weights, all in {report.terms.dtype}")


def _chunks(report: Report) -> str:
    """How prompts are taken up; by each model where they do it differently."""
    ways = {plan.name: _way(report.terms.chunk_of(plan)) for plan in report.plans}
    if len(set(ways.values())) == 1:
        return ways[report.plans[0].name]
    return ", ".join(f"{name} {way}" for name, way in ways.items())


def _way(chunk: int | None) -> str:
    return f"prefill of {format_count(chunk)} tokens at a time" if chunk else "prefill of whole prompts"


def _print_side_by_side(report: Report) -> None:
    """A column for each model: bytes of its caches, and for all but the first the ratio to the first."""
    columns = (">batch", ">context", *(f">{plan.name}" for plan in report.plans))
    cells = []
    for first, *others in zip(*report.rows, strict=True):
        ratios = [f"{format_bytes(row['cache_bytes'])}  {_ratio(row['ratio_to_first']):>6}" for row in others]
        cells.append((*_place(first), format_bytes(first["cache_bytes"]), *ratios))
    print_table(Table(columns, tuple(cells)))
    print("bytes of the caches, and their ratio to the first model's")
    if report.budget is not None:
        text = f"what fits: weights, caches and estimated activations, {_chunks(report)}"
        print(textwrap.fill(text, 80, subsequent_indent="  "))


def _ratio(value: float | None) -> str:
    if not value:
        return "-"
    return f"x{value:.1f}" if value >= 1 else f"1/{1 / value:.1f}"


def _print_measured(plan: AnyPlan, rows: list[Row]) -> None:
    """What the runtime allocated, beside what was counted or estimated."""
    if "measured_bytes" not in rows[0]:
        return
    lines: list[tuple[str, ...]] = []
    for row in rows:
        found = [("caches", row["cache_bytes"], row["measured_bytes"])]
        if "measured_allocator_bytes" in row:
            found.append(("caches, in blocks", row["cache_bytes"], row["measured_allocator_bytes"]))
        for name in ("prefill", "decode"):
            if f"measured_{name}_peak_bytes" in row:
                planned = row[f"{name}_peak_bytes"]
                found.append((f"{name}", planned, row[f"measured_{name}_peak_bytes"]))
                scratch = row[f"measured_{name}_peak_bytes_with_scratch"]
                found.append((f"{name} + scratch", planned, scratch))
        lines += [
            (*_place(row), name, f"{planned:,}", f"{got:,}", _percent(planned, got)) for name, planned, got in found
        ]
    print(f"\n{plan.name}, measured:")
    print_table(Table((">batch", ">context", "what", ">planned", ">measured", ">gap"), tuple(lines)))
    if "measured_prefill_peak_bytes" in rows[0]:
        print("scratch: what kernels take beside tensors, which depends on the machine and is not estimated")


def _percent(planned: int, measured: int) -> str:
    return "none" if planned == measured else f"{100 * (planned - measured) / measured:+.1f} %" if measured else "-"


def _print_fits(report: Report, plan: AnyPlan, rows: list[Row]) -> None:
    """What fits a device, and what there is no room for beyond it."""
    assert report.budget is not None
    print(f"\n{plan.name} in {format_bytes(report.budget)} ({report.budget:,} bytes):")
    batches = {row["context"]: row for row in rows}
    contexts = {row["batch"]: row for row in rows}
    lines = [
        (f"context {format_count(row['context'])}", _at_most("batch", row["largest_batch"]), row["largest_batch_limit"])
        for row in batches.values()
    ]
    lines += [
        (f"batch {row['batch']}", _at_most("context", row["longest_context"]), row["longest_context_limit"])
        for row in contexts.values()
    ]
    print_table(Table(("at", ">the most that fits", "limited by"), tuple(lines)))


def _at_most(what: str, value: int | None) -> str:
    return f"any {what}" if value is None else f"{what} {value:,}"


def print_latex(report: Report) -> None:
    """The formula of every model, and a table of bytes (booktabs)."""
    for plan in report.plans:
        print(rf"% {plan.name}: B sequences, T tokens of context, e bytes an element")
        print(rf"\[ {formula.latex(plan.cache_terms())} \]")
    names = [_escaped(plan.name) for plan in report.plans]
    if len(names) == 1:
        names.append("without sharing")
        pairs = [[row["cache_bytes"], row["cache_bytes_without_sharing"]] for row in report.rows[0]]
    else:
        pairs = [[row["cache_bytes"] for row in rows] for rows in zip(*report.rows, strict=True)]
    print(rf"\begin{{tabular}}{{{'r' * (2 + len(names))}}}")
    print(r"\toprule")
    print(" & ".join(["batch", "context", *names]) + r" \\")
    print(r"\midrule")
    for row, sizes in zip(report.rows[0], pairs, strict=True):
        print(" & ".join([*_place(row), *map(format_bytes, sizes)]) + r" \\")
    print(r"\bottomrule")
    print(r"\end{tabular}")


def _escaped(name: str) -> str:
    return name.replace("_", r"\_")
