"""Long prompts are taken up in chunks: same logits, same caches, upper layers for the last position alone."""

import re
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_oracle import randomise

import archspec
from archspec.describe import chunk_text, plan_json, plan_text
from archspec.plan import PREFILL_CHUNK
from archspec.runtime.level_cache import LevelsCache
from archspec.runtime.measuring import peak_of
from archspec.testing.level_strategies import level_specs
from archspec.testing.oracle import assert_chunks
from archspec.testing.strategies import specs

TOLERANCE = 1e-3  # of recurrent states, which are float32

YOCO = """model m {
  layers 4, width 32, vocab 61, ffn swiglu(40), norm rms(1e-5), rope 10000
  layers 1-2 attend, heads 4 x 8, window 16
  cache@2: kv heads 2 x 8
  layers 3-4 cross-attend to cache@2, heads 4 x 8
  prefill exit after cache@2
}"""

BLOCKS = """model m {
  vocab 61, ffn swiglu(40), norm rms(1e-5), rope 10000
  blocks of 4 tokens {
    layers 2, width 32, embed lookup 8 concat
    layers 1-2 attend, heads 4 x 8
    emit context
  }
  tokens in block {
    layers 1, width 32
    prefix 2 from blocks.context
    layers 1 attend, heads 4 x 8
  }
}"""


def tensors(cache):
    stacks = (cache.blocks, cache.tokens) if isinstance(cache, LevelsCache) else (cache,)
    return [tensor for stack in stacks for tensor in (*stack.storage.slots, *stack.storage.states)]


def filled(model, ids, context, chunk, mask=None, **options):
    """Logits of a prefill and of a decoded token, and the cache."""
    model.prefill_chunk = chunk
    cache = model.new_cache(ids.shape[0], context)
    logits = model.prefill(ids, cache, mask, **options)
    return logits, model.decode(ids[:, 0], cache), cache


def assert_alike(model, ids, chunk, mask=None, room=3, **options):
    whole, chunked = (filled(model, ids, ids.shape[1] + room, size, mask, **options) for size in (None, chunk))
    for found, wanted in zip(chunked[:2], whole[:2], strict=True):
        torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    if mask is None:  # else what lies at padded positions means nothing
        for found, wanted in zip(tensors(chunked[2]), tensors(whole[2]), strict=True):
            torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


def built(spec):
    model = archspec.compile(spec, seed=1, dtype="float64", compile=False)
    randomise(model)
    return model


def some_ids(model, batch, num_tokens):
    return torch.randint(model.plan.vocab_size, (batch, num_tokens), generator=torch.Generator().manual_seed(0))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs() | level_specs(), st.integers(2, 40), st.integers(1, 20), st.booleans())
def test_chunks_change_nothing(spec, num_tokens, chunk, early_exit):
    model = built(spec)
    assert_alike(model, some_ids(model, 2, num_tokens), chunk, early_exit=early_exit)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs() | level_specs(), st.integers(2, 40), st.integers(1, 20), st.data())
def test_padding_may_reach_over_several_chunks(spec, num_tokens, chunk, data):
    model = built(spec)
    plan = getattr(model.plan, "blocks", model.plan)
    if any(slot.sinks for slot in plan.slots) or any(getattr(layer.mixer, "sinks", 0) for layer in plan.layers):
        return
    pads = data.draw(st.integers(0, num_tokens - 1))
    mask = torch.arange(num_tokens) >= torch.tensor([0, pads])[:, None]
    assert_alike(model, some_ids(model, 2, num_tokens), chunk, mask)


@pytest.mark.parametrize("text", [YOCO, BLOCKS], ids=["yoco", "blocks"])
def test_a_prompt_goes_on_where_another_ended(text):
    model = built(archspec.parse_spec_text(text))
    ids = some_ids(model, 2, 150)
    results = []
    for chunk in (None, 24):
        model.prefill_chunk = chunk
        cache = model.new_cache(2, 160)
        options = {"prompt_len": 149} if text is BLOCKS else {}
        rows = [model.prefill(part, cache, **options) for part in ids.split((3, 52, 94, 1), dim=1)]
        results.append(torch.stack(rows))
    torch.testing.assert_close(*results, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("text", "rows"), [(YOCO, [[32, 32, 32, 4], [1]]), (BLOCKS, [[8, 8, 8, 1], [1]])])
def test_upper_layers_run_once_for_the_last_position(text, rows):
    model = built(archspec.parse_spec_text(text))
    seen = {}
    for name, module in model.named_modules():
        if re.fullmatch(r"(\w+\.)?layers\.\d+", name):
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(len(args[0][0]))
            )
    model.prefill_chunk = 32
    model.prefill(some_ids(model, 1, 100), model.new_cache(1, 100))
    lower, *_, upper = seen.values()
    assert [lower, upper] == rows


def test_the_plan_says_how_long_chunks_are():
    yoco, blocks = (built(archspec.parse_spec_text(text)) for text in (YOCO, BLOCKS))
    assert yoco.prefill_chunk == PREFILL_CHUNK
    assert blocks.prefill_chunk == 4 * PREFILL_CHUNK
    late = archspec.parse("specs/bench/lckv_110m_w2.arch")
    assert archspec.plan(late).prefill_chunk is None  # the numbers depend on it


@pytest.mark.parametrize("text", [YOCO, BLOCKS], ids=["yoco", "blocks"])
@pytest.mark.parametrize("chunk", [0, -1, True, 2.5, "2K"])
def test_chunks_hold_a_token_at_least(text, chunk):
    model = built(archspec.parse_spec_text(text))
    before = model.prefill_chunk
    with pytest.raises(ValueError, match=re.escape(f"1 token or more, or None for whole prompts, but is {chunk!r}")):
        model.prefill_chunk = chunk
    assert model.prefill_chunk == before


@pytest.mark.parametrize("pads", [3, 4, 29, 63, 70])
def test_blocks_with_padding_over_chunks_are_those_of_the_row_alone(pads):
    """Within a block, whole blocks, whole chunks: whatever of a padded prompt is padding, nothing else depends on it."""
    model = built(archspec.parse_spec_text(BLOCKS))
    ids = some_ids(model, 2, 75)
    mask = torch.arange(75) >= torch.tensor([0, pads])[:, None]
    padded = filled(model, ids, 76, 16, mask)[:2]
    assert_alike(model, ids, 16, mask)
    cache = model.new_cache(1, 76 - pads)
    model.prefill_chunk = None
    alone = (model.prefill(ids[1:, pads:], cache), model.decode(ids[1:, 0], cache))
    for found, wanted in zip(padded, alone, strict=True):
        torch.testing.assert_close(found[1:], wanted, atol=1e-6, rtol=0)  # positions differ, rotations are rounded


def test_the_oracle_notices_chunks_that_leave_something_out():
    model = built(archspec.parse_spec_text(YOCO))
    ids = some_ids(model, 2, 20)
    assert_chunks(model, ids, 6)
    assert model.prefill_chunk == PREFILL_CHUNK
    model._fills = {early_exit: steps[:-1] for early_exit, steps in model._fills.items()}
    with pytest.raises(AssertionError, match="prefill, 6 tokens at a time, with early_exit=True, differs from a whole"):
        assert_chunks(model, ids, 6)


def test_plans_say_how_prompts_are_taken_up():
    late = archspec.plan(archspec.parse("specs/bench/lckv_110m_w2.arch"))
    yoco, blocks = (archspec.plan(archspec.parse_spec_text(text)) for text in (YOCO, BLOCKS))
    assert chunk_text(yoco) == (
        "prompts are taken up 2048 tokens at a time: layers 1-2 of 4 run for every chunk, the others for the last one only"
    )
    assert chunk_text(blocks) == (
        "prompts are taken up 8192 tokens (2048 blocks) at a time: of the block level, layer 1 of 2 runs for every chunk, "
        "the others and the token level for the last one only"
    )
    assert "taken up whole: layers 2-10 iterate, and passes over a part" in chunk_text(late)
    for plan in (late, yoco, blocks):
        assert plan_text(plan).count(chunk_text(plan)) == plan_text(plan).count("taken up") == 1
        assert plan_json(plan)["prefill_chunk"] == plan.prefill_chunk


LONG = """
import sys, torch, archspec
from pathlib import Path
def resident(line):
    status = Path("/proc/self/status").read_text()
    return int(status.split(line)[1].split()[0]) * 1024
torch.set_num_threads(1)
num_tokens, chunk = int(sys.argv[1]), int(sys.argv[2])
model = archspec.compile(archspec.parse_spec_text(sys.argv[3]), compile=False)
cache = model.new_cache(1, num_tokens)
ids = torch.randint(61, (1, num_tokens))
model.prefill(ids[:, :4096], cache)  # what is loaded, and kept whatever the length
cache.reset()
model.prefill_chunk = chunk or model.plan.prefill_chunk
Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
before = resident("VmRSS:")
finite = model.prefill(ids, cache).isfinite().all().item()
print(finite, resident("VmHWM:") - before)
"""


def grown(num_tokens, chunk):
    """Bytes by which the memory of a process grows at most in a prefill."""
    command = [sys.executable, "-c", LONG, str(num_tokens), str(chunk), YOCO]
    finite, growth = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert finite == "True"
    return int(growth)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere peaks cannot be set back")
def test_a_yoco_prefills_128k_tokens_in_the_memory_of_a_chunk():
    """Hidden states of all positions would be 16.8 MB, and as much again what a copy of the caches would be."""
    assert grown(131072, chunk=0) < 12e6
    assert grown(32768, chunk=32768) > 12e6


def test_peaks_do_not_grow_with_the_prompt():
    model = archspec.compile(archspec.parse_spec_text(YOCO), compile=False)
    peaks = []
    for num_tokens in (8192, 32768):
        cache = model.new_cache(1, num_tokens)
        ids = some_ids(model, 1, num_tokens)
        peaks.append(peak_of(lambda ids=ids, cache=cache: model.prefill(ids, cache), model.device).tensors)
    # Positions of all keys, three times, and whether each is filled.
    assert peaks[1] - peaks[0] <= 25 * (32768 - 8192) + 1000
