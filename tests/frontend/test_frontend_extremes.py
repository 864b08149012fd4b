"""Sizes that nobody means are answered at once."""

import sys
from pathlib import Path

import pytest

from archspec.driver import analyse_text
from archspec.render import render_text

sys.path.insert(0, str(Path(__file__).parent))
from latency import CASES, wrap

pytestmark = pytest.mark.timeout(60)  # ten times what the slowest takes: only runaway behaviour ends here


def codes(text):
    found = analyse_text(text).diagnostics
    assert len(render_text(found)) < 20_000_000
    return {diagnostic.code for diagnostic in found}


@pytest.mark.parametrize("name", CASES)
def test_large_file(name):
    codes(CASES[name])


def test_a_billion_layers():
    assert codes(wrap(10**9, ["layers 1-1000000000 attend"])) == {"E0017"}
    assert codes(wrap(999_999_999_999, ["layers 1-999999999999 attend"])) == {"E0017"}


def test_a_billion_layers_without_total():
    text = (
        "model m {\n  width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000\n  layers 1-1000000000 attend\n}\n"
    )
    assert codes(text) == {"E0014"}


def test_ranges_far_outside():
    assert codes(wrap(4, ["layers 1-999999999999999999 attend"])) == {"E0101"}
    assert "E0107" in codes(wrap(4, ["layers 1-4 step 999999999999999999 attend"]))
    assert codes(wrap(4, ["layers 999999999999999999-1 attend"])) == {"E0103"}


def test_huge_head_counts():
    assert codes(wrap(4, ["layers 1-4 attend, heads 999999999999999999 x 2, kv heads 5 x 2"])) == {"E0302"}
    assert codes(wrap(4, ["layers 1-4 attend, heads 1 x 999999999999999998"])) == set()


def test_numbers_that_floats_cannot_hold():
    assert codes(wrap(4, ["layers 1-4 attend, rope 1e400"])) == {"E0015"}
    assert codes(wrap(4, ["layers 1-4 attend, rope 1e-400"])) == {"E0015"}


def test_too_many_digits():
    assert codes(wrap(4, ["layers 1-4 attend, window " + "9" * 1000])) == {"E0001"}
    assert codes(wrap(4, ["layers 1-4 attend, window 8" + "_" * 100_000])) <= {"E0001", "E0002"}


def test_deep_braces_and_parentheses():
    assert codes(wrap(4, ["layers 1-4 attend, ffn swiglu" + "(" * 50_000 + ")" * 50_000])) == {"E0030"}
    assert "E0001" in codes(wrap(4, ["layers 1-4 attend " + "{" * 50_000 + "}" * 50_000]))


def test_long_words():
    assert codes(wrap(4, [f"layers 1-4 {'x' * 500_000}"])) == {"E0010"}
    assert codes(wrap(4, ["layers 1-4 attend", f"{'y' * 500_000} 3"])) == {"E0002"}


def test_missing_layers_are_summed_up():
    text = render_text(analyse_text(wrap(10_000, ["layers 1-9999 step 2 attend"])).diagnostics)
    assert len(text) < 2000
