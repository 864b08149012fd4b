"""The loss in chunks: the numbers and gradients of a plain one, without logits of all tokens."""

import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import hand_plans
import pytest
import torch
import torch.nn.functional as F
from hand_plans import sharp_model, tokens
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import archspec
from archspec.runtime import loss
from archspec.runtime.loss import IGNORED, chunk_sizes, mean_loss

NANO_BLOCK = Path(__file__).parents[2] / "specs" / "nano" / "nano_block.arch"
HEADS = {
    "plain": {},
    "tied": {"tied_embeddings": True},
    "biased": {"head_bias": True},
    "tied and biased": {"tied_embeddings": True, "head_bias": True},
    "scaled": {"logit_scale": 0.4, "head_bias": True},
    "capped": {"final_softcap": 1.5, "logit_scale": 3.0},
}


def plain_loss(model, ids, mask=None):
    logits, targets = model(ids[:, :-1], None if mask is None else mask[:, :-1]), ids[:, 1:]
    if mask is not None:
        targets = targets.masked_fill(mask[:, :-1] == 0, IGNORED)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.flatten(0, 1).to(wide), targets.flatten(), ignore_index=IGNORED)


def gradients(model, found):
    model.zero_grad()
    (3 * found).backward()  # the loss need not be the end of the graph
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def compare(model, found, wanted, **tolerance):
    torch.testing.assert_close(found, wanted, **tolerance)
    left, right = gradients(model, found), gradients(model, wanted)
    assert [name for name, grad in left.items() if grad is None] == []
    torch.testing.assert_close(left, right, **tolerance)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_gradients_are_those_of_the_plain_loss(head, padded):
    model = sharp_model(replace(hand_plans.shared(), **{"tied_embeddings": False, **HEADS[head]})).double()
    if model.plan.head_bias:
        torch.nn.init.normal_(model.lm_head.bias)
    ids = tokens(3, 21)
    mask = (torch.arange(21) >= torch.tensor([0, 7, 18])[:, None]).long() if padded else None
    compare(model, model.loss(ids, mask), plain_loss(model, ids, mask), atol=1e-10, rtol=1e-9)


def test_a_sum_of_losses_has_the_sum_of_gradients():
    model = sharp_model(hand_plans.dense()).double()
    a, b = tokens(2, 9), tokens(3, 14)
    compare(model, model.loss(a) - 2 * model.loss(b), plain_loss(model, a) - 2 * plain_loss(model, b))


def test_in_bfloat16_the_loss_is_wide_and_gradients_are_as_good_as_plain_ones():
    model = sharp_model(hand_plans.shared()).bfloat16()
    ids = tokens(4, 40)
    found = model.loss(ids)
    assert found.dtype == torch.float32
    compare(model, found, plain_loss(model, ids), atol=2e-2, rtol=2e-2)


def levels_model(vocab_size=256):
    text = NANO_BLOCK.read_text().replace("vocab 256", f"vocab {vocab_size}")
    return archspec.compile(archspec.parse_spec_text(text), compile=False)


def dense_model(vocab_size=97):
    return sharp_model(replace(hand_plans.dense(), vocab_size=vocab_size))


@pytest.mark.parametrize("make", [dense_model, levels_model])
def test_readers_get_the_rows_before_they_are_logits(make):
    model = make().double()
    ids = tokens(2, 15)
    mask = (torch.arange(15) >= torch.tensor([0, 6])[:, None]).long()
    found = model(ids, mask, read=lambda rows: rows.logits())
    wanted = model(ids, mask)
    torch.testing.assert_close(found, wanted)
    few = model(ids, mask, read=lambda rows: rows.moved(lambda x: x[:, [3, 14]]).logits())
    torch.testing.assert_close(few, wanted[:, [3, 14]])
    short = model(ids[:, :2], read=lambda rows: rows.logits())
    torch.testing.assert_close(short, model(ids[:, :2]))
    targets = ids.masked_fill(mask == 0, IGNORED).roll(-1, 1)
    targets[:, -1] = IGNORED
    known = wanted.abs().sum(-1) > 0
    mean = F.cross_entropy(wanted[known], targets[known])
    compare(model, model(ids, mask, read=lambda rows: rows.loss(targets)), mean)
    count = int((targets[known] != IGNORED).sum())
    mean = F.cross_entropy(model(ids, mask)[known], targets[known])
    compare(model, model(ids, mask, read=lambda rows: rows.loss(targets, 2 * count)), mean / 2)


def test_frozen_parts_get_no_gradient_and_the_others_the_same():
    model = sharp_model(hand_plans.dense()).double()
    ids = tokens(2, 12)
    wanted = gradients(model, plain_loss(model, ids))
    model.lm_head.weight.requires_grad_(False)
    found = gradients(model, model.loss(ids))
    assert found.pop("lm_head.weight") is None
    del wanted["lm_head.weight"]
    torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        assert not model.loss(ids).requires_grad
        torch.testing.assert_close(model.loss(ids), plain_loss(model, ids))


def test_first_derivatives_by_differences():
    model = sharp_model(hand_plans.dense()).double()
    x = torch.randn(2, 5, hand_plans.WIDTH, dtype=torch.float64, requires_grad=True)
    targets = tokens(2, 5).index_fill(1, torch.tensor([3]), IGNORED)
    assert torch.autograd.gradcheck(lambda x: mean_loss(model, x, targets), x)


def test_hooks_of_a_parameter_see_its_whole_gradient_once():
    model, seen = sharp_model(hand_plans.dense()), []
    model.lm_head.weight.register_hook(seen.append)
    model.loss(tokens(2, 30)).backward()
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], model.lm_head.weight.grad)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 8, 100, 4096, 70_001])
@pytest.mark.parametrize("vocab_size", [2, 256, 128_256])
def test_chunks(num_rows, vocab_size):
    sizes = chunk_sizes(num_rows, vocab_size)
    assert sum(sizes) == num_rows
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 1 or num_rows == 1
    assert max(sizes) <= max(loss.FEWEST_ROWS, loss.LOGITS_AT_ONCE // vocab_size)
    if num_rows >= 8:
        assert max(sizes) <= math.ceil(num_rows / loss.FEWEST_CHUNKS)


class LargestOutput(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.largest = max(self.largest, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)), 0)
        return out


def largest_output(call):
    with LargestOutput() as mode:
        call()
    return mode.largest


@pytest.mark.parametrize("make", [dense_model, levels_model])
def test_logits_of_all_tokens_are_never_held(make, monkeypatch):
    model = make(6000)
    ids = tokens(4, 129)
    vocab_size = model.plan.vocab_size
    monkeypatch.setattr(loss, "FEWEST_CHUNKS", 16)  # so that with a vocabulary this small nothing else is as large
    all_logits = 4 * 128 * vocab_size
    plain = largest_output(lambda: model(ids).logsumexp(-1).sum().backward())
    found = largest_output(lambda: model.loss(ids).backward())
    assert plain >= all_logits * 0.9
    assert found <= all_logits / 4
    with torch.no_grad():
        assert largest_output(lambda: model.loss(ids)) <= all_logits / 4


def test_levels_have_the_loss_of_their_rows():
    model = levels_model().double()
    ids = tokens(3, 19)
    mask = (torch.arange(19) >= torch.tensor([0, 3, 12])[:, None]).long()
    first = model.plan.block_length - model.plan.padding(19)
    logits = model(ids)[:, first - 1 : -1]
    compare(model, model.loss(ids), F.cross_entropy(logits.flatten(0, 1), ids[:, first:].flatten()))
    known = model(ids, mask)[:, :-1].abs().sum(-1) > 0  # rows that are not predicted are zeros
    known[:, : first - 1] = False
    compare(model, model.loss(ids, mask), F.cross_entropy(model(ids, mask)[:, :-1][known], ids[:, 1:][known]))


def stand_in(calls):
    """With the arguments and result of Liger Kernel 0.6's function, by plain operations."""

    def liger_fused_linear_cross_entropy(
        input,
        weight,
        target,
        bias=None,
        ce_weight=None,
        ignore_index: int = -100,
        lse_square_scale: float = 0.0,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        softcap: float | None = None,
        return_z_loss: bool = False,
        accum_dtype=None,
        use_token_scaling: bool = False,
        return_token_accuracy: bool = False,
    ):
        calls.append((tuple(input.shape), accum_dtype))
        assert input.ndim == 2
        assert target.ndim == 1
        logits = F.linear(input, weight, bias).float()
        logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
        return F.cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)

    return liger_fused_linear_cross_entropy


@pytest.mark.parametrize("head", sorted(HEADS))
def test_a_fused_kernel_is_used_where_it_serves(head, monkeypatch):
    calls = []
    module = types.ModuleType("liger_kernel.transformers.functional")
    module.liger_fused_linear_cross_entropy = stand_in(calls)
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    loss._liger.cache_clear()
    try:
        cuda, cpu = torch.device("cuda"), torch.device("cpu")
        fused = loss.pick_fused(cuda, torch.bfloat16)
        assert fused is module.liger_fused_linear_cross_entropy
        assert loss.pick_fused(cuda, torch.float64) is None
        assert loss.pick_fused(cpu, torch.float32) is None
        model, ids = sharp_model(replace(hand_plans.shared(), **HEADS[head])), tokens(2, 15)
        wanted = model.loss(ids)
        assert not calls
        monkeypatch.setattr(loss, "pick_fused", lambda device, dtype: fused)
        compare(model, model.loss(ids), wanted)
        assert calls == [((28, hand_plans.WIDTH), torch.float32)]
        total = model(ids[:, :-1], read=lambda rows: rows.loss(ids[:, 1:], 7))
        compare(model, total, 4 * plain_loss(model, ids))
    finally:
        loss._liger.cache_clear()


def test_without_the_kernel_there_are_chunks(monkeypatch):
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    loss._liger.cache_clear()
    assert loss.pick_fused(torch.device("cuda"), torch.bfloat16) is None
    loss._liger.cache_clear()
