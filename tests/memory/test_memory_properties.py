"""Properties of cache bytes over 2,000 generated specs: formula = plan = allocation, monotone, no dearer for sharing."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archspec
from archspec import formula
from archspec.formula import CacheTerm, Length
from archspec.graph.layer_graph import LayerGraph, LevelsGraph
from archspec.graph.lower import lower
from archspec.graph.unshare import without_sharing
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.memory.allocators import Allocator, slot_bytes, state_bytes
from archspec.plan import CACHE_DTYPE_BYTES, DTYPE_BYTES, CacheSlot
from archspec.planner import make_levels_plan, make_plan
from archspec.runtime.build import DTYPES, cache_of
from archspec.spec.levels import LevelsSpec, block_view, token_view
from archspec.spec.model import CacheRef, CacheStatement, LayersStatement, ModelSpec
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import iterated_specs, specs

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 3000), st.sampled_from(sorted(DTYPE_BYTES)))
META = torch.device("meta")


def assert_bytes(spec: ModelSpec, batch: int, context: int, dtype: str) -> None:
    graph, plan = planned(spec)
    context = within(plan, context)
    counted = plan.cache_bytes(batch, context, dtype)
    assert closed_form(plan, batch, context, dtype) == counted
    assert cache_of(plan, batch, context, DTYPES[dtype], META).nbytes == counted
    assert slot_bytes(plan, batch, context, DTYPE_BYTES[dtype]) + state_bytes(plan, batch) == counted
    assert plan.cache_bytes(batch + 1, context, dtype) * batch == counted * (batch + 1)
    assert plan.cache_bytes(batch, context + 1, dtype) >= counted
    assert plan.cache_bytes(batch, 2 * context, dtype) <= 2 * counted
    _, unshared = planned(without_sharing(spec, graph))
    assert counted - unread_bytes(plan, batch, context, dtype) <= unshared.cache_bytes(batch, context, dtype)


def within(plan: AnyPlan, context: int) -> int:
    """A context of which a model with learned positions has twice as many."""
    return context if plan.max_context is None else min(context, plan.max_context // 2)


def planned(spec: ModelSpec) -> tuple[LayerGraph | LevelsGraph, AnyPlan]:
    """Without the way through text, which would take most of the time."""
    if isinstance(spec, LevelsSpec):
        blocks, tokens = lower(block_view(spec)), lower(token_view(spec))
        return LevelsGraph(blocks, tokens), make_levels_plan(spec, blocks, tokens)
    graph = lower(spec)
    return graph, make_plan(spec, graph)


def closed_form(plan: AnyPlan, batch: int, context: int, dtype: str) -> int:
    expression = formula.expression(plan.cache_terms())
    values = {"B": batch, "T": context, "e": DTYPE_BYTES[dtype]}
    return int(expression.subs({symbol: values[symbol.name] for symbol in expression.free_symbols}))


def unread_bytes(plan: AnyPlan, batch: int, context: int, dtype: str) -> int:
    """Of positions that a projection keeps though no reader looks back so far."""
    if isinstance(plan, LevelsPlan):
        blocks = unread_bytes(plan.blocks, batch, plan.num_blocks(context), dtype)
        return blocks + unread_bytes(plan.tokens, batch, plan.block_positions, dtype)
    return sum(
        batch * slot.elements_per_token * DTYPE_BYTES[dtype] * (slot.cache_len(context) - seen(plan, slot, context))
        for slot in plan.slots
        if slot.projected
    )


def seen(plan: AnyPlan, slot: CacheSlot, context: int) -> int:
    mixers = [plan.layers[reader].mixer for reader in slot.readers]
    reaches = [None if mixer.window is None else mixer.window + mixer.sinks for mixer in mixers]
    return max((Length(limit=reach).of(context) for reach in reaches), default=0)


@settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(max_layers=3), SIZES)
def test_shallow_stacks(spec, sizes):
    assert_bytes(spec, *sizes)


@settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), SIZES)
def test_stacks(spec, sizes):
    assert_bytes(spec, *sizes)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(iterated_specs(), SIZES)
def test_iterated(spec, sizes):
    assert_bytes(spec, *sizes)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(level_specs(), SIZES)
def test_levels(spec, sizes):
    assert_bytes(spec, *sizes)


@settings(max_examples=60, deadline=None)
@given(specs() | level_specs(), st.integers(1, 3), st.integers(1, 200), st.sampled_from(sorted(DTYPE_BYTES)))
def test_real_buffers(spec, batch, context, dtype):
    plan = archspec.plan(spec)
    context = within(plan, context)
    cache = cache_of(plan, batch, context, DTYPES[dtype])
    stacks = [cache.blocks, cache.tokens] if isinstance(plan, LevelsPlan) else [cache]
    buffers = [buffer for stack in stacks for buffer in (*stack.storage.slots, *stack.storage.states)]
    assert sum(buffer.untyped_storage().nbytes() for buffer in buffers) == plan.cache_bytes(batch, context, dtype)


@settings(max_examples=100, deadline=None)
@given(specs(), SIZES)
def test_names_change_nothing(spec, sizes):
    renamed = spec.model_copy(
        update={"name": "other", "statements": tuple(_renamed(statement) for statement in spec.statements)}
    )
    before, after = archspec.plan(spec), archspec.plan(renamed)
    batch, context, dtype = sizes
    context = within(before, context)
    assert after.cache_bytes(batch, context, dtype) == before.cache_bytes(batch, context, dtype)
    assert after.cache_formula() == before.cache_formula()


def _renamed(statement):
    if isinstance(statement, CacheStatement) and statement.name:
        return statement.model_copy(update={"name": f"other_{statement.name}"})
    if isinstance(statement, LayersStatement) and statement.source is not None and statement.source.name:
        return statement.model_copy(update={"source": CacheRef(name=f"other_{statement.source.name}")})
    return statement


@settings(max_examples=150, deadline=None)
@given(specs() | level_specs(), SIZES, st.integers(1, 64))
def test_allocators(spec, sizes, block):
    """In blocks of one position nothing is wasted; larger blocks round up; a dynamic cache keeps one position less."""
    plan, (batch, context, dtype) = archspec.plan(spec), sizes
    context = within(plan, context)
    taken = {
        name: slot_bytes(plan, batch, context, DTYPE_BYTES[dtype], allocator)
        for name, allocator in {
            "exact": Allocator(),
            "static": Allocator("hf-static"),
            "dynamic": Allocator("hf-dynamic"),
            "ones": Allocator("paged", 1),
            "paged": Allocator("paged", block),
            "coarser": Allocator("paged", 2 * block),
        }.items()
    }
    assert taken["static"] == taken["exact"] == taken["ones"] <= taken["paged"] <= taken["coarser"]
    if all((slot.window or 2) > 1 or slot.sinks for slot in plan.slots):
        assert taken["dynamic"] <= taken["exact"]


@pytest.mark.parametrize(
    ("terms", "text", "latex"),
    [
        ([], "0", "0"),
        ([CacheTerm(2048, Length()), CacheTerm(2048, Length())], "B*e*(4096*T)", "4096 B e T"),
        (
            [CacheTerm(8, Length(limit=1024)), CacheTerm(4, Length()), CacheTerm(8, Length(limit=64))],
            "B*e*(4*T + 8*min(T, 1024) + 8*min(T, 64))",
            r"B e \left(4 T + 8 \min\left(T, 1024\right) + 8 \min\left(T, 64\right)\right)",
        ),
        (
            [CacheTerm(16, Length(4)), CacheTerm(3, Length(None, 5)), CacheTerm(1, Length(None, 2), 4)],
            "B*e*(16*ceil(T/4) + 15) + 4*B*2",
            r"B e \left(16 \left\lceil T / 4 \right\rceil + 15\right) + 4 \cdot 2 B",
        ),
        ([CacheTerm(16, Length(limit=1))], "B*e*16", "16 B e"),
        ([CacheTerm(5111808, Length(None, 1), 4)], "4*B*5111808", r"4 \cdot 5111808 B"),
        ([CacheTerm(2, Length(3, 5)), CacheTerm(2, Length(limit=9))], None, None),
    ],
)
def test_how_formulas_are_written(terms, text, latex):
    if text is None:
        assert formula.text(terms) == "B*e*(2*min(ceil(T/3), 5) + 2*min(T, 9))"
    else:
        assert (formula.text(terms), formula.latex(terms)) == (text, latex)


def test_types_of_one_byte_are_planned_with():
    plan = archspec.plan(archspec.parse("specs/nano/nano_yoco.arch"))
    assert CACHE_DTYPE_BYTES["int8"] == CACHE_DTYPE_BYTES["float8"] == 1
    assert 2 * plan.cache_bytes(1, 100, "int8") == plan.cache_bytes(1, 100, "bfloat16")
    assert replace(plan, slots=()).cache_formula() == "0"
