"""The closed form of the cache bytes as terms that a page can compute with, exactly.

Bytes of B sequences of T tokens with e bytes an element: B * (e * sum(elements * positions(T)) + states). The positions
of a term are `fixed`, or min(ceil(T / per), cap).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import CacheSlot, Plan, StateSlot


@dataclass(frozen=True)
class Term:
    """Elements of keys and values for each of a number of positions."""

    elements: int
    per: int = 1
    cap: int | None = None
    fixed: int | None = None

    def positions(self, context: int) -> int:
        if self.fixed is not None:
            return self.fixed
        blocks = -(-context // self.per)
        return blocks if self.cap is None else min(blocks, self.cap)


@dataclass(frozen=True)
class Cost:
    """The terms of some slots and the bytes of some states."""

    terms: tuple[Term, ...]
    states: int

    def cache_bytes(self, batch: int, context: int, element_bytes: int) -> int:
        elements = sum(term.elements * term.positions(context) for term in self.terms)
        return batch * (element_bytes * elements + self.states)

    def to_json(self) -> dict[str, Any]:
        return {"terms": [asdict(term) for term in self.terms], "states": self.states}


def plan_cost(plan: AnyPlan) -> Cost:
    """The cost of a whole plan."""
    costs = [slots_cost(plan, place, level.slots, level.states) for place, level in enumerate(levels_of(plan))]
    return _joined([term for cost in costs for term in cost.terms], sum(cost.states for cost in costs))


def levels_of(plan: AnyPlan) -> tuple[Plan, ...]:
    """The stacks of a plan, in the order of a figure's towers."""
    return tuple(level for _, level in plan.levels()) if isinstance(plan, LevelsPlan) else (plan,)


def slots_cost(plan: AnyPlan, level: int, slots: Iterable[CacheSlot], states: Iterable[StateSlot]) -> Cost:
    """The cost of some slots and states of one level of a plan."""
    terms = []
    for slot in slots:
        cap = None if slot.window is None else slot.sinks + slot.window
        if not isinstance(plan, LevelsPlan):
            terms.append(Term(slot.elements_per_token, cap=cap))
        elif level == 0:
            terms.append(Term(slot.elements_per_token, per=plan.block_length, cap=cap))
        else:
            terms.append(Term(slot.elements_per_token, fixed=slot.cache_len(plan.block_positions)))
    return _joined(terms, sum(state.nbytes for state in states))


def _joined(terms: Iterable[Term], states: int) -> Cost:
    """Terms over equally many positions as one."""
    elements: dict[tuple[int, int | None, int | None], int] = {}
    for term in terms:
        key = (term.per, term.cap, term.fixed)
        elements[key] = elements.get(key, 0) + term.elements
    return Cost(tuple(Term(count, *key) for key, count in elements.items()), states)
