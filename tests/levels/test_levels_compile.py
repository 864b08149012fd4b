"""One graph for each kind of unit, for every position and length; equal to eager."""

import pytest
import torch
from marks import slowly
from test_levels_oracle import random_ids, sharp

import archspec

SPECS = {
    "prefix": """
model m {
  vocab 37, width 24, heads 2 x 8, ffn swiglu(24), rope 10000, norm rms(1e-5)
  blocks of 3 tokens {
    layers 4, embed lookup 8 concat
    layers 1 attend, window 5
    layers 2 retention
    cache@2: kv heads 1 x 8
    layers 3-4 cross-attend to cache@2
    emit context
  }
  tokens in block {
    layers 2, width 16
    prefix 2 from blocks.context
    layers 1 attend
    layers 2 cross-attend to cache@1
  }
}
""",
    "summation": """
model m {
  vocab 37, heads 2 x 8, ffn gelu(24), rope 10000 on 50%, norm layernorm(1e-5), bias, residual parallel
  blocks of 4 tokens {
    layers 2, width 24, embed lookup 24 sum
    layers 1-2 attend
    emit context
  }
  tokens in block {
    layers 2, width 16, tied embeddings
    summation from blocks.context
    layers 1-2 attend
  }
}
""",
}


@pytest.fixture(params=["eager", *slowly("aot_eager")])
def compiler(request):
    return request.param


def models(name):
    """A compiled model and the same one eager."""
    spec = archspec.parse_spec_text(SPECS[name])
    eager, compiled = sharp(spec), archspec.compile(spec, compile=True)
    compiled.load_state_dict(eager.state_dict())
    return compiled, eager


def assert_alike(compiled, eager, ids, chunks, context):
    """Prefill in chunks, and decode the rest."""
    caches = [model.new_cache(ids.shape[0], context) for model in (compiled, eager)]
    end = 0
    for size in [*chunks, *[0] * (ids.shape[1] - sum(chunks))]:
        begin, end = end, end + max(size, 1)
        found, expected = (
            model.prefill(ids[:, begin:end], cache) if size else model.decode(ids[:, begin], cache)
            for model, cache in zip((compiled, eager), caches, strict=True)
        )
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SPECS)
def test_one_graph_a_pass_for_every_position(name, graphs):
    compiled, eager = models(name)
    assert_alike(compiled, eager, random_ids(2, 60), [17], context=60)
    seen = graphs()
    assert_alike(compiled, eager, random_ids(3, 90), [24], context=700)
    assert graphs() == seen


@pytest.mark.parametrize("name", ["prefix", *slowly("summation")])
def test_one_more_for_chunks_that_end_in_a_block(name, graphs):
    compiled, eager = models(name)
    assert_alike(compiled, eager, random_ids(2, 40), [9, 2, 17, 7], context=64)
    seen = graphs()
    assert_alike(compiled, eager, random_ids(2, 77), [24, 26, 2, 18], context=80)
    assert graphs() == seen


@pytest.mark.parametrize("name", SPECS)
def test_one_graph_for_teacher_forcing(name, graphs):
    compiled, eager = models(name)
    seen = 0
    for length in (24, 60, 30, 26):
        with torch.no_grad():
            ids = random_ids(2, length)
            torch.testing.assert_close(compiled(ids), eager(ids), atol=1e-4, rtol=0)
        seen = seen or graphs()
    assert graphs() == seen


@pytest.mark.parametrize("name", ["summation", *slowly("prefix")])
def test_one_graph_for_training(name, graphs):
    compiled, eager = models(name)
    seen = 0
    for length in (24, 60, 30):
        for model in (compiled, eager):
            model.zero_grad()
            model.loss(random_ids(2, length)).backward()
        for left, right in zip(compiled.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(left.grad, right.grad, atol=1e-4, rtol=1e-3)
        seen = seen or graphs()
    assert graphs() == seen


def test_one_graph_for_padded_rows(graphs):
    compiled, eager = models("prefix")
    seen = 0
    for lengths in ([20, 9], [31, 30], [40, 7]):
        longest = max(lengths)
        mask = torch.stack([(torch.arange(longest) >= longest - length).long() for length in lengths])
        ids = random_ids(2, longest)
        caches = [model.new_cache(2, longest + 9) for model in (compiled, eager)]
        pairs = list(zip((compiled, eager), caches, strict=True))
        found, expected = (model.prefill(ids, cache, mask) for model, cache in pairs)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        for token_B in random_ids(9, 2):
            found, expected = (model.decode(token_B, cache) for model, cache in pairs)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        seen = seen or graphs()
    assert graphs() == seen


@pytest.mark.parametrize("name", ["summation", *slowly("prefix")])
def test_generated_code_agrees_with_eager(name):
    torch._dynamo.reset()
    compiled, eager = models(name)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_alike(compiled, eager, random_ids(2, 30), [17], context=40)
        assert_alike(compiled, eager, random_ids(2, 150), [140], context=150)
