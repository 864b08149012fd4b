"""Shipped specs of two levels have the sizes of the published models, to the byte."""

from pathlib import Path

import pytest

import archspec

ROOT = Path(__file__).parents[2]
SIZES = {
    # name: (all parameters that are used, those outside of embeddings and output matrix, K/V elements of a block
    # position, of a token position, and positions of a block); zoo of the project, from the authors' configs
    "block_main_b4_5": (33_846_272, 4_871_168, 4 * 384, 1536, 5),
    "block_main_b4_85": (173_164_032, 86_238_720, 4 * 2304, 9216, 5),
    "block_main_b4_300": (420_313_088, 304_412_672, 4 * 6144, 24576, 5),
    "block_main_b4_800": (1_045_934_080, 814_133_248, 4 * 8192, 32768, 5),
    "block_megabyte_b4_5": (20_971_520, 4_874_240, 4 * 640, 1024, 4),
    "block_megabyte_b4_19": (51_642_368, 19_447_808, 4 * 1280, 2048, 4),
    "block_megabyte_b4_85": (153_323_264, 92_153_600, 4 * 4224, 4096, 4),
}
EMBEDDINGS = ("blocks.embed.weight", "tokens.embed.weight", "tokens.lm_head.weight")


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_published_models(name):
    total, inner, block_elements, token_elements, positions = SIZES[name]
    plan = archspec.plan(archspec.parse(ROOT / "specs" / "block" / f"{name}.arch"))
    shapes = dict(plan.parameter_shapes())
    assert plan.num_parameters() == total
    assert total - sum(shapes[key][0] * shapes[key][1] for key in EMBEDDINGS) == inner
    for batch, context in ((1, 1), (2, 4), (1, 777), (3, 5000), (2, 1 << 20)):
        elements = block_elements * -(-context // 4) + token_elements * positions
        assert plan.cache_bytes(batch, context) == batch * 2 * elements
    assert plan.cache_formula() == f"B*e*({block_elements}*ceil(T/4) + {token_elements * positions})"


def test_the_example_of_the_paper_is_the_shipped_one():
    plan = archspec.plan(archspec.parse(ROOT / "specs" / "block" / "block_main_b4_85.arch"))
    assert (len(plan.layers), plan.vocab_size, plan.block_positions) == (12, 50304, 5)
    assert [name for name, _ in plan.parameter_shapes()][-3:] == [
        "tokens.embed.weight",
        "tokens.expansion.weight",
        "tokens.expansion.bias",
    ]
    assert plan.slots[0].name == "blocks.cache@1"
    assert plan.slots[-1].name == "tokens.cache@6"


def test_formula_with_windows_states_and_projections():
    text = """model m {
      vocab 37, heads 2 x 8, ffn gelu(24), rope 10000
      blocks of 3 tokens {
        layers 4, width 24, embed lookup 8 concat
        layers 1 attend, window 5
        layers 2 retention
        cache@2: kv heads 1 x 8
        layers 3-4 cross-attend to cache@2
        emit context
      }
      tokens in block {
        layers 2, width 16
        prefix 2 from blocks.context
        layers 1 attend, window 2
        layers 2 attend
      }
    }"""
    plan = archspec.plan(archspec.parse_spec_text(text))
    assert plan.cache_formula() == "B*e*(16*ceil(T/3) + 32*min(ceil(T/3), 5) + 192) + 4*B*128"
    assert plan.cache_bytes(2, 100, "float32") == 2 * (4 * (16 * 34 + 32 * 5 + 32 * 4 + 32 * 2) + 512)
