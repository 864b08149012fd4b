"""The public API of models with two levels."""

from pathlib import Path

import pytest
import torch
from test_levels_oracle import random_ids, sharp

import archspec
from archspec.runtime.levels import LevelsModel

ROOT = Path(__file__).parents[2]
TEXT = """
model m {
  vocab 37, width 16, heads 2 x 8, ffn gelu(24), rope 10000, norm layernorm(1e-5)
  blocks of 4 tokens {
    layers 3, embed lookup 4 concat
    layers 1-2 attend
    layers 3 cross-attend to cache@2
    emit context
  }
  tokens in block {
    layers 2
    prefix 2 from blocks.context
    layers 1-2 attend
  }
}
"""


@pytest.fixture(scope="module")
def model():
    return sharp(archspec.parse_spec_text(TEXT))


def test_rows_before_the_end_of_the_first_block_are_zeros(model):
    ids = random_ids(2, 10)  # two tokens of padding complete the first block
    with torch.no_grad():
        rows = model(ids)
        assert rows.shape == (2, 10, 37)
        assert not rows[:, :1].any()
        assert rows[:, 1:].any(-1).all()
        assert not model(ids[:, :3], prompt_len=4).any()
        cache = model.new_cache(2, 12)
        assert not model.prefill(ids[:, :3], cache, prompt_len=12).any()
        assert model.decode(ids[:, 3], cache).any()


def test_no_token_sees_what_follows_it(model):
    ids = random_ids(1, 16)
    with torch.no_grad():
        rows = model(ids)
        for position in range(3, 16):
            other = ids.clone()
            other[:, position] = (other[:, position] + 1) % 37
            changed = (model(other) - rows).abs().amax(-1)[0] > 1e-6
            assert not changed[:position].any()
            # The last token of a block is seen by the next block, the others by their own too.
            assert changed[position:].all()


def test_prompts_of_other_lengths_have_other_blocks(model):
    ids = random_ids(1, 13)
    with torch.no_grad():
        assert not torch.allclose(model(ids)[:, 8], model(ids, prompt_len=12)[:, 8])
        torch.testing.assert_close(model(ids, prompt_len=9), model(ids))


def test_a_reset_cache_is_as_new(model):
    ids = random_ids(2, 11)
    cache = model.new_cache(2, 16)
    first = [model.prefill(ids, cache), model.decode(ids[:, 0], cache)]
    assert cache.num_cached_tokens == 12
    cache.reset()
    assert (cache.num_cached_tokens, cache.padding) == (0, None)
    again = [model.prefill(ids, cache), model.decode(ids[:, 0], cache)]
    for left, right in zip(first, again, strict=True):
        torch.testing.assert_close(left, right, atol=0, rtol=0)
    assert "12 of 16 tokens" in repr(cache)
    assert cache.nbytes == model.plan.cache_bytes(2, 16, "float32")


def test_generation_is_prefill_and_decode(model):
    ids = random_ids(2, 7)
    out = model.generate(ids, max_new_tokens=11)
    with torch.no_grad():
        rows = model(out, prompt_len=7)
    assert torch.equal(out[:, 7:], rows[:, 6:-1].argmax(-1))
    eos = int(out[0, 9])
    ended = model.generate(ids, max_new_tokens=11, eos_token_id=eos)
    stop = int((out[0, 7:] == eos).nonzero()[0]) + 7
    assert (ended[0, stop:] == eos).all()
    sampled = [model.generate(ids, 6, temperature=0.9, top_k=5, seed=3) for _ in range(2)]
    assert torch.equal(*sampled)
    assert torch.equal(model.generate(ids, 0), ids)


def test_save_and_load(model, tmp_path):
    model.save(tmp_path)
    loaded = archspec.load(tmp_path, compile=False)
    assert isinstance(loaded, LevelsModel)
    ids = random_ids(1, 9)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids), model(ids), atol=0, rtol=0)
    assert (tmp_path / "model.arch").read_text() == archspec.format_spec(archspec.parse_spec_text(TEXT))


def test_initial_weights_depend_on_the_seed_alone():
    spec = archspec.parse_spec_text(TEXT)
    one, two, other = (archspec.compile(spec, seed=seed, compile=False).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["tokens.expansion.weight"], other["tokens.expansion.weight"])
    assert not one["tokens.expansion.bias"].any()
    assert (one["blocks.norm.weight"] == 1).all()


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_dtypes(dtype):
    model = archspec.compile(archspec.parse_spec_text(TEXT), dtype=dtype, compile=False)
    cache = model.new_cache(1, 8)
    ids = random_ids(1, 6)
    assert model.prefill(ids, cache).dtype == model(ids).dtype == getattr(torch, dtype)
    assert model.loss(ids).dtype == (torch.float64 if dtype == "float64" else torch.float32)


def test_loss_learns(model):
    trained = archspec.compile(archspec.parse_spec_text(TEXT), compile=False)
    ids = random_ids(2, 12)
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
    first = None
    for _ in range(40):
        optimizer.zero_grad()
        loss = trained.loss(ids)
        loss.backward()
        optimizer.step()
        first = first or float(loss.detach())
    assert float(loss.detach()) < 0.5 * first
    assert all(parameter.grad is not None for parameter in trained.parameters())


def test_loss_of_padded_rows_counts_what_is_predicted(model):
    ids = random_ids(2, 12)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    with torch.no_grad():
        rows = model(ids, mask).log_softmax(-1)
        picked = rows[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        wanted = -torch.cat((picked[0, 3:], picked[1, 7:])).mean()
        torch.testing.assert_close(model.loss(ids, mask), wanted)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.loss(random_ids(1, 4)), "a loss needs more than 4 tokens"),
        (lambda m: m(random_ids(1, 4), prompt_len=0), "prompt_len must be at least 1"),
        (lambda m: m(random_ids(1, 4) + 37), "token ids must be 0 to 36"),
        (lambda m: m.prefill(random_ids(1, 9), m.new_cache(1, 8)), "room for 8 tokens"),
        (lambda m: m.prefill(random_ids(2, 4), m.new_cache(1, 8)), "for 1 sequences, but 2"),
        (lambda m: m.new_cache(1, 0), "context >= 1"),
        (lambda m: m.new_cache(0, 1), "batch >= 1"),
        (lambda m: m(random_ids(1, 4), torch.tensor([[1, 0, 1, 1]])), "only leading positions may be padding"),
        (lambda m: m.loss(random_ids(1, 8), torch.tensor([[0] * 5 + [1] * 3])), "a row with more than 4 tokens"),
        (lambda m: m.generate(random_ids(1, 4), -1), "must not be negative"),
    ],
)
def test_what_cannot_be_done_is_said(model, call, said):
    with pytest.raises(ValueError, match=said):
        call(model)


def test_summation_adds_a_vector_to_the_token_before():
    """[0, t_1, t_2, t_3] + [E_1, E_2, E_3, E_4], as in itsnamgyu/block-transformer's token_decoder/base.py."""
    model = sharp(archspec.parse_spec_text(TEXT.replace("prefix 2", "summation")))
    inputs = []
    handle = model.tokens.layers[0].mixer_norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    ids = random_ids(1, 8)
    with torch.no_grad():
        model.loss(ids)
        context = model.blocks.run("forward", model.blocks.vectors(ids[:, None, :4]))
        expanded = model.tokens.expansion(context[:, 0]).reshape(1, 4, 16)
        before = torch.cat((torch.zeros_like(ids[:, :1]), ids[:, 4:7]), dim=1)
        torch.testing.assert_close(inputs[0], model.tokens.embed.weight[before] + expanded)
    handle.remove()


def test_padding_belongs_to_the_first_chunk(model):
    cache = model.new_cache(1, 12)
    model.prefill(random_ids(1, 4), cache)
    with pytest.raises(ValueError, match="only the first chunk"):
        model.prefill(random_ids(1, 4), cache, torch.tensor([[0, 1, 1, 1]]))


def test_a_yoco_over_blocks():
    """A level is all that a model of one stack can be: its prefill exit holds inside of it."""
    spec = archspec.parse_spec_text("""
model m {
  vocab 37, width 16, heads 2 x 8, ffn swiglu(24), rope 10000
  blocks of 2 tokens {
    layers 4, embed lookup 8 concat
    layers 1-2 retention
    cache@2: kv heads 1 x 8
    layers 3-4 cross-attend to cache@2
    prefill exit after cache@2
    emit context
  }
  tokens in block {
    layers 1
    prefix 1 from blocks.context
    layers 1 attend
  }
}
""")
    model = sharp(spec)
    ran = []
    for idx, layer in enumerate(model.blocks.layers):
        layer.ffn.register_forward_hook(lambda _, inputs, out, idx=idx: ran.append((idx, inputs[0].shape[1])))
    ids = random_ids(1, 14)
    last = model.prefill(ids, model.new_cache(1, 14))
    assert ran == [(0, 7), (1, 7), (2, 1), (3, 1)]
    with torch.no_grad():
        torch.testing.assert_close(last, model(ids)[:, -1], atol=1e-4, rtol=0)


def test_prefill_does_no_token_level_work_for_the_prompt(model):
    lengths = []
    handle = model.tokens.layers[0].ffn.register_forward_hook(lambda _, inputs, out: lengths.append(inputs[0].shape[1]))
    model.prefill(random_ids(1, 32), model.new_cache(1, 32))
    handle.remove()
    assert lengths == [2]  # the prefix of the block to come


def test_the_nano_spec_runs():
    model = archspec.compile(archspec.parse(ROOT / "specs" / "nano" / "nano_block.arch"), compile=False)
    assert model.generate(random_ids(1, 5, 256), 6).shape == (1, 11)
