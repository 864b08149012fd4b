"""What differs in meaning between two models: `diff_plans(a, b)`.

Contract: only plans are compared, so that what is spelt differently is no difference: order of statements, split
ranges, defaults in the header or written out, names of the model and of its caches. Every field of a plan that decides
what is computed takes part, those that this module has no words for included.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import Plan
from archspec.plan_facts import READ_BY, Fact, Facts, StackFacts, joined, level_facts, stack_facts
from archspec.spec.fold import folded_ranges

Layers = tuple[int, ...]


@dataclass(frozen=True)
class Change:
    """One thing that differs; `a` and `b` in words, None where there is nothing of the kind."""

    place: str
    """`model`, `layers 14-26`, `cache@13`, `prefill`; of a level with its name before it: `blocks: layers 1-3`."""
    what: str
    a: str | None
    b: str | None
    layers: Layers = ()
    """1-based numbers, where the change is one of layers or of their own keys and values."""


@dataclass(frozen=True)
class CacheBytes:
    """Bytes of all caches and states for one sequence of `context` tokens."""

    context: int
    a: int
    b: int


@dataclass(frozen=True)
class PlanDiff:
    """Everything that differs between models `a` and `b`."""

    a: AnyPlan
    b: AnyPlan
    changes: tuple[Change, ...]

    @property
    def same(self) -> bool:
        return not self.changes

    def cache_bytes(self, contexts: Sequence[int], dtype: str) -> list[CacheBytes]:
        """What the caches cost on either side, shared or not; without contexts that a side has no positions for."""
        limits = [plan.max_context for plan in (self.a, self.b) if plan.max_context is not None]
        fit = [n for n in contexts if all(n <= limit for limit in limits)]
        return [CacheBytes(n, self.a.cache_bytes(1, n, dtype), self.b.cache_bytes(1, n, dtype)) for n in fit]


def diff_plans(a: AnyPlan, b: AnyPlan) -> PlanDiff:
    """Compare two models, each of one stack or of two levels."""
    return PlanDiff(a, b, tuple(_changes(a, b)))


def _changes(a: AnyPlan, b: AnyPlan) -> Iterator[Change]:
    if isinstance(a, Plan) and isinstance(b, Plan):
        yield from _stack_changes(a, b, "")
    elif isinstance(a, LevelsPlan) and isinstance(b, LevelsPlan):
        yield from _fact_changes("model", level_facts(a), level_facts(b))
        for (word, stack_a), (_, stack_b) in zip(a.levels(), b.levels(), strict=True):
            yield from _stack_changes(stack_a, stack_b, f"{word}: ")
    else:
        yield Change("model", "stacks", _shape(a), _shape(b))
        common = ("vocab_size", "tied_embeddings")
        for name in common:
            if getattr(a, name) != getattr(b, name):
                yield Change("model", name.replace("_", " "), str(getattr(a, name)), str(getattr(b, name)))


def _shape(plan: AnyPlan) -> str:
    if isinstance(plan, Plan):
        return f"one of {len(plan.layers)} layers"
    blocks, tokens = len(plan.blocks.layers), len(plan.tokens.layers)
    return f"{blocks} layers over blocks of {plan.block_length} tokens, {tokens} over the tokens of a block"


def _stack_changes(a: Plan, b: Plan, prefix: str) -> Iterator[Change]:
    facts_a, facts_b = stack_facts(a, b), stack_facts(b, a)
    yield from _fact_changes(f"{prefix}model", facts_a.header, facts_b.header)
    yield from _folded(_of_layers(facts_a, facts_b), f"{prefix}layer")
    yield from _folded(_of_own_caches(facts_a, facts_b), f"{prefix}K/V of layer")
    for label in dict.fromkeys([*facts_a.caches, *facts_b.caches]):
        yield from _cache_changes(f"{prefix}{label}", facts_a.caches.get(label), facts_b.caches.get(label))
    yield from _fact_changes(f"{prefix}prefill", facts_a.prefill, facts_b.prefill)


def _cache_changes(place: str, a: Facts | None, b: Facts | None) -> Iterator[Change]:
    """Of one cache; one that is new or gone is told in one line."""
    if a is None or b is None:
        yield Change(place, "cache", _text(_joined(a)), _text(_joined(b)))
    else:
        yield from _fact_changes(place, a, b)


def _fact_changes(place: str, a: Facts, b: Facts) -> Iterator[Change]:
    for what, fact_a, fact_b in _differing(a, b):
        yield Change(place, what, _text(fact_a), _text(fact_b))


def _differing(a: Facts, b: Facts) -> Iterator[tuple[str, Fact | None, Fact | None]]:
    for what in dict.fromkeys([*a, *b]):
        pair = a.get(what), b.get(what)
        if pair[0] != pair[1]:
            yield what, *pair


Found = tuple[int, str, Fact | None, Fact | None]
"""Layer, what, and both sides."""
_Key = tuple[str, str | None, str | None]


def _of_layers(a: StackFacts, b: StackFacts) -> Iterator[Found]:
    """Layer by layer; one that only one side has is told in one line."""
    for idx in range(max(len(a.layers), len(b.layers))):
        if idx < min(len(a.layers), len(b.layers)):
            yield from ((idx, *each) for each in _differing(a.layers[idx], b.layers[idx]))
        else:
            one, other = (facts.layers[idx] if idx < len(facts.layers) else None for facts in (a, b))
            yield idx, "layer", _joined(one), _joined(other)


def _of_own_caches(a: StackFacts, b: StackFacts) -> Iterator[Found]:
    """Who reads a layer's own K/V; heads and windows are among the facts of the layer."""
    for idx in range(min(len(a.layers), len(b.layers))):
        one, other = a.own_caches.get(idx), b.own_caches.get(idx)
        if one is not None and other is not None:
            if one[READ_BY] != other[READ_BY]:
                yield idx, READ_BY, one[READ_BY], other[READ_BY]
        elif one is not None or other is not None:
            yield idx, "cache", _joined(one), _joined(other)


def _folded(found: Iterator[Found], noun: str) -> Iterator[Change]:
    """One change for all layers that share it; also for those that share it up to their own number."""
    exact: dict[_Key, list[Found]] = {}
    for each in found:
        exact.setdefault((each[1], _text(each[2]), _text(each[3])), []).append(each)
    changes: dict[_Key, list[int]] = {}
    texts: dict[_Key, _Key] = {}
    for written, group in exact.items():
        _, what, a, b = group[0]
        alone = len(group) == 1
        key = (what, _text(a, alone), _text(b, alone))
        texts[key] = key if key in changes else written
        changes.setdefault(key, []).extend(each[0] for each in group)
    for key, layers in sorted(changes.items(), key=lambda item: min(item[1])):
        numbers = sorted(idx + 1 for idx in layers)
        ranges = ", ".join(map(str, folded_ranges(numbers)))
        yield Change(f"{noun}{'s' if len(numbers) > 1 else ''} {ranges}", *texts[key], tuple(numbers))


def _joined(facts: Facts | None) -> Fact | None:
    return None if facts is None else joined(facts)


def _text(fact: Fact | None, relative: bool = False) -> str | None:
    if fact is None:
        return None
    return fact.relative or fact.text if relative else fact.text


def as_json(diff: PlanDiff, contexts: Sequence[int], dtype: str) -> Mapping[str, object]:
    """A difference as plain values."""
    return {
        "same": diff.same,
        "a": {"model": diff.a.name, "num_parameters": diff.a.num_parameters()},
        "b": {"model": diff.b.name, "num_parameters": diff.b.num_parameters()},
        "changes": [
            {"place": each.place, "what": each.what, "a": each.a, "b": each.b, "layers": list(each.layers)}
            for each in diff.changes
        ],
        "dtype": dtype,
        "cache_bytes": [
            {"context": each.context, "a": each.a, "b": each.b} for each in diff.cache_bytes(contexts, dtype)
        ],
    }
