"""A compiled training step: a graph for each kind of unit, whatever the depth and the length."""

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens
from marks import slowly


def dense(num_layers):
    slots = [hand_plans.slot(i, i, [i]) for i in range(num_layers)]
    layers = [hand_plans.attend(i, slots[i]) for i in range(num_layers)]
    body = [step for i in range(num_layers) for step in (hand_plans.write(i), hand_plans.layer(i))]
    return hand_plans.plan(f"dense{num_layers}", layers, slots, body, 2 * num_layers - 1)


def step(model, ids):
    model.zero_grad()
    loss = model.loss(ids)
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()]


@pytest.mark.parametrize("checkpointing", [False, *slowly(True)])
def test_graphs_of_a_step_do_not_grow_with_depth(checkpointing, graphs):
    found = []
    for num_layers in (2, 6):
        compiled, eager = (sharp_model(dense(num_layers), compile=compile) for compile in (True, False))
        if checkpointing:
            compiled.gradient_checkpointing_enable()
        before = graphs()
        torch.testing.assert_close(step(compiled, tokens(2, 9)), step(eager, tokens(2, 9)), atol=1e-4, rtol=1e-3)
        found.append(graphs() - before)
    # What enters, a layer, the last norm, and a chunk of the loss; each with its backward pass.
    assert found == [4, 4]


@pytest.mark.parametrize("checkpointing", [True, *slowly(False)])
def test_lengths_share_graphs(checkpointing, graphs):
    compiled, eager = (sharp_model(hand_plans.shared(), compile=compile) for compile in (True, False))
    if checkpointing:
        compiled.gradient_checkpointing_enable()
    seen = 0
    # Beyond one block of the window, more and fewer tokens, and another batch.
    for batch, length in ((2, 40), (2, 130), (3, 33), (2, 300)):
        ids = tokens(batch, length)
        torch.testing.assert_close(step(compiled, ids), step(eager, ids), atol=1e-4, rtol=1e-3)
        seen = seen or graphs()
    assert graphs() == seen


def test_evaluation_has_graphs_without_backward_and_no_logits(graphs):
    model = sharp_model(dense(2), compile=True)
    with torch.no_grad():
        model.loss(tokens(2, 12))
        seen = graphs()
        model.loss(tokens(2, 50))
    assert graphs() == seen
    assert not any(unit.__name__ == "leave" for unit, *_ in model.call._made)
