"""Gradients reach what the semantics reach, and nothing else."""

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens

EVERY = {**hand_plans.ALL, **hand_plans.LATE}
LENGTH = 12


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_parameter_learns(name):
    """Layers behind the prefill exit too: teacher forcing runs them for every position."""
    model = sharp_model(EVERY[name]())
    model.loss(tokens(2, LENGTH)).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)] == []
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def reached(model, t):
    """Positions whose input vectors the output at position t depends on."""
    x = torch.randn(1, LENGTH, hand_plans.WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = model.run("forward", x)
    y[:, t].square().sum().backward()
    return x.grad[0].abs().sum(-1).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("name", sorted(EVERY))
def test_only_the_past_is_reached(name):
    model = sharp_model(hand_plans.replace(EVERY[name](), inputs="vectors", tied_embeddings=False, outputs="vectors"))
    for t in (0, 5, LENGTH - 1):
        found = reached(model, t)
        assert found[-1] == t
        if name not in ("sunk", "windowed", *hand_plans.LATE):
            assert found == list(range(t + 1))


def test_passes_without_gradient_reach_through_what_every_pass_starts_from():
    """A token's own column is computed with gradient; earlier ones come through keys that a forward pass made."""
    slot = hand_plans.slot(0, 1, [0])
    layers = [hand_plans.attend(0, slot, owns=False, sees_self=False), hand_plans.attend(1, slot)]
    inner = (hand_plans.layer(0), hand_plans.write(0))
    body = [hand_plans.Step("iterate", 0)]
    for backward, expected in ((1, [5]), (2, [0, 1, 2, 3, 4, 5])):
        group = hand_plans.IterationGroup(0, inner, (0,), 2, backward)
        plan = hand_plans.plan("two", layers, [slot], body, 1, groups=(group,), inputs="vectors", outputs="vectors")
        assert reached(sharp_model(plan), 5) == expected
