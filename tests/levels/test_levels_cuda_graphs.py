"""Captured decode steps of both levels, with a stand-in for graphs that runs a call again."""

import pytest
import torch
from test_levels_compile import SPECS
from test_levels_oracle import random_ids, sharp

import archspec
from archspec.runtime.cuda_graphs import DecodeGraphs
from archspec.runtime.network import Network


class Again:
    """A stand-in for a graph that runs the call again, on the same tensors."""

    def __init__(self, call):
        self.replay = call


@pytest.mark.parametrize("name", sorted(SPECS))
@torch.no_grad()
def test_both_levels_are_captured(name):
    model = sharp(archspec.parse_spec_text(SPECS[name]))
    ids = random_ids(2, 40)
    expected, cache = model(ids, prompt_len=6), model.new_cache(2, 40)
    stacks = [module for module in model.modules() if isinstance(module, Network)]
    for stack in stacks:
        stack.kept_steps = DecodeGraphs(Again)
    rows = [model.prefill(ids[:, :6], cache)] + [model.decode(ids[:, t], cache) for t in range(6, 40)]
    torch.testing.assert_close(torch.stack(rows, dim=1), expected[:, 5:], atol=1e-4, rtol=1e-3)
    assert [stack.kept_steps.failure for stack in stacks] == [None, None]
    assert all(stack.kept_steps.num_captured for stack in stacks)
