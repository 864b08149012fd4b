"""What fits a device: the largest batch at a context, the longest context at a batch."""

from collections.abc import Callable
from dataclasses import dataclass

from archspec.levels_plan import AnyPlan
from archspec.memory.account import Account, Terms, account

LIMIT = 1 << 40
"""What fits this often fits always."""


@dataclass(frozen=True)
class Fit:
    """The largest number that fits, 0 if none does, and what the next one lacks room for."""

    value: int | None
    """None: as many as one likes, since nothing that is needed grows."""
    limit: str
    """`weights`, `caches`, or `activations`: the largest of what the next larger number would need; `positions`, of
    which there are no more; or `nothing`."""


def largest_batch(plan: AnyPlan, context: int, budget: int, terms: Terms) -> Fit:
    """Sequences of `context` tokens whose weights, caches and activations fit `budget` bytes."""
    return _largest(lambda batch: account(plan, batch, context, terms), budget)


def longest_context(plan: AnyPlan, batch: int, budget: int, terms: Terms) -> Fit:
    """Tokens of each of `batch` sequences that fit `budget` bytes."""
    limit = plan.max_context
    if limit is not None and account(plan, batch, limit, terms).total <= budget:
        return Fit(limit, "positions")
    return _largest(lambda context: account(plan, batch, context, terms), budget)


def _largest(need: Callable[[int], Account], budget: int) -> Fit:
    """By doubling, then halving: needs grow with the number."""
    above = 1
    while above < LIMIT and need(above).total <= budget:
        above *= 2
    if above >= LIMIT:
        return Fit(None, "nothing")
    fits = above // 2
    while above - fits > 1:
        middle = (fits + above) // 2
        if need(middle).total <= budget:
            fits = middle
        else:
            above = middle
    return Fit(fits, _limit(need(fits + 1), budget))


def _limit(next_: Account, budget: int) -> str:
    if next_.weights > budget:
        return "weights"
    peak = max(next_.prefill_peak, next_.decode_peak)
    parts = {"weights": next_.weights, "caches": next_.caches, "activations": peak}
    return max(parts, key=lambda part: parts[part])
