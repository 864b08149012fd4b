"""A figure unfolds to the very steps of its plan, whatever the spec; repeats are found."""

from dataclasses import replace

import pytest
from drawn_specs import HARD, SPECS, hard, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import steps_of, unfolded

import archspec
from archspec.figures.costs import levels_of, store_terms
from archspec.figures.drawing import figure_of
from archspec.figures.folding import Fold, Ref, Run, Token, fold
from archspec.figures.phases import phase_figure
from archspec.formula import total_bytes
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import DTYPE_BYTES, AttentionPlan, RetentionPlan, flattened
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import iterated_specs, specs

ANY_SPEC = st.one_of(specs(max_layers=12), iterated_specs(max_layers=10), level_specs(iterate=True))


def check(plan: AnyPlan) -> None:
    """The figure and the phases say what the plan says."""
    figure = figure_of(plan)
    for tower, level in zip(figure.towers, levels_of(plan), strict=True):
        assert [step for step, _ in steps_of(tower)] == list(flattened(level.body, level.groups))
        for item, layer, number in unfolded(tower):
            mixer = level.layers[layer].mixer
            if item.kind == "write" or mixer is None:
                assert item.reads_idx is None
                continue
            assert item.reads_idx is not None
            store = tower.stores[item.reads_idx]
            match mixer:
                case AttentionPlan():
                    assert store.kind == "cache"
                    assert mixer.slot_idx in store.slots
                    if item.reads_idx == item.writes_idx or store.count == item.count > 1:
                        assert store.slots[number] == mixer.slot_idx
                case RetentionPlan():
                    assert (store.kind, store.slots[number]) == ("state", mixer.state_idx)
        inside = {step.idx for group in level.groups for step in group.steps if step.op == "layer"}
        drawn = [bracket for bracket in tower.brackets if bracket.kind == "iterate"]
        assert bool(drawn) == bool(level.groups)
        shown = {layer for item, layer, _ in unfolded(tower) if item.kind == "layers" and _iterates(tower, item)}
        assert shown == inside
    check_phases(plan)


def _iterates(tower, item) -> bool:
    return any(
        bracket.kind == "iterate" and any(each is item for each in tower.items[bracket.first : bracket.last + 1])
        for bracket in tower.brackets
    )


def check_phases(plan: AnyPlan) -> None:
    prefill, decode = phase_figure(plan, "prefill"), phase_figure(plan, "decode")
    for number, level in enumerate(levels_of(plan)):
        assert [step for step, _ in steps_of(decode.towers[number])] == list(level.decode_steps()[1:-1])
        assert {positions for _, positions in steps_of(decode.towers[number])} == {"one"}
        expected, positions = [], "all"
        for step in level.prefill_steps()[1:-1]:
            if step.op == "last":
                positions = "last"
            else:
                expected += [(inner, positions) for inner in flattened((step,), level.groups)]
        if isinstance(plan, LevelsPlan) and number and (plan.take == "summation" or plan.num_context == 1):
            expected = [(step, "one") for step, _ in expected]
        assert steps_of(prefill.towers[number]) == expected


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_shipped_specs(path):
    check(plan_of(path))


@pytest.mark.parametrize("name", HARD)
def test_hard_specs(name):
    check(hard(name))


@settings(max_examples=150, deadline=None)
@given(ANY_SPEC)
def test_generated_specs(spec):
    check(archspec.plan(spec))


@settings(max_examples=100, deadline=None)
@given(ANY_SPEC, st.integers(1, 1 << 12), st.integers(1, 1 << 40), st.sampled_from(sorted(DTYPE_BYTES)))
def test_stores_cost_what_the_plan_costs(spec, batch, context, dtype):
    plan = archspec.plan(spec)
    context = min(context, plan.max_context or context)
    terms = [term for tower in store_terms(plan, figure_of(plan)) for store in tower for term in store]
    assert total_bytes(terms, batch, context, DTYPE_BYTES[dtype]) == plan.cache_bytes(batch, context, dtype)


def rows(plan: AnyPlan) -> list[tuple[str, int, str]]:
    (tower,) = figure_of(plan).towers
    return [(item.word, item.count, item.window) for item in tower.items]


def repeats(plan: AnyPlan) -> list[tuple[int, int, int]]:
    (tower,) = figure_of(plan).towers
    return [(each.first, each.last, each.copies) for each in tower.brackets if each.kind == "repeat"]


def test_local_and_global_layers_fold():
    plan = hard("local_global")
    assert rows(plan) == [("attend", 5, "512"), ("attend", 1, "all")]
    assert repeats(plan) == [(0, 1, 16)]


def test_pairs_fold_and_the_exit_stands_in_the_last_of_them():
    plan = plan_of(next(path for path in SPECS if path.stem == "cla2_1b"))
    (tower,) = figure_of(plan).towers
    assert [(item.word, item.layers) for item in tower.items] == [
        ("K/V", (1,)),
        ("attend", (1,)),
        ("cross-attend", (2,)),
    ]
    assert tower.exit is not None
    assert (tower.exit.before, tower.exit.after, tower.exit.copies) == (1, "cache@19", 10)
    assert tower.stores[0].label == "cache@1-19 step 2"
    assert tower.stores[0].name == "cache@1"


def test_a_hundred_layers_stay_few_rows():
    plan = hard("hybrid")
    assert rows(plan) == [
        ("retention", 1, ""),
        ("attend", 1, "64"),
        ("projection", 1, ""),
        ("cross-attend", 50, "all"),
    ]
    assert repeats(plan) == [(0, 1, 25)]


def test_a_group_in_every_pair_folds_with_its_pair():
    (tower,) = figure_of(hard("iterated_pairs")).towers
    assert {(each.kind, each.copies) for each in tower.brackets} == {("repeat", 6), ("iterate", 4)}


def test_a_layer_that_others_read_stands_apart():
    assert rows(hard("front"))[:2] == [("attend", 39, "all"), ("K/V", 1, "")]


def test_equal_looking_tokens_with_different_references_do_not_fold():
    alike = Token("reader")
    apart = [Token("reader", (Ref("read", n % 3, 0, 9),)) for n in range(6)]
    assert fold([alike] * 6) == [Fold((Run(0, 6),))]
    assert fold(apart) == [Fold((Run(0, 1), Run(1, 1), Run(2, 1)), 2)]
    spanning = [Token("a", (Ref("read", n, n, n + 1),)) for n in range(4)]  # each needs the next copy
    assert fold(spanning) == [Fold((Run(n, 1),)) for n in range(4)]


def test_rows_that_differ_in_one_setting_say_so():
    plan = hard("long_blocks")
    assert isinstance(plan, LevelsPlan)
    notes = [item.notes for item in figure_of(plan).towers[1].items if item.kind == "layers"]
    assert notes == [("LayerNorm",), ("RMSNorm",)]
    changed = replace(plan.tokens.layers[0], residual="parallel")
    tokens = replace(plan.tokens, layers=(changed, *plan.tokens.layers[1:]))
    assert figure_of(replace(plan, tokens=tokens)).towers[1].items[0].notes[-1] == "parallel residual"
