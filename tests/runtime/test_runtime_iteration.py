"""Layers that read caches written later: passes, their gradient, token by token, and until nothing moves."""

from contextlib import nullcontext

import hand_plans
import pytest
import torch
import torch.nn.functional as F
from hand_plans import LATE, sharp_model, tokens

from archspec.runtime.rope import rope_table, rotate

LENGTH = 14
PADS = (0, 3, 9)


def model_of(name, forward=2, backward=2, **options):
    return sharp_model(LATE[name](forward, backward), **options)


def attend_by_loop(module, h, chunks, reader):
    """One query at a time, straight from the definition; positions count from 0."""
    keys, values = chunks
    x = module.q_proj(h).unflatten(-1, module.heads).transpose(1, 2)
    x = rotate(x, module.rotation, {module.rotation: rope_table(module.rotation, torch.arange(h.shape[1]))})
    group = x.shape[1] // keys.shape[1]
    keys, values = (t.repeat_interleave(group, 1) for t in (keys, values))
    rows = []
    for p in range(h.shape[1]):
        first = 0 if reader.window is None else max(0, p - reader.window + 1)
        seen = list(range(first, p + 1 if reader.sees_self else p))
        if not seen:
            rows.append(torch.zeros_like(x[:, :, p]))
            continue
        scores = (x[:, :, p, None] * keys[:, :, seen]).sum(-1) * reader.scale
        rows.append((scores.softmax(-1)[..., None] * values[:, :, seen]).sum(2))
    return module.o_proj(torch.stack(rows, 2).transpose(1, 2).flatten(2))


def reference(model, ids):
    """Teacher forcing of a plan of attention layers without sinks: passes as nested loops over a dict of K/V."""
    plan, caches = model.plan, {}
    tables = {r: rope_table(r, torch.arange(ids.shape[1])) for r in model._rotations}

    def run(steps, x):
        for step in steps:
            if step.op == "write":
                norm, project = model.writers[step.idx]
                caches[step.idx] = project(x if norm is None else norm(x), tables)
            elif step.op == "layer":
                block, mixer = model.layers[step.idx], plan.layers[step.idx].mixer
                x = x + attend_by_loop(block.mixer, block.mixer_norm(x), caches[mixer.slot_idx], mixer)
                x = x + block.ffn(block.ffn_norm(x))
            else:
                x = iterate(plan.groups[step.idx], x)
        return x

    def iterate(group, x):
        for idx in group.late_slots:
            slot = plan.slots[idx]
            caches[idx] = (torch.zeros(x.shape[0], slot.num_kv_heads, x.shape[1], slot.head_dim),) * 2
        for number in range(group.forward + group.backward):
            with torch.no_grad() if number < group.forward else nullcontext():
                y = run(group.steps, x)
        return y

    return F.linear(model.norm(run(plan.body, model.embed(ids))), model.lm_head.weight)


def simple(forward, backward):
    """Two late readers below a source, one reader and a slot of its own behind it."""
    late_reader = {"owns": False, "sees_self": False}
    slots = [hand_plans.slot(0, 3, [1, 2, 3, 4]), hand_plans.slot(1, 2, [0])]
    layers = [
        hand_plans.attend(0, slots[0], **late_reader),
        hand_plans.attend(1, slots[0], window=5, heads=2, **late_reader),
        hand_plans.attend(2, slots[1]),
        hand_plans.attend(3, slots[0]),
        hand_plans.attend(4, slots[0], owns=False),
    ]
    inner = tuple(map(hand_plans.layer, (0, 1)))
    group = hand_plans.IterationGroup(
        0, (*inner, hand_plans.write(1), hand_plans.layer(2), hand_plans.write(0)), (0,), forward, backward
    )
    body = [hand_plans.Step("iterate", 0), hand_plans.layer(3), hand_plans.layer(4)]
    return hand_plans.plan("simple", layers, slots, body, 1, groups=(group,))


@pytest.mark.parametrize(("forward", "backward"), [(0, 1), (3, 1), (0, 3), (2, 2), (3, 0)])
def test_passes_and_gradient_agree_with_loops(forward, backward):
    model, ids = sharp_model(simple(forward, backward)), tokens(2, 9)
    results = []
    for call in (model, lambda ids: reference(model, ids)):
        model.zero_grad()
        logits = call(ids)
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        results.append((logits.detach(), {n: p.grad for n, p in model.named_parameters()}))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-4, rtol=0)
    for name, expected in results[1][1].items():
        found = results[0][1][name]
        assert (found is None) == (expected is None), name
        if expected is not None:
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3, msg=name)


def test_gradient_reaches_as_far_as_the_backward_passes():
    """With one backward pass, what a late reader sees is a constant; the source learns from later layers alone."""
    plan = simple(2, 1)
    reader_only = hand_plans.replace(plan, body=(hand_plans.Step("iterate", 0),), exit_idx=1)
    for backward, learns in ((1, False), (2, True)):
        group = hand_plans.replace(plan.groups[0], backward=backward)
        model = sharp_model(hand_plans.replace(reader_only, groups=(group,)))
        model.loss(tokens(1, 9)).backward()
        gradient = model.layers[3].mixer.kv.k_proj.weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == learns
        assert bool(model.layers[0].mixer.q_proj.weight.grad.abs().sum() > 0)


@pytest.mark.parametrize("name", sorted(LATE))
@torch.no_grad()
def test_enough_passes_are_exact(name):
    """After n passes the first n positions are right, so all ways to compute them agree."""
    model, ids = model_of(name, LENGTH, 1), tokens(2, LENGTH)
    expected = model(ids, exact=True)
    torch.testing.assert_close(model(ids), expected, atol=1e-4, rtol=0)
    few = model_of(name, 3, 1)
    few.load_state_dict(model.state_dict())
    exact = 4 if len(model.plan.groups) == 1 else 3
    torch.testing.assert_close(few(ids)[:, :exact], expected[:, :exact], atol=1e-4, rtol=0)
    assert float((few(ids) - expected).abs().max()) > 0.01
    for chunks in ([LENGTH], [3, 1, 5, 2, 3], [1] * LENGTH, [8, 6]):
        for options in ({}, {"early_exit": False}, {"exact": True}):
            cache, end = model.new_cache(2, LENGTH + 2), 0
            for size in chunks:
                begin, end = end, end + size
                found = model.prefill(ids[:, begin:end], cache, **options)
                torch.testing.assert_close(found, expected[:, end - 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(LATE))
@torch.no_grad()
def test_only_the_last_pass_is_kept(name):
    """A prefill of few passes leaves the caches of its last pass: the same passes without a cache agree with it."""
    model, ids = model_of(name), tokens(2, LENGTH)
    for early_exit in (True, False):
        cache = model.new_cache(2, LENGTH)
        found = model.prefill(ids, cache, early_exit=early_exit)
        torch.testing.assert_close(found, model(ids)[:, -1], atol=1e-4, rtol=0)


def test_the_ring_holds_the_last_pass():
    """Slot by slot against a forward pass that notes what it wrote."""
    model, ids = model_of("late"), tokens(2, LENGTH)
    with torch.no_grad():
        cache = model.new_cache(2, LENGTH)
        model.prefill(ids, cache)
        x, run = model.begin(ids, None, None)
        run.steps(model.plan.body, x)
    for slot in model.plan.slots:
        for index, expected in enumerate(run.written[slot.idx]):
            found = cache.storage.slots[slot.idx][:, :, index]
            kept = range(LENGTH) if slot.window is None else range(LENGTH - slot.window, LENGTH)
            places = [p if slot.window is None else p % slot.window for p in kept]
            torch.testing.assert_close(found[:, :, places], expected[:, :, list(kept)], atol=1e-4, rtol=0)


@pytest.mark.parametrize("exact", [False, True])
@torch.no_grad()
def test_padding(exact):
    """The first token of a padded row sees nothing in a layer that does not see itself."""
    model = model_of("late")
    ids = tokens(len(PADS), LENGTH)
    mask = torch.arange(LENGTH) >= torch.tensor(PADS)[:, None]
    found = model(ids, mask, exact=exact)
    cache = model.new_cache(len(PADS), LENGTH + 3)
    last = [model.prefill(ids, cache, mask, exact=exact), model.decode(ids[:, 0], cache)]
    assert found.isfinite().all()
    for b, pad in enumerate(PADS):
        row = ids[b : b + 1, pad:]
        torch.testing.assert_close(found[b : b + 1, pad:], model(row, exact=exact), atol=1e-4, rtol=0)
        alone = model.new_cache(1, LENGTH + 3)
        expected = [model.prefill(row, alone, exact=exact), model.decode(ids[b : b + 1, 0], alone)]
        for left, right in zip(last, expected, strict=True):
            torch.testing.assert_close(left[b : b + 1], right, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(LATE))
@torch.no_grad()
def test_convergence(name):
    model, ids = model_of(name), tokens(2, LENGTH)
    exact = model(ids, exact=True)
    full = model.converge(ids, tolerance=1e-4)
    assert full.converged
    assert full.change <= 1e-4
    assert 2 < full.num_passes <= LENGTH + 1
    torch.testing.assert_close(full.logits, exact, atol=1e-3, rtol=0)
    short = model.converge(ids, tolerance=1e-4, max_passes=2)
    assert (short.num_passes, short.converged) == (2, False)
    assert short.change > 1e-4
    passes = model.plan.groups[0].num_passes
    found = model.converge(ids, tolerance=0.0, max_passes=passes)
    torch.testing.assert_close(found.logits, model(ids), atol=1e-5, rtol=0)


@torch.no_grad()
def test_nothing_to_converge():
    model, ids = sharp_model(hand_plans.dense()), tokens(2, 5)
    found = model.converge(ids)
    assert (found.num_passes, found.change, found.converged) == (0, 0.0, True)
    torch.testing.assert_close(found.logits, model(ids), atol=0, rtol=0)
    for options in ({"max_passes": 0}, {"tolerance": -1.0}, {"tolerance": float("nan")}):
        with pytest.raises(ValueError, match="max_passes must be at least 1"):
            model.converge(ids, **options)


@pytest.mark.parametrize("name", sorted(LATE))
def test_generation_and_sizes(name):
    model, ids = model_of(name), tokens(2, 6)
    assert model.generate(ids, 5).shape == (2, 11)
    assert model.new_cache(2, 9).nbytes == model.plan.cache_bytes(2, 9, "float32")
    assert [(k, tuple(v.shape)) for k, v in model.state_dict().items()] == list(model.plan.parameter_shapes())
