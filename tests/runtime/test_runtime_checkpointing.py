"""Gradient checkpointing: the same gradients from fewer saved bytes, in every architecture, compiled or not."""

from pathlib import Path

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens
from marks import slowly
from torch._dynamo.utils import counters

import archspec
from archspec.runtime import compiling

EVERY = {**hand_plans.ALL, **hand_plans.LATE}
NANO = sorted((Path(__file__).parents[2] / "specs" / "nano").glob("*.arch"))


def gradients(model, ids, mask=None):
    model.zero_grad()
    loss = model.loss(ids, mask)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]


def saved_bytes(model, ids):
    """Of all that the graph of a loss keeps and that is no parameter, each memory once."""
    own, seen = {p.untyped_storage()._cdata for p in model.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            seen[storage._cdata] = storage  # kept alive, so that no other memory gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.loss(ids)
    return sum(storage.nbytes() for storage in seen.values())


@pytest.mark.parametrize("name", sorted(EVERY))
def test_gradients_are_equal(name):
    model = sharp_model(EVERY[name]()).double()
    mask = None
    if not any(slot.sinks for slot in model.plan.slots):
        mask = (torch.arange(20) >= torch.tensor([0, 6])[:, None]).long()
    wanted = gradients(model, tokens(2, 20), mask)
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients(model, tokens(2, 20), mask), wanted)


@pytest.mark.parametrize("path", NANO, ids=lambda path: path.stem)
def test_less_is_saved(path):
    model = archspec.compile(archspec.parse(path), compile=False)
    ids = tokens(2, 97)
    wanted, plain = gradients(model, ids), saved_bytes(model, ids)
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients(model, ids), wanted)
    assert saved_bytes(model, ids) < 0.5 * plain
    model.gradient_checkpointing_disable()
    assert saved_bytes(model, ids) == plain


def test_layers_run_again_and_only_with_gradient():
    model, calls = sharp_model(hand_plans.dense()), []
    for layer in model.layers:
        layer.ffn.register_forward_pre_hook(lambda *_: calls.append(1))
    model.gradient_checkpointing_enable()
    with torch.no_grad():
        model.loss(tokens(1, 9))
    model.generate(tokens(1, 3), 2)
    before = len(calls)
    model.loss(tokens(1, 9)).backward()
    assert len(calls) == before + 2 * len(model.layers)


@pytest.mark.parametrize("name", ["shared", *slowly("mixed", "late")])
def test_compiled_units_run_again_without_graphs_of_their_own(name, monkeypatch):
    monkeypatch.setattr(compiling, "COMPILER", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    compiled, eager = sharp_model(EVERY[name](), compile=True), sharp_model(EVERY[name]())
    ids = tokens(2, 20)
    compiled.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients(compiled, ids), gradients(eager, ids), atol=1e-5, rtol=1e-4)
    seen, saved = counters["stats"]["unique_graphs"], saved_bytes(compiled, ids)
    compiled.gradient_checkpointing_disable()
    torch.testing.assert_close(gradients(compiled, ids), gradients(eager, ids), atol=1e-5, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] == seen
    assert saved < saved_bytes(compiled, ids)
