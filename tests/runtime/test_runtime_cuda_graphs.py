"""Captured decode steps, on any machine: a stand-in for CUDA graphs replays operations with the numbers it saw first."""

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import archspec
from archspec.runtime.cuda_graphs import CudaGraph, DecodeGraphs
from archspec.runtime.network import Network
from archspec.runtime.sampling import Chooser, sample


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
            module.kept_steps = DecodeGraphs(lambda call: Recorded(kept).capture(call))
            found.append(module.kept_steps)
    return found


LEVELS = """model levels { vocab 61, norm rms(1e-5), ffn swiglu(48), rope 10000, heads 4 x 8
  blocks of 4 tokens { layers 2, width 32, embed lookup 8 concat
    layers 1-2 attend
    emit context }
  tokens in block { layers 2, width 32
    prefix 2 from blocks.context
    layers 1-2 attend } }"""
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
def test_steps_under_autocast_are_not_captured_and_replay_none():
    """A graph holds the dtypes of the step that it was captured from."""
    model, plain = sharp_model(hand_plans.dense()), sharp_model(hand_plans.dense())
    ids = tokens(1, 24)
    cache, other = model.new_cache(1, 24), plain.new_cache(1, 24)
    (graphs,) = captured(model, cache)
    for t in range(24):
        with torch.autocast("cpu", torch.bfloat16, enabled=t % 3 == 2):
            found, expected = model.decode(ids[:, t], cache), plain.decode(ids[:, t], other)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert graphs.failure is None
    assert graphs.num_captured >= 1


WAYS = [{}, {"temperature": 0.8}, {"temperature": 1.2, "top_k": 5}, {"temperature": 1.0, "top_k": 20, "top_p": 0.7}]


@pytest.mark.parametrize("make", ["shared", "late", "levels"])
@torch.no_grad()
def test_tokens_are_chosen_in_the_graph_as_without(make):
    """Greedily and by chance: for a seed the tokens that are chosen by the logits of the plain step; chance is new in
    every replay, and other numbers of a way are other graphs only where a graph must hold them."""
    if make == "levels":
        spec = archspec.parse_spec_text(LEVELS)
        model, plain = (archspec.compile(spec, seed=3, compile=False) for _ in range(2))
    else:
        model, plain = sharp_model(PLANS[make]()), sharp_model(PLANS[make]())
    caches = [m.new_cache(2, 300) for m in (model, plain)]
    graphs = captured(model, caches[0])[-1]
    for m, cache in zip((model, plain), caches, strict=True):
        m.prefill(tokens(2, 8), cache)
    counts = []
    for number, way in enumerate((*WAYS, {"temperature": 0.5}, {"temperature": 1.2, "top_k": 6})):
        chooser = Chooser(**way, generator=torch.Generator().manual_seed(number))
        other = torch.Generator().manual_seed(number)
        ids_B, seen = tokens(2, 1)[:, 0], []
        for _ in range(12):
            logits_BV = plain.decode(ids_B, caches[1])
            ids_B = model.decode(ids_B, caches[0], chooser=chooser)
            assert torch.equal(ids_B, sample(logits_BV, **way, generator=other))
            seen.append(ids_B.tolist())
        assert way == {} or len(set(map(tuple, seen))) > 2
        assert way == {} or torch.equal(torch.rand(3, generator=chooser.generator), torch.rand(3, generator=other))
        counts.append(graphs.num_captured)
    assert graphs.failure is None
    assert counts[4] == counts[3]  # a temperature is a tensor
    assert counts[5] > counts[4]  # the number of `top_k` is a size


@torch.no_grad()
def test_each_batch_and_cache_has_graphs_of_its_own():
    model = sharp_model(hand_plans.shared())
    ids = tokens(3, 10)
    expected = model(ids)
    small, large = model.new_cache(2, 10), model.new_cache(3, 10)
    kept = [t for c in (small, large) for t in (c.input_pos, *c.storage.slots)]
    model.kept_steps = DecodeGraphs(lambda call: Recorded(kept).capture(call))
    for t in range(10):
        torch.testing.assert_close(model.decode(ids[:2, t], small), expected[:2, t], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.decode(ids[:, t], large), expected[:, t], atol=1e-5, rtol=1e-4)
    assert model.kept_steps.num_captured == 2
    del small
    assert len(model.kept_steps._caches) == 1


@torch.no_grad()
def test_what_cannot_be_captured_runs_as_it_is():
    def refuse(call):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    model = sharp_model(hand_plans.retention())
    ids = tokens(1, 9)
    expected, cache = model(ids), model.new_cache(1, 9)
    model.kept_steps = DecodeGraphs(refuse)
    rows = [model.decode(ids[:, t], cache) for t in range(2)]
    with pytest.warns(UserWarning, match="without CUDA graphs: operation not permitted when stream is capturing$"):
        rows.append(model.decode(ids[:, 2], cache))
    rows += [model.decode(ids[:, t], cache) for t in range(3, 9)]
    torch.testing.assert_close(torch.stack(rows, dim=1), expected, atol=1e-5, rtol=1e-4)
    assert model.kept_steps.failure == "operation not permitted when stream is capturing"


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
    assert not isinstance(sharp_model(hand_plans.dense(), compile=True).kept_steps, DecodeGraphs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["shared", "mixed", "sunk", "late"])
@torch.no_grad()
def test_graphs_of_cuda(name):
    options = {"device": "cuda", "dtype": "bfloat16"}
    model, plain = (sharp_model(PLANS[name](), compile=compile, **options) for compile in (True, False))
    assert isinstance(model.kept_steps, DecodeGraphs)
    assert model.kept_steps._capture is CudaGraph
    ids = tokens(2, 150).cuda()
    caches = [m.new_cache(2, 150) for m in (model, plain)]
    for t in range(150):
        found, expected = model.decode(ids[:, t], caches[0]), plain.decode(ids[:, t], caches[1])
        torch.testing.assert_close(found, expected, atol=0.3, rtol=0.05)
    assert model.kept_steps.failure is None
    assert model.kept_steps.num_captured >= 1
