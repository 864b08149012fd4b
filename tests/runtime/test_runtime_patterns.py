"""Layers that differ in head_dim, in rope and in having positions at all, and share caches all the same."""

import pytest
import torch

import archspec
from archspec.driver import analyse_text
from archspec.graph.unshare import without_sharing
from archspec.runtime.model import Model
from archspec.testing.oracle import assert_oracle

GEMMA_4 = """
model gemma_4_like {
  layers 8, width 32, vocab 41, ffn geglu-tanh(48), norm rms(1e-3), sandwich norms
  qk-norm, v-norm rms(1e-3, no weight), attention scale 1, final softcap 30

  layers 1-3 attend, heads 4 x 8, kv heads 2, window 5, rope 100
  layers 4 attend, heads 4 x 16, kv heads 1, rope proportional(1000) on 25%, values-from-keys
  layers 5-7 cross-attend to cache@3, heads 4 x 8, window 5
  layers 8 cross-attend to cache@4, heads 2 x 16
}
"""
SMOLLM3 = """
model smollm3_like {
  layers 8, width 32, vocab 41, ffn swiglu(48), norm rms(1e-3), rope 1000 scaled yarn(4, original 8), heads 4 x 8, kv heads 2

  layers 4 attend, no rope
  layers 1-3 attend
  layers 5-7 cross-attend to cache@3
  layers 8 cross-attend to cache@4
}
"""
GPT_OSS = """
model gpt_oss_like {
  layers 4, width 32, vocab 41, ffn swiglu(48), norm rms(1e-3), bias qkv out, heads 4 x 8, kv heads 2, sink-logits
  rope 1000 scaled yarn(4, original 8, no truncate)

  layers 1-3 step 2 attend, window 4
  layers 2 attend
  layers 4 cross-attend to cache@2, no sink-logits
}
"""


def model_of(text: str) -> Model:
    model = archspec.compile(archspec.parse_spec_text(text), dtype="float64", seed=2, compile=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return model


@pytest.mark.parametrize("text", [GEMMA_4, SMOLLM3, GPT_OSS], ids=["gemma 4", "smollm3", "gpt-oss"])
def test_every_path_agrees(text):
    model = model_of(text)
    ids = torch.randint(0, 41, (2, 19), generator=torch.Generator().manual_seed(0))
    assert_oracle(model, ids, [4, 7, 1], tolerance=1e-6)


def test_every_cache_has_the_size_of_its_own_heads():
    model = model_of(GEMMA_4)
    cache = model.new_cache(batch=3, context=11)
    assert [tuple(buffer.shape) for buffer in cache.storage.slots] == [*[(3, 2, 2, 5, 8)] * 3, (3, 1, 2, 11, 16)]
    assert cache.nbytes == model.plan.cache_bytes(3, 11, "float64") == 3 * 8 * 2 * (3 * 2 * 5 * 8 + 11 * 16)
    assert model.layers[3].mixer.kv.v_proj is None


def test_readers_turn_as_their_cache_was_turned():
    plan = archspec.plan(archspec.parse_spec_text(SMOLLM3))
    kinds = [layer.mixer.rope.kind for layer in plan.layers]
    assert kinds == ["half", "half", "half", "none", "half", "half", "half", "none"]
    assert plan.layers[4].mixer.rope.scaling is not None


def test_unshared_models_make_values_as_the_cache_did():
    analysis = analyse_text(GEMMA_4)
    plan = archspec.plan(without_sharing(analysis.elaborated.spec, analysis.graph))
    assert [slot.values_from_keys for slot in plan.slots] == [False] * 3 + [True] + [False] * 3 + [True]
    assert {slot.v_norm.weight for slot in plan.slots} == {False}
