"""Under autocast a model computes about what it computes without: its caches keep the dtype of the model."""

import copy

import pytest
import torch
from hand_plans import sharp_model, tokens
from test_runtime_cuda_graphs import LEVELS, PLANS

import archspec


def outputs(model, ids):
    """Teacher forcing, a prompt in two parts and tokens one by one."""
    cache = model.new_cache(ids.shape[0], ids.shape[1])
    rows = [model(ids)[:, -1], model.prefill(ids[:, :9], cache), model.prefill(ids[:, 9:14], cache)]
    return [*rows, *(model.decode(ids[:, t], cache) for t in range(14, ids.shape[1]))], cache


def error(found, expected):
    """Of the spread of the logits, on the mean over all of them."""
    pairs = zip(found, expected, strict=True)
    return sum(float((one.float() - other).abs().mean() / other.std()) for one, other in pairs) / len(expected)


@torch.no_grad()
def compare(model, plain=None):
    """No worse than a model whose weights are rounded as well; where layers iterate, that is far from exact."""
    ids = tokens(2, 24)
    plain = plain or model
    expected, _ = outputs(plain, ids)
    with torch.autocast("cpu", torch.bfloat16):
        found, cache = outputs(model, ids)
    rounded, _ = outputs(copy.deepcopy(plain).to(torch.bfloat16), ids)
    assert error(found, expected) < 1.5 * error(rounded, expected) + 0.01
    slots = getattr(cache, "storage", None) or cache.blocks.storage
    assert all(buffer.dtype == torch.float32 for buffer in slots.slots + slots.states)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_one_level(name):
    compare(sharp_model(PLANS[name]()))


@pytest.mark.slow
def test_compiled():
    make = PLANS["shared"]
    compare(sharp_model(make(), compile=True), sharp_model(make()))


def test_two_levels():
    compare(archspec.compile(archspec.parse_spec_text(LEVELS), compile=False, seed=1))
