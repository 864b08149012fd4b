"""One graph for each kind of unit, for every position and length; equal to eager."""

import copy

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens
from marks import slowly
from torch._dynamo.utils import counters

import archspec


@pytest.fixture(params=["eager", *slowly("aot_eager")])
def compiler(request):
    return request.param


def models(name, **options):
    plan = {**hand_plans.ALL, **hand_plans.LATE}[name]()
    return sharp_model(plan, compile=True, **options), sharp_model(plan, **options)


def assert_decodes_alike(compiled, eager, ids, context, begin=0, atol=2e-4):
    """Up to the rounding of float32 itself, which sharp weights and iteration amplify from token to token."""
    models = (compiled, eager, copy.deepcopy(eager).double())
    caches = [model.new_cache(ids.shape[0], context) for model in models]
    if begin:
        for model, cache in zip(models, caches, strict=True):
            model.prefill(ids[:, :begin], cache)
    for t in range(begin, ids.shape[1]):
        found, expected, exact = (m.decode(ids[:, t], c) for m, c in zip(models, caches, strict=True))
        rounding = (expected - exact).abs().max().item()
        torch.testing.assert_close(found, expected, atol=atol + 4 * rounding, rtol=0)


@pytest.mark.parametrize("name", ["shared", "mixed", "families", *slowly("capped", "late_twice")])
def test_one_graph_for_every_position(name, graphs):
    compiled, eager = models(name)
    assert_decodes_alike(compiled, eager, tokens(2, 70), context=70)
    seen = graphs()
    # Other contexts, other batches, and views of another length: 128 and 256 of 300 positions.
    assert_decodes_alike(compiled, eager, tokens(3, 140), context=300)
    assert graphs() == seen


def test_one_graph_from_position_one(graphs):
    compiled, eager = models("windowed")
    assert_decodes_alike(compiled, eager, tokens(2, 66), context=200, begin=1)
    assert graphs() > 0


@pytest.mark.parametrize("phase", ["decode", *slowly("forward", "loss")])
def test_graphs_do_not_grow_with_depth(phase, graphs):
    counts = []
    for depth in (2, 7):
        text = f"""model m {{
          layers {2 * depth}, width 32, heads 4 x 8, ffn swiglu(40), vocab 61, rope 10000, norm rms(1e-5)
          layers 1-{depth} attend, window 5
          cache@{depth}: kv heads 2 x 8
          layers {depth + 1}-{2 * depth} cross-attend to cache@{depth}
        }}"""
        model = archspec.compile(archspec.parse_spec_text(text))
        before = graphs()
        match phase:
            case "decode":
                model.decode(tokens(2, 1)[:, 0] % 61, model.new_cache(2, 8))
            case "forward":
                model(tokens(2, 9) % 61)
            case "loss":
                model.loss(tokens(2, 9) % 61).backward()
        counts.append(graphs() - before)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("name", ["shared", "families", *slowly("mixed", "sunk", "late", "late_twice")])
def test_one_graph_for_every_prompt(name, graphs):
    compiled, eager = models(name)
    ids, seen = tokens(2, 260), 0
    for chunks, context in ([[5, 2, 3, 40], 50], [[9, 2, 130], 256], [[200, 60], 260]):
        caches = [model.new_cache(2, context) for model in (compiled, eager)]
        end = 0
        for size in chunks:
            begin, end = end, end + size
            pairs = zip((compiled, eager), caches, strict=True)
            found, expected = (model.prefill(ids[:, begin:end], cache) for model, cache in pairs)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        seen = seen or graphs()
    assert graphs() == seen


@pytest.mark.parametrize("name", ["mixed", *slowly("shared", "sunk")])
def test_one_graph_for_every_chunk(name, graphs):
    compiled, eager = models(name)
    compiled.prefill_chunk, seen = 32, 0
    for length, context in ((70, 80), (139, 300), (96, 96), (66, 70)):
        ids = tokens(2, length)
        caches = [model.new_cache(2, context) for model in (compiled, eager)]
        pairs = zip((compiled, eager), caches, strict=True)
        found, expected = (model.prefill(ids, cache) for model, cache in pairs)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        seen = seen or graphs()
    assert graphs() == seen


def test_one_graph_for_teacher_forcing(graphs):
    compiled, eager = models("mixed")
    ids, seen = tokens(2, 150), 0
    for length in (5, 7, 150, 64):
        with torch.no_grad():
            torch.testing.assert_close(compiled(ids[:, :length]), eager(ids[:, :length]), atol=1e-4, rtol=0)
        seen = seen or graphs()
    assert graphs() == seen


@pytest.mark.slow
def test_passes_do_not_multiply_graphs(graphs):
    counts = []
    for forward in (2, 12):
        compiled, eager = (sharp_model(hand_plans.late(forward), compile=compile) for compile in (True, False))
        before = graphs()
        with torch.no_grad():
            torch.testing.assert_close(compiled(tokens(2, 9)), eager(tokens(2, 9)), atol=1e-4, rtol=0)
        counts.append(graphs() - before)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("name", ["shared", *slowly("mixed")])
def test_padding_has_graphs_of_its_own(name, graphs):
    compiled, eager = models(name)
    seen = 0
    for length, context in ((5, 30), (40, 60), (3, 30)):
        for pads in ((0, 2), (1, 0), None):
            ids = tokens(2, length)
            mask = None if pads is None else torch.arange(length) >= torch.tensor(pads)[:, None]
            caches = [model.new_cache(2, context) for model in (compiled, eager)]
            pairs = list(zip((compiled, eager), caches, strict=True))
            found, expected = (model.prefill(ids, cache, mask) for model, cache in pairs)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
            found, expected = (model.decode(ids[:, 0], cache) for model, cache in pairs)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        seen = seen or graphs()
    assert graphs() == seen


def assert_trains_alike(compiled, eager):
    seen = []
    for length in (3, 90, 6):
        for model in (compiled, eager):
            model.zero_grad()
            model.loss(tokens(2, length)).backward()
        seen.append(counters["stats"]["unique_graphs"])
        for left, right in zip(compiled.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(left.grad, right.grad, atol=1e-4, rtol=1e-3)
    assert len(set(seen)) == 1


@pytest.mark.parametrize("name", ["mixed", *slowly("late")])
def test_one_graph_for_training(name, graphs):
    assert_trains_alike(*models(name))
    assert graphs() > 0


def test_models_do_not_count_against_each_other(graphs):
    with torch._dynamo.config.patch(recompile_limit=1):
        for _ in range(3):
            model, _ = models("dense")
            model.decode(tokens(2, 1)[:, 0], model.new_cache(2, 8))
    assert graphs() == 9


def assert_generated_code_agrees(name, **options):
    compiled, eager = models(name)
    assert_decodes_alike(compiled, eager, tokens(2, 20), context=20, begin=9, **options)
    seen = counters["stats"]["unique_graphs"]
    # Code generation must not tie the graphs to these lengths either.
    assert_decodes_alike(compiled, eager, tokens(2, 132), context=140, begin=120, **options)
    assert counters["stats"]["unique_graphs"] == seen


@pytest.fixture
def generated():
    """Compile with code generation."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


def test_generated_code_agrees_with_eager(generated):
    assert_generated_code_agrees("projected")


def test_generated_code_of_all_parts_agrees_with_eager(generated):
    assert_generated_code_agrees("mixed")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["sunk", "late"])
def test_generated_code_of_iteration_and_sinks_agrees_with_eager(name, generated):
    # Passes repeat what they computed, and its rounding.
    assert_generated_code_agrees(name, atol=1e-4)


@pytest.mark.parametrize("name", ["dense", *slowly("shared", "retention")])
def test_generated_code_for_training_agrees_with_eager(name, generated):
    assert_trains_alike(*models(name))
