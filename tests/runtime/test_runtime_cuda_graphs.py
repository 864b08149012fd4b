"""Captured decode steps, on any machine: a stand-in for CUDA graphs replays operations with the numbers it saw first."""

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from archspec.runtime.cuda_graphs import CudaGraph, DecodeGraphs
from archspec.runtime.network import Network


class Recorded(TorchDispatchMode):
    """As a CUDA graph: the operations of a call on the very tensors it had, and with the numbers of the host it had.

    A capture must leave no trace, but operations are run to see them: `kept` are restored. An operation that looks at
    numbers on the device fails, as it does in a capture.
    """

    def __init__(self, kept):
        super().__init__()
        self.kept, self.ops = kept, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.ops.append((func, args, kwargs or {}, out))
        return out

    def capture(self, call):
        before = [tensor.clone() for tensor in self.kept]
        try:
            with self:
                self.out = call()
        finally:
            for tensor, old in zip(self.kept, before, strict=True):
                tensor.copy_(old)
        return self

    def replay(self):
        for func, args, kwargs, out in self.ops:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        return self.out


def captured(model, cache):
    """The model's stacks with graphs of their own; the list of them."""
    caches = [cache] if not hasattr(cache, "blocks") else [cache.blocks, cache.tokens]
    kept = [t for c in caches for t in (c.input_pos, *c.storage.slots, *c.storage.states)]
    found = []
    for module in model.modules():
        if isinstance(module, Network):
            module.graphs = DecodeGraphs(lambda call: Recorded(kept).capture(call))
            found.append(module.graphs)
    return found


PLANS = {**hand_plans.ALL, **hand_plans.LATE}


@pytest.mark.parametrize("live", ["near", "coarse", "whole"])
@pytest.mark.parametrize("name", sorted(PLANS))
@torch.no_grad()
def test_replays_are_the_steps(name, live):
    """Past the end of a window, of a bucket, and after a reset; nothing of the first step is baked in."""
    model, plain = sharp_model(PLANS[name]()), sharp_model(PLANS[name]())
    ids = tokens(2, 150)
    caches = [m.new_cache(2, 150) for m in (model, plain)]
    caches[0].live = live
    (graphs,) = captured(model, caches[0])
    buffers = [tensor.data_ptr() for tensor in caches[0].storage.slots]
    for begin in (0, 5, 120):
        for cache in caches:
            cache.reset()
        if begin:
            model.prefill(ids[:, :begin], caches[0])
            plain.prefill(ids[:, :begin], caches[1])
        for t in range(begin, begin + 12):
            found, expected = model.decode(ids[:, t], caches[0]), plain.decode(ids[:, t], caches[1])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        for ours, theirs in zip(caches[0].storage.slots, caches[1].storage.slots, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert graphs.failure is None
    assert 1 <= graphs.num_captured <= 4
    assert buffers == [tensor.data_ptr() for tensor in caches[0].storage.slots]


@torch.no_grad()
def test_padding_comes_from_a_fixed_place():
    model, plain = sharp_model(hand_plans.mixed()), sharp_model(hand_plans.mixed())
    ids = tokens(2, 40)
    cache = model.new_cache(2, 40)
    (graphs,) = captured(model, cache)
    for pads in ((0, 3), (5, 0), (2, 2)):
        cache.reset()
        mask = torch.arange(8) >= torch.tensor(pads)[:, None]
        other = plain.new_cache(2, 40)
        model.prefill(ids[:, :8], cache, mask)
        plain.prefill(ids[:, :8], other, mask)
        for t in range(8, 12):
            found, expected = model.decode(ids[:, t], cache), plain.decode(ids[:, t], other)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert graphs.num_captured == 1


@torch.no_grad()
def test_outputs_are_the_callers():
    model = sharp_model(hand_plans.dense())
    ids = tokens(1, 12)
    cache = model.new_cache(1, 12)
    captured(model, cache)
    rows = [model.decode(ids[:, t], cache) for t in range(12)]
    torch.testing.assert_close(torch.stack(rows, dim=1), model(ids), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_each_batch_and_cache_has_graphs_of_its_own():
    model = sharp_model(hand_plans.shared())
    ids = tokens(3, 10)
    expected = model(ids)
    small, large = model.new_cache(2, 10), model.new_cache(3, 10)
    kept = [t for c in (small, large) for t in (c.input_pos, *c.storage.slots)]
    model.graphs = DecodeGraphs(lambda call: Recorded(kept).capture(call))
    for t in range(10):
        torch.testing.assert_close(model.decode(ids[:2, t], small), expected[:2, t], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.decode(ids[:, t], large), expected[:, t], atol=1e-5, rtol=1e-4)
    assert model.graphs.num_captured == 2
    del small
    assert len(model.graphs._caches) == 1


@torch.no_grad()
def test_what_cannot_be_captured_runs_as_it_is():
    def refuse(call):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    model = sharp_model(hand_plans.retention())
    ids = tokens(1, 9)
    expected, cache = model(ids), model.new_cache(1, 9)
    model.graphs = DecodeGraphs(refuse)
    rows = [model.decode(ids[:, t], cache) for t in range(2)]
    with pytest.warns(UserWarning, match="without CUDA graphs: operation not permitted when stream is capturing$"):
        rows.append(model.decode(ids[:, 2], cache))
    rows += [model.decode(ids[:, t], cache) for t in range(3, 9)]
    torch.testing.assert_close(torch.stack(rows, dim=1), expected, atol=1e-5, rtol=1e-4)
    assert model.graphs.failure == "operation not permitted when stream is capturing"


@torch.no_grad()
def test_weights_that_move_take_the_graphs_with_them():
    model = sharp_model(hand_plans.dense())
    ids = tokens(1, 12)
    cache = model.new_cache(1, 12)
    (graphs,) = captured(model, cache)
    for t in range(6):
        model.decode(ids[:, t], cache)
    assert len(graphs._caches) == 1
    model.double().float()
    assert len(graphs._caches) == 0


def test_only_cuda_has_graphs():
    assert sharp_model(hand_plans.dense(), compile=True).graphs is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["shared", "mixed", "sunk", "late"])
@torch.no_grad()
def test_graphs_of_cuda(name):
    options = {"device": "cuda", "dtype": "bfloat16"}
    model, plain = (sharp_model(PLANS[name](), compile=compile, **options) for compile in (True, False))
    assert isinstance(model.graphs, DecodeGraphs)
    assert model.graphs._capture is CudaGraph
    ids = tokens(2, 150).cuda()
    caches = [m.new_cache(2, 150) for m in (model, plain)]
    for t in range(150):
        found, expected = model.decode(ids[:, t], caches[0]), plain.decode(ids[:, t], caches[1])
        torch.testing.assert_close(found, expected, atol=0.3, rtol=0.05)
    assert model.graphs.failure is None
    assert model.graphs.num_captured >= 1
