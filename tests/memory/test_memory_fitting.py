"""What fits a device, and what allocators take, by hand."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archspec
from archspec.memory.account import Terms, account
from archspec.memory.allocators import Allocator, parse_allocator, slot_bytes
from archspec.memory.fitting import largest_batch, longest_context
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import specs
from archspec.units import parse_bytes

ROOT = Path(__file__).parents[2]
YOCO = archspec.plan(archspec.parse(ROOT / "specs" / "yoco" / "yoco_3b_window.arch"))
TERMS = Terms(chunk=2048)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs() | level_specs(), st.integers(1, 500), st.integers(1, 4), st.sampled_from([16, 100, None]))
def test_the_next_larger_one_does_not_fit(spec, context, batch, chunk):
    plan, terms = archspec.plan(spec), Terms("float32", chunk=chunk)
    budget = 2 * account(plan, batch, context, terms).total
    fit = largest_batch(plan, context, budget, terms)
    assert fit.value is not None
    assert fit.value >= batch
    assert account(plan, fit.value, context, terms).total <= budget < account(plan, fit.value + 1, context, terms).total
    fit = longest_context(plan, batch, budget, terms)
    if fit.value is None:
        assert account(plan, batch, 1 << 50, terms).total <= budget
        return
    if fit.limit == "positions":
        assert fit.value == plan.max_context
        assert account(plan, batch, fit.value, terms).total <= budget
        return
    assert fit.value >= context
    assert account(plan, batch, fit.value, terms).total <= budget < account(plan, batch, fit.value + 1, terms).total


def test_nothing_fits_where_the_weights_do_not():
    weights = account(YOCO, 1, 1, TERMS).weights
    fit = largest_batch(YOCO, 4096, weights - 1, TERMS)
    assert (fit.value, fit.limit) == (0, "weights")
    assert longest_context(YOCO, 1, 80 * 10**9, TERMS).limit == "caches"


def test_lines_of_an_account():
    lines = account(YOCO, 2, 4096, Terms(cache_dtype="int8"))
    assert lines.weights == 2 * 3_321_661_440
    assert lines.slots == lines.caches == 2 * (2048 * 4096 + 79872 * 1024)
    assert lines.total == lines.weights + lines.caches + lines.prefill_peak
    gated = archspec.plan(archspec.parse(ROOT / "specs" / "yoco" / "yoco_3b.arch"))
    assert account(gated, 2, 1, TERMS).states == 2 * 13 * 24 * 128 * 128 * 4


@pytest.mark.parametrize(
    ("allocator", "positions"),
    [("exact", 1024), ("hf-static", 1024), ("hf-dynamic", 1023), ("paged:16", 1040), ("paged:1024", 2048)],
)
def test_a_window_that_slides(allocator, positions):
    """Window 1024 after 4,090 tokens: in blocks of 16 its ends lie in 65 blocks, in blocks of 1,024 in 2."""
    block = int(allocator.partition(":")[2] or 1)
    full = -(-4090 // block) * block
    assert slot_bytes(YOCO, 3, 4090, 2, parse_allocator(allocator)) == 3 * 2 * (2048 * full + 79872 * positions)


def test_a_window_of_one_and_sinks():
    plan = archspec.plan(
        archspec.parse_spec_text(
            "model m {\n layers 2, width 16, vocab 9, heads 1 x 8, ffn gelu(8), rope 100\n"
            " layers 1 attend, window 1\n layers 2 attend, window 8, sinks 3\n}"
        )
    )
    assert slot_bytes(plan, 1, 100, 1, Allocator("hf-dynamic")) == 16 * (100 + 10)  # [-0:] keeps everything
    assert slot_bytes(plan, 1, 100, 1, Allocator("paged", 4)) == 16 * (4 + (4 + 12))
    assert slot_bytes(plan, 1, 2, 1, Allocator("paged", 4)) == 16 * (4 + 4)


@pytest.mark.parametrize("text", ["", "paged", "paged:", "paged:0", "paged:-1", "paged:1e3", "paged:9999999", "HF"])
def test_no_allocators(text):
    with pytest.raises(ValueError, match="is no allocator"):
        parse_allocator(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GB", 80 * 10**9),
        ("24GiB", 24 << 30),
        ("1.5 TiB", 3 << 39),
        ("512B", 512),
        ("0.1KB", 100),
        ("2MB", 2 * 10**6),
    ],
)
def test_amounts_of_memory(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["80", "GB", "0GB", "-1GB", "80gb", "8 0GB", "1e9B", "9" * 40 + "B", "0.1B"])
def test_no_amounts_of_memory(text):
    with pytest.raises(ValueError, match="no amount of memory"):
        parse_bytes(text)
