"""Prefill in any chunks and decoding give what teacher forcing gives, out of buffers of the promised size."""

import hand_plans
import pytest
import torch
from hand_plans import VOCAB, sharp_model, tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from archspec.runtime.cache import places_of, stored_positions

LENGTH = 40
PLANS = sorted(hand_plans.ALL)
MODELS = {name: sharp_model(make()) for name, make in hand_plans.ALL.items()}


def assert_chunks_agree(model, ids, chunks, *, context=LENGTH, early_exit=True):
    """Feed `ids` in chunks (1 is a decode step); compare the logits after each with the full forward."""
    with torch.no_grad():
        expected = model(ids)
    cache = model.new_cache(ids.shape[0], context)
    end = 0
    for size in chunks:
        begin, end = end, end + size
        logits = (
            model.decode(ids[:, begin], cache)
            if size == 1
            else model.prefill(ids[:, begin:end], cache, early_exit=early_exit)
        )
        torch.testing.assert_close(logits, expected[:, end - 1], atol=1e-4, rtol=0)
    assert cache.num_cached_tokens == int(cache.input_pos) == end


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("early_exit", [True, False])
@pytest.mark.parametrize(
    "chunks",
    [[LENGTH], [1] * LENGTH, [LENGTH - 3, 1, 1, 1], [2, 3, 1, 4, 7, 1, 6, 16], [3] * 13 + [1], [20, 20]],
    ids=["whole", "tokens", "prompt-then-tokens", "mixed", "threes", "halves"],
)
def test_chunks_agree_with_teacher_forcing(name, chunks, early_exit):
    assert_chunks_agree(MODELS[name], tokens(2, LENGTH), chunks, early_exit=early_exit)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(PLANS), st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(0, 5))
def test_any_chunks_agree(name, chunks, spare):
    total = sum(chunks)
    assert_chunks_agree(MODELS[name], tokens(1, total, seed=total), chunks, context=total + spare)


def test_views_longer_than_a_bucket():
    model = MODELS["mixed"]
    assert_chunks_agree(model, tokens(1, 300), [100, 30, 1, 1, 125, 1, 42], context=300)


@pytest.mark.parametrize("name", PLANS)
def test_rows_do_not_see_each_other(name):
    ids = tokens(3, 20)
    with torch.no_grad():
        torch.testing.assert_close(MODELS[name](ids)[1:2], MODELS[name](ids[1:2]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(("batch", "context", "dtype"), [(1, 3, "float32"), (2, 100, "bfloat16"), (3, 6, "float64")])
def test_cache_takes_the_planned_bytes(name, batch, context, dtype):
    model = hand_plans.build_model(hand_plans.ALL[name](), dtype=dtype, compile=False)
    assert model.new_cache(batch, context).nbytes == model.plan.cache_bytes(batch, context, dtype)


@pytest.mark.parametrize("name", PLANS)
def test_parameters_are_the_planned_ones(name):
    state = MODELS[name].state_dict()
    assert [(key, tuple(value.shape)) for key, value in state.items()] == list(MODELS[name].plan.parameter_shapes())


def test_reset_keeps_the_buffers():
    model, ids = MODELS["mixed"], tokens(2, 12)
    cache = model.new_cache(2, 16)
    buffers = [*cache.storage.slots, *cache.storage.states]
    before = [(id(b), b.data_ptr(), b.stride()) for b in buffers]
    first = model.prefill(ids, cache)
    for buffer in buffers:
        buffer.fill_(torch.nan)
    cache.reset()
    torch.testing.assert_close(model.prefill(ids, cache), first, atol=0, rtol=0)
    model.decode(ids[:, 0], cache)
    after = [*cache.storage.slots, *cache.storage.states]
    assert [(id(b), b.data_ptr(), b.stride()) for b in after] == before


@pytest.mark.parametrize("written", [0, 1, 2, 3, 4, 5, 6, 7, 8, 13])
@pytest.mark.parametrize(("window", "sinks"), [(5, 0), (5, 2), (1, 3), (None, 0)])
def test_stored_positions(written, window, sinks):
    size = 13 if window is None else window + sinks
    buffer = [-1] * size
    for position in range(written):
        place = position if window is None or position < sinks else sinks + (position - sinks) % window
        assert int(places_of(torch.tensor(position), window, sinks)) == place
        buffer[place] = position
    for count in (1, size):
        found = stored_positions(torch.tensor([written]), count, window, sinks).tolist()
        assert [position if position >= 0 else -1 for position in found] == buffer[:count]


def test_cache_refusals():
    model = MODELS["dense"]
    cache = model.new_cache(2, 8)
    model.prefill(tokens(2, 6), cache)
    with pytest.raises(ValueError, match="room for 8 tokens and holds 6: 3 more do not fit"):
        model.prefill(tokens(2, 3), cache)
    with pytest.raises(ValueError, match="for 2 sequences, but 3 were given"):
        model.decode(tokens(3, 1)[:, 0], cache)
    with pytest.raises(ValueError, match="made for model dense, not for shared"):
        MODELS["shared"].prefill(tokens(2, 1), cache)
    half = hand_plans.build_model(model.plan, dtype="bfloat16", compile=False)
    with pytest.raises(ValueError, match=r"holds torch.float32 on cpu, the model is torch.bfloat16"):
        half.decode(tokens(2, 1)[:, 0], cache)
    with pytest.raises(ValueError, match="batch >= 1 and context >= 1"):
        model.new_cache(0, 8)
    assert cache.num_cached_tokens == 6


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(1, 4), r"int64 of shape \(B, T\), not float32"),
        (torch.zeros(4, dtype=torch.int64), r"of shape \(4,\)"),
        (torch.zeros(1, 0, dtype=torch.int64), "no tokens"),
        (torch.full((1, 2), VOCAB), f"0 to {VOCAB - 1}"),
        (torch.full((1, 2), -1), "are -1 to -1"),
    ],
)
def test_ids_refused(ids, message):
    model = MODELS["dense"]
    for call in (model, lambda x: model.prefill(x, model.new_cache(1, 8)), lambda x: model.generate(x, 2)):
        with pytest.raises(ValueError, match=message):
            call(ids)
