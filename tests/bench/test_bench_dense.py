"""The dense model of a spec: valid, with as many layers, without a cache that two layers read."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

import archspec
from archspec.driver import analyse_spec, analyse_text
from archspec.graph.dense import dense
from archspec.levels_plan import AnyPlan
from archspec.plan import AttentionPlan, Plan
from archspec.spec.levels import LevelsSpec
from archspec.spec.model import ModelSpec
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import MAX_CONTEXT, iterated_specs, specs

SPECS = Path(__file__).parents[2] / "specs"


def dense_plan(spec: ModelSpec) -> Plan:
    analysis = analyse_spec(spec)
    assert analysis.graph is not None
    plan = archspec.plan(dense(spec, analysis.graph))  # raises where it is not valid
    assert isinstance(plan, Plan)
    return plan


def read_bytes(plan: AnyPlan) -> int:
    """Bytes of the caches that some layer reads: a projection that nobody reads is no layer's."""
    element = 4
    stacks = [plan] if isinstance(plan, Plan) else [plan.blocks, plan.tokens]
    slots = [slot for stack in stacks for slot in stack.slots if slot.readers]
    states = sum(state.elements for stack in stacks for state in stack.states)
    return sum(slot.elements_per_token * slot.cache_len(MAX_CONTEXT) for slot in slots) * element + states * element


def assert_dense(plan: Plan) -> None:
    assert not plan.states
    assert not plan.groups
    assert all(slot.readers == (slot.writer_idx,) and slot.window is None for slot in plan.slots)
    mixers = [layer.mixer for layer in plan.layers if layer.mixer is not None]
    assert all(isinstance(mixer, AttentionPlan) and mixer.owns_kv and mixer.sees_self for mixer in mixers)


@settings(max_examples=50)
@given(specs() | iterated_specs())
def test_dense_models_of_one_level(spec: ModelSpec) -> None:
    plan, original = dense_plan(spec), archspec.plan(spec)
    assert_dense(plan)
    assert len(plan.layers) == len(original.layers)
    assert plan.cache_bytes(1, MAX_CONTEXT, "float32") >= read_bytes(original)
    assert [layer.ffn for layer in plan.layers] == [layer.ffn for layer in original.layers]
    again = dense_plan(dense(spec, analyse_spec(spec).graph))
    assert replace(again, name="") == replace(plan, name="")


@settings(max_examples=50)
@given(level_specs())
def test_dense_models_of_two_levels(spec: LevelsSpec) -> None:
    plan = dense_plan(spec)
    assert_dense(plan)
    assert plan.hidden_size == max(spec.blocks.hidden_size, spec.tokens.hidden_size)
    assert plan.vocab_size == spec.vocab_size
    if spec.blocks.hidden_size == spec.tokens.hidden_size:
        original = archspec.plan(spec)
        assert [layer.ffn for layer in plan.layers] == [layer.ffn for layer in original.layers]


def test_a_dense_model_is_its_own() -> None:
    spec = archspec.parse(SPECS / "nano/nano_llama.arch")
    assert replace(dense_plan(spec), name="") == replace(archspec.plan(spec), name="")


@pytest.mark.parametrize("name", ["yoco_110m", "block_110m", "lckv_110m_w2", "lckv_110m_w0"])
def test_the_benchmarks_share_one_dense_model(name: str) -> None:
    """So that one reference stands for all of them."""
    plan = dense_plan(archspec.parse(SPECS / f"bench/{name}.arch"))
    assert replace(plan, name="") == replace(archspec.plan(archspec.parse(SPECS / "bench/llama_110m.arch")), name="")


def test_levels_of_two_widths_become_layers_of_the_wider() -> None:
    spec = archspec.parse(SPECS / "block/block_megabyte_b4_85.arch")
    assert isinstance(spec, LevelsSpec)
    plan, original = dense_plan(spec), archspec.plan(spec)
    assert plan.hidden_size == spec.blocks.hidden_size > spec.tokens.hidden_size

    def in_layers(made: AnyPlan) -> int:
        shapes = [shape for name, shape in made.parameter_shapes() if "layers" in name and len(shape) == 2]
        return sum(rows * columns for rows, columns in shapes)

    one = in_layers(plan) / len(plan.layers)
    assert abs(in_layers(plan) - in_layers(original)) <= one / 2


def test_readers_take_over_what_the_cache_had() -> None:
    text = """model m {
      layers 4, width 32, vocab 10, ffn swiglu(48)
      layers 1-2 attend, heads 4 x 8, window 4, kv heads 2, rope 100
      cache@2: kv heads 1 x 8, rope 500
      layers 3-4 cross-attend to cache@2, heads 3 x 8
    }"""
    analysis = analyse_text(text)
    assert analysis.ok
    plan = archspec.plan(dense(analysis.elaborated.spec, analysis.graph))
    assert [slot.num_kv_heads for slot in plan.slots] == [2, 2, 1, 1]
    assert [slot.rope.theta for slot in plan.slots] == [100, 100, 500, 500]
    assert [layer.mixer.num_heads for layer in plan.layers] == [4, 4, 3, 3]
