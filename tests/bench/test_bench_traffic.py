"""Bytes that a step of decoding reads, counted by hand."""

from pathlib import Path

import pytest

import archspec
from archspec.bench.traffic import step_bytes
from archspec.bench.workloads import Workload, largest_batch
from archspec.levels_plan import AnyPlan

SPECS = Path(__file__).parents[2] / "specs"

HEADER = "layers 3, width 16, vocab 50, ffn relu(20), norm rms(1e-5)"
ATTENTION = 4 * 16 * 8 * 2  # q, k, v, o of two heads of 8
FFN, NORMS = 2 * 16 * 20, 2 * 16
LAYER = ATTENTION + FFN + NORMS
HEAD, FINAL = 50 * 16, 16


def plan(body: str, header: str = HEADER) -> AnyPlan:
    return archspec.plan(archspec.parse_spec_text(f"model m {{ {header}\n {body} }}"))


@pytest.mark.parametrize(("element", "dtype"), [(4, "float32"), (2, "bfloat16")])
def test_weights_once_and_caches_a_sequence(element: int, dtype: str) -> None:
    made = plan("layers 1-3 attend, heads 2 x 8")
    weights = 3 * LAYER + FINAL + HEAD
    for batch in (1, 5):
        caches = 3 * 2 * 16 * 100
        assert step_bytes(made, batch, 100, dtype) == (weights + batch * 16 + batch * caches) * element


def test_a_tied_matrix_counts_once() -> None:
    made = plan("layers 1-3 attend, heads 2 x 8", HEADER + ", tied embeddings")
    assert step_bytes(made, 4, 10, "float32") == (3 * LAYER + FINAL + HEAD + 4 * 3 * 2 * 16 * 10) * 4


def test_a_shared_cache_is_read_by_each_of_its_readers_and_a_window_is_all_that_is_seen() -> None:
    made = plan(
        "layers 1-2 attend, heads 2 x 8, window 7\n cache@2: kv heads 1 x 8\n layers 3 cross-attend to cache@2, heads 2 x 8"
    )
    one = plan("layers 1 attend, heads 2 x 8\n layers 2-3 cross-attend to cache@1, heads 2 x 8")
    far, near = (step_bytes(made, 1, context, "float32") for context in (100, 50))
    assert far - near == 50 * 2 * 8 * 4
    assert step_bytes(one, 1, 100, "float32") - step_bytes(one, 1, 50, "float32") == 3 * 50 * 2 * 16 * 4


def test_states_are_read_whole() -> None:
    made = plan("layers 1-3 retention, heads 2 x 8")
    assert step_bytes(made, 3, 10, "bfloat16") == step_bytes(made, 3, 1000, "bfloat16")
    grown = step_bytes(made, 4, 10, "bfloat16") - step_bytes(made, 3, 10, "bfloat16")
    assert grown == 3 * 2 * 8 * 8 * 4 + 16 * 2  # float32 whatever the dtype, and a row of the embedding


def test_experts_are_read_as_far_as_tokens_choose_them() -> None:
    made = plan("layers 1-3 attend, heads 2 x 8", HEADER.replace("relu(20)", "moe(top 2 of 8 relu(20))"))
    caches = 3 * 2 * 16 * 10
    grown = [step_bytes(made, b + 1, 10, "float32") // 4 - step_bytes(made, b, 10, "float32") // 4 for b in (1, 3, 4)]
    assert grown == [2 * 3 * FFN + caches + 16, 2 * 3 * FFN + caches + 16, caches + 16]


def test_two_levels_divide_the_block_level_by_the_block() -> None:
    made = archspec.plan(archspec.parse(SPECS / "bench/block_110m.arch"))
    dense = archspec.plan(archspec.parse(SPECS / "bench/llama_110m.arch"))
    # Six layers each token, and the other six each fourth.
    layers = 4 * 768 * 768 + 3 * 768 * 2048 + 2 * 768
    weights = (6 + 6 / 4) * layers + 32000 * 768
    assert step_bytes(made, 1, 4, "float32") == pytest.approx(weights * 4, rel=0.01)
    far = step_bytes(made, 8, 8192, "float32") - step_bytes(made, 8, 4096, "float32")
    assert far * 8 * 4 == pytest.approx(step_bytes(dense, 8, 8192, "float32") - step_bytes(dense, 8, 4096, "float32"))


def test_the_largest_batch_fills_the_budget() -> None:
    made = archspec.plan(archspec.parse(SPECS / "bench/llama_110m.arch"))
    for budget in (301_989_887, 301_989_888, 302_000_000):
        batch = largest_batch(made, 2048, "float32", budget)
        assert made.cache_bytes(batch, 2048, "float32") <= budget < made.cache_bytes(batch + 1, 2048, "float32")
    assert Workload("budget", "float32", 1, 2048, 302_000_000).batch_of(made) == 2
    assert Workload("budget", "float32", 1, 2048, 1000).batch_of(made) == 0
