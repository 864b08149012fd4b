"""Rows of `archspec memory`: plain values that every output format shows."""

from dataclasses import dataclass
from typing import Any

from archspec.levels_plan import AnyPlan
from archspec.memory.account import Account, Terms, account
from archspec.memory.allocators import slot_bytes, state_bytes
from archspec.memory.fitting import largest_batch, longest_context

Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model to count, and the same one without sharing to compare it with."""

    plan: AnyPlan
    unshared: AnyPlan


def make_rows(subject: Subject, batches: tuple[int, ...], contexts: tuple[int, ...], terms: Terms) -> list[Row]:
    """One row for each batch and context."""
    return [make_row(subject, account(subject.plan, b, c, terms), terms) for b in batches for c in contexts]


def make_row(subject: Subject, lines: Account, terms: Terms) -> Row:
    """The lines of an account and what the caches would be without sharing."""
    return {
        "batch": lines.batch,
        "context": lines.context,
        "cache_bytes": lines.caches,
        "cache_bytes_without_sharing": cache_bytes(subject.unshared, lines.batch, lines.context, terms),
        "slot_bytes": lines.slots,
        "state_bytes": lines.states,
        "weight_bytes": lines.weights,
        "rope_table_bytes": lines.rope_tables,
        "prefill_peak_bytes": lines.prefill_peak,
        "decode_peak_bytes": lines.decode_peak,
        "total_bytes": lines.total,
    }


def cache_bytes(plan: AnyPlan, batch: int, context: int, terms: Terms) -> int:
    """Bytes of slots and states under an allocator."""
    return slot_bytes(plan, batch, context, terms.cache_element, terms.allocator) + state_bytes(plan, batch)


def add_ratios(rows_of_models: list[list[Row]]) -> None:
    """`ratio_to_first`: cache bytes by those of the first model's row; None where that has no cache."""
    for rows in rows_of_models:
        for row, first in zip(rows, rows_of_models[0], strict=True):
            base = first["cache_bytes"]
            row["ratio_to_first"] = row["cache_bytes"] / base if base else None


def add_fits(rows: list[Row], plan: AnyPlan, budget: int, terms: Terms) -> None:
    """What fits `budget` bytes: the largest batch at the row's context, the longest context at its batch."""
    batches = {context: largest_batch(plan, context, budget, terms) for context in {row["context"] for row in rows}}
    contexts = {batch: longest_context(plan, batch, budget, terms) for batch in {row["batch"] for row in rows}}
    for row in rows:
        batch, context = batches[row["context"]], contexts[row["batch"]]
        row |= {"largest_batch": batch.value, "largest_batch_limit": batch.limit}
        row |= {"longest_context": context.value, "longest_context_limit": context.limit}
