"""Property tests over specs that Hypothesis makes: all paths agree, and plans tell the truth about sizes.

In float64, where a wrong position or window cannot hide behind rounding; recurrent states are float32 all the same.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings

import archspec
from archspec.spec.model import ModelSpec
from archspec.testing.oracle import assert_oracle, assert_sizes
from archspec.testing.strategies import contexts, iterated_specs, settled, specs

TOLERANCE = 1e-3
"""The float32 rounding of recurrent states grows with depth; errors of structure are larger by far."""


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), contexts())
def test_every_path_gives_the_same_logits(spec: ModelSpec, context: tuple[int, int, tuple[int, ...]]) -> None:
    batch, num_tokens, chunks = context
    model = archspec.compile(spec, seed=1, dtype="float64", compile=False)
    ids = torch.randint(0, spec.vocab_size, (batch, num_tokens), generator=torch.Generator().manual_seed(0))
    randomise(model)
    assert_oracle(model, ids, chunks, tolerance=TOLERANCE)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(iterated_specs(passes=10), contexts(max_len=10))
def test_iterated_specs_agree_with_exact(spec: ModelSpec, context: tuple[int, int, tuple[int, ...]]) -> None:
    """With as many passes as tokens the iterated plan is exact, and so every path agrees."""
    batch, num_tokens, chunks = context
    model = archspec.compile(spec, seed=1, dtype="float64", compile=False)
    ids = torch.randint(0, spec.vocab_size, (batch, num_tokens), generator=torch.Generator().manual_seed(0))
    randomise(model)
    assert_oracle(model, ids, chunks, tolerance=TOLERANCE)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs().map(settled), contexts())
def test_float32_agrees_to_rounding(spec: ModelSpec, context: tuple[int, int, tuple[int, ...]]) -> None:
    """Deep random stacks amplify rounding, so that the bound is loose; an error of structure is larger still."""
    batch, num_tokens, chunks = context
    model = archspec.compile(spec, seed=1, compile=False)
    randomise(model)
    ids = torch.randint(0, spec.vocab_size, (batch, num_tokens), generator=torch.Generator().manual_seed(0))
    assert_oracle(model, ids, chunks, tolerance=5e-3)


@settings(max_examples=200, deadline=None)
@given(specs(), contexts())
def test_bfloat16_buffers_are_as_planned(spec: ModelSpec, context: tuple[int, int, tuple[int, ...]]) -> None:
    batch, num_tokens, _ = context
    model = archspec.compile(spec, dtype="bfloat16", compile=False)
    assert_sizes(model, batch, num_tokens)


def randomise(model: torch.nn.Module) -> None:
    """Larger weights than at initialisation, biases and norms included, so that every part shows in the logits."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.empty(parameter.shape, dtype=torch.float64).normal_(0, 1, generator=generator)
            is_norm = name.endswith("norm.weight")
            parameter.copy_(
                1 + 0.2 * noise
                if is_norm
                else noise * (0.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.2)
            )
        for buffer in model.buffers():
            buffer.copy_(1 + 0.2 * torch.empty(buffer.shape, dtype=torch.float64).normal_(0, 1, generator=generator))


@pytest.mark.parametrize("length", [1, 2])
def test_shortest_sequences(length: int) -> None:
    spec = archspec.parse_spec_text(
        "model m {\n layers 1, width 16, vocab 11, heads 2 x 8, ffn gelu(8), rope 100\n layers 1 attend, window 1\n}"
    )
    model = archspec.compile(spec, compile=False)
    ids = torch.zeros((1, length), dtype=torch.int64)
    cache = model.new_cache(1, length)
    assert torch.allclose(model.prefill(ids, cache), model(ids)[:, -1], atol=1e-6)
