"""Gated retention: chunks, recurrence and the definition agree, and a long memory lasts in bfloat16."""

import hand_plans
import pytest
import torch
from hand_plans import tokens

from archspec.plan import RetentionPlan
from archspec.runtime.retention import CHUNK_LEN, GATE_NORMALIZER, Retention, retain_chunks, retain_one
from archspec.spec.model import Rope


def inputs(length, seed=0, heads=2, dim=4, batch=2):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, heads, length, dim, generator=generator)
    log_decay = -torch.rand(batch, heads, length, generator=generator)
    state = torch.randn(batch, heads, dim, dim, generator=generator)
    return q, k, v, log_decay, state


def retain_by_definition(q, k, v, log_decay, state):
    out = torch.zeros_like(v)
    for t in range(q.shape[2]):
        state = log_decay[:, :, t, None, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None, :]
        out[:, :, t] = torch.einsum("bnh,bnhe->bne", q[:, :, t], state)
    return out, state


@pytest.mark.parametrize("length", [2, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN + 5])
def test_chunks_agree_with_the_definition(length):
    q, k, v, log_decay, state = inputs(length)
    out, final = retain_chunks(q, k, v, log_decay, state)
    expected, expected_final = retain_by_definition(q, k, v, log_decay, state)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(final, expected_final, atol=1e-4, rtol=1e-4)


def test_one_token_agrees_with_the_definition():
    arguments = inputs(1)
    for found, expected in zip(retain_one(*arguments), retain_by_definition(*arguments), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_fast_decay_neither_overflows_nor_loses_gradients():
    q, k, v, log_decay, state = inputs(200)
    log_decay = (log_decay * 100).requires_grad_()
    out, final = retain_chunks(q, k, v, log_decay, state)
    (out.sum() + final.sum()).backward()
    assert out.isfinite().all()
    assert log_decay.grad.isfinite().all()


@pytest.mark.parametrize("chunked", [True, False])
@torch.no_grad()
def test_long_memory_in_bfloat16(chunked):
    """0.9989 a step keeps 0.33 after 1000 steps; a bfloat16 decay is 1.0 and would keep all of it."""
    hidden_size, steps = 8, 1000
    plan = RetentionPlan(2, 4, 0, Rope(kind="none"), 1e-5)
    module = Retention(plan, hidden_size).to(torch.bfloat16)
    gate = 4.02  # logsigmoid(gate) / 16 is about log(0.9989)
    module.k_proj.weight.zero_()
    module.gt_proj.weight.copy_(torch.full((2, hidden_size), gate / hidden_size))
    x = torch.ones(1, steps, hidden_size, dtype=torch.bfloat16)
    state = torch.ones(1, 2, 4, 4)
    for part in [x] if chunked else x.split(1, dim=1):
        _, state = module(part, {}, state)
    decay = torch.nn.functional.logsigmoid(module.gt_proj(x[:, :1]).float()).div(GATE_NORMALIZER).exp()
    assert state.dtype == torch.float32
    assert 0.9985 < float(decay[0, 0, 0]) < 0.9992
    torch.testing.assert_close(state, (decay[0, 0, 0].double() ** steps).float().expand_as(state), atol=2e-3, rtol=0)
    assert 0.2 < float(state[0, 0, 0, 0]) < 0.45


def test_bfloat16_decoding_stays_near_its_prefill():
    model = hand_plans.sharp_model(hand_plans.retention(), dtype="bfloat16")
    ids = tokens(1, 100)
    whole, stepwise = model.new_cache(1, 100), model.new_cache(1, 100)
    expected = model.prefill(ids, whole)
    for t in range(100):
        found = model.decode(ids[:, t], stepwise)
    torch.testing.assert_close(stepwise.storage.states[0], whole.storage.states[0], atol=0.1, rtol=0.05)
    torch.testing.assert_close(found, expected, atol=0.3, rtol=0)
