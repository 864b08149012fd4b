"""The terms of the cache bytes, store by store, as values that a page can compute with."""

from collections.abc import Iterable
from typing import Any

from archspec.figures.model import Figure
from archspec.formula import CacheTerm, Length
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import Plan


def levels_of(plan: AnyPlan) -> tuple[Plan, ...]:
    """The stacks of a plan, in the order of a figure's towers."""
    return tuple(level for _, level in plan.levels()) if isinstance(plan, LevelsPlan) else (plan,)


def store_terms(plan: AnyPlan, figure: Figure) -> list[list[list[CacheTerm]]]:
    """Tower -> store -> its terms, like ones joined: together those of the plan."""
    terms = list(plan.cache_terms())  # of a level: every slot, then every state
    found, start = [], 0
    for tower, level in zip(figure.towers, levels_of(plan), strict=True):
        places = {"cache": start, "state": start + len(level.slots)}
        found.append([_joined(terms[places[store.kind] + idx] for idx in store.slots) for store in tower.stores])
        start += len(level.slots) + len(level.states)
    return found


def terms_json(terms: Iterable[CacheTerm]) -> list[dict[str, Any]]:
    """Plain values. Bytes of a term: batch * elements * positions * (element_bytes, or else those of the cache)."""
    return [
        {
            "elements": term.elements,
            "tokens_each": term.length.tokens_each,
            "limit": term.length.limit,
            "element_bytes": term.element_bytes,
        }
        for term in _joined(terms)
    ]


def _joined(terms: Iterable[CacheTerm]) -> list[CacheTerm]:
    elements: dict[tuple[Length, int | None], int] = {}
    for term in terms:
        key = (term.length, term.element_bytes)
        elements[key] = elements.get(key, 0) + term.elements
    return [CacheTerm(count, length, size) for (length, size), count in elements.items()]
