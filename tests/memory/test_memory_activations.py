"""Estimated peaks of activations against measured ones: every tensor that a pass makes is counted."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archspec
from archspec.memory import attending, walk
from archspec.memory.activations import decode_peak, prefill_peak
from archspec.memory.operations import CHUNK_LEN
from archspec.plan import DTYPE_BYTES
from archspec.runtime import backends, cache, measuring, near, recurrence
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import iterated_specs, specs

ROOT = Path(__file__).parents[2]
NANO = sorted((ROOT / "specs" / "nano").glob("*.arch"))
RETENTION = """model m {
  layers 3, width 64, vocab 100, ffn swiglu(176), norm rms(1e-5), rope 10000, heads 4 x 16
  layers 1-2 retention
  layers 3 attend, kv heads 2
}"""
SINKS = """model m {
  layers 2, width 64, vocab 100, ffn swiglu(128), norm rms(1e-5), rope 10000, heads 4 x 16
  layers 1-2 attend, kv heads 2, window 8, sinks 2
}"""
SOFTCAP = """model m {
  layers 2, width 64, vocab 100, ffn swiglu(128), norm rms(1e-5), rope 10000, heads 4 x 16, attention softcap 50
  layers 1-2 attend, kv heads 2
}"""

SINK_LOGITS = """model m {
  layers 2, width 64, vocab 100, ffn swiglu(128), norm rms(1e-5), rope 10000, heads 4 x 16, kv heads 2, sink-logits
  layers 1 attend, window 40, qk-norm across heads
  layers 2 attend, v-norm rms(1e-6, no weight), values-from-keys, output-gate, rope proportional(10000) on 25%
}"""

LEVELS = """model m {
  vocab 37, width 16
  blocks of 4 tokens {
    layers 2, width 4, embed lookup 1 concat, norm rms(1e-3), ffn swiglu(8), no rope
    layers 1-2 attend, heads 1 x 4
    emit context
  }
  tokens in block {
    layers 1, width 16, norm rms(1e-3), ffn swiglu(8), no rope
    prefix 1 from blocks.context
    layers 1 attend, heads 1 x 4
  }
}"""


def peaks(plan, batch, context, dtype, chunk=None):
    """Estimated and measured, of prefill and of decode."""
    element = DTYPE_BYTES[dtype]
    prefill, decode = measuring.measure_passes(plan, batch, context, dtype, chunk)
    assert prefill.with_scratch >= prefill.tensors
    return [
        (prefill_peak(plan, batch, context, element, chunk).nbytes, prefill.tensors),
        (decode_peak(plan, batch, context, element).nbytes, decode.tensors),
    ]


@pytest.mark.parametrize("path", NANO, ids=lambda path: path.stem)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("batch", "context", "chunk"), [(1, 64, None), (1, 1000, None), (3, 300, 128)])
def test_nano_specs(path, dtype, batch, context, chunk):
    for estimated, measured in peaks(archspec.plan(archspec.parse(path)), batch, context, dtype, chunk):
        assert estimated == pytest.approx(measured, rel=0.05)


WINDOW_SOFTCAP = SOFTCAP.replace("kv heads 2", "kv heads 2, window 40")
EXPERTS = SOFTCAP.replace(", attention softcap 50", "").replace(
    "swiglu(128)", "moe(top 2 of 8 swiglu(64), shared relu2(64) gated, selection bias)"
)


@pytest.mark.parametrize(
    "text",
    [RETENTION, SINKS, SOFTCAP, SINK_LOGITS, WINDOW_SOFTCAP, EXPERTS],
    ids=["retention", "sinks", "softcap", "sink-logits", "window-softcap", "experts"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_kinds_of_layers(text, dtype):
    plan = archspec.plan(archspec.parse_spec_text(text))
    for estimated, measured in (*peaks(plan, 2, 300, dtype), *peaks(plan, 1, 500, dtype, 200)):
        assert estimated == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("chunk", [None, 16])
def test_an_incomplete_block_is_a_block(chunk):
    """33 tokens are nine blocks of four, of one prefill if it is not cut in chunks."""
    plan = archspec.plan(archspec.parse_spec_text(LEVELS))
    (prefill, measured), _ = peaks(plan, 1, 33, "float32", chunk)
    assert prefill == pytest.approx(measured, rel=0.05)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    specs() | iterated_specs(passes=3) | level_specs(),
    st.sampled_from([(1, 33), (2, 160), (3, 90)]),
    st.sampled_from(["float32", "bfloat16"]),
)
def test_generated_specs(spec, sizes, dtype):
    """The bound that docs/memory.md promises; almost all are within a tenth, the worst are models of width 16."""
    for estimated, measured in peaks(archspec.plan(spec), *sizes, dtype):
        assert 0.6 * measured <= estimated <= 1.5 * measured


def test_rope_tables_are_part_of_the_peak():
    plan = archspec.plan(archspec.parse(ROOT / "specs" / "nano" / "nano_llama.arch"))
    found = prefill_peak(plan, 1, 1000, 4)
    assert found.rope_bytes == 1000 * 32 * 4  # cosines and sines, 16 each, float32
    assert found.nbytes > found.rope_bytes


def test_a_long_prompt_in_chunks_needs_less():
    plan = archspec.plan(archspec.parse(ROOT / "specs" / "nano" / "nano_llama.arch"))
    whole, chunked = prefill_peak(plan, 1, 4096, 4), prefill_peak(plan, 1, 4096, 4, 256)
    assert chunked.nbytes < whole.nbytes / 5  # a sixteenth of the tokens, but a mask over older keys
    assert prefill_peak(plan, 1, 200, 4, 256) == prefill_peak(plan, 1, 200, 4)


@pytest.mark.parametrize("path", NANO, ids=lambda path: path.stem)
def test_a_whole_prompt_costs_its_length(path):
    """Nothing grows with S x T: neither causal order nor a window needs a mask of it."""
    plan = archspec.plan(archspec.parse(path))
    short, long = (prefill_peak(plan, 1, context, 4).nbytes for context in (1 << 14, 1 << 16))
    assert long == pytest.approx(4 * short, rel=0.01)


def test_masks_over_stored_keys_are_bounded(monkeypatch):
    """More places than a mask may have are scored in blocks of queries."""
    for module in (backends, attending):
        monkeypatch.setattr(module, "FAR_SCORES", 1 << 14)
    for text in (SOFTCAP, SINK_LOGITS):
        plan = archspec.plan(archspec.parse_spec_text(text))
        (prefill, measured), _ = peaks(plan, 1, 600, "float32", 200)
        assert prefill == pytest.approx(measured, rel=0.1)
    monkeypatch.undo()
    plan = archspec.plan(archspec.parse(ROOT / "specs" / "nano" / "nano_llama.arch"))
    found = [prefill_peak(plan, 1, context, 2, 2048).nbytes for context in range(1 << 15, 1 << 17, 2048)]
    assert found == sorted(found)
    assert found[-1] < 2 * found[0]


def test_constants_are_those_of_the_runtime():
    assert (CHUNK_LEN, walk.LIVE_BUCKET) == (recurrence.CHUNK_LEN, cache.LIVE_BUCKET)
    assert (attending.SINK_DIMS, attending.FAR_SCORES) == (backends.SINK_DIMS, backends.FAR_SCORES)
    for window in (1, 64, 400, 4096):
        assert attending.turn_len(window) == near.turn_len(window)


def test_a_peak_is_that_of_tensors_alive_together():
    def call():
        first = torch.zeros(1000, dtype=torch.uint8)
        second = torch.zeros(500, dtype=torch.uint8)
        view = first[:10]
        del first
        third = torch.zeros(2000, dtype=torch.uint8)
        del second, view
        return third, torch.zeros(700, dtype=torch.uint8)

    found = measuring.peak_of(call, torch.device("cpu"))
    assert found == measuring.PeakBytes(tensors=3500, with_scratch=3500)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("path", NANO, ids=lambda path: path.stem)
def test_cache_bytes_on_cuda(path):
    """The buffers take the planned bytes; the allocator rounds each up to 512 and counts the positions' buffers."""
    plan = archspec.plan(archspec.parse(path))
    found = measuring.measure_cache(plan, 2, 1000, "bfloat16", "cuda")
    planned = plan.cache_bytes(2, 1000, "bfloat16")
    assert found.buffers == planned
    assert found.allocator is not None
    assert planned <= found.allocator <= planned + 512 * (len(plan.slots) + len(plan.states) + 3)
