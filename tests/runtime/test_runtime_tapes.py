"""Decode steps played from tapes: the same numbers as steps that are run, and nothing of the first one in the others."""

import copy

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens
from marks import slowly
from test_runtime_cuda_graphs import LEVELS, PLANS

import archspec
from archspec.runtime import compiling
from archspec.runtime.decode_steps import Given
from archspec.runtime.decode_tapes import MOST_TAPES, DecodeTapes
from archspec.runtime.network import Network
from archspec.runtime.sampling import Chooser, sample


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch):
    monkeypatch.setattr(compiling, "COMPILER", "aot_eager")


def taped(model):
    """The model's stacks with tapes, compiled or not; the list of them."""
    stacks = [module for module in model.modules() if isinstance(module, Network)]
    for stack in stacks:
        stack.kept_steps = DecodeTapes(stack)
    return [stack.kept_steps for stack in stacks]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def compare(model, plain, ids, begins=(0, 5, 120), steps=12):
    """Past the end of a window, of a bucket, and after a reset."""
    caches = [m.new_cache(ids.shape[0], ids.shape[1]) for m in (model, plain)]
    for begin in begins:
        for m, cache in zip((model, plain), caches, strict=True):
            cache.reset()
            if begin:
                m.prefill(ids[:, :begin], cache)
        for t in range(begin, begin + steps):
            close(model.decode(ids[:, t], caches[0]), plain.decode(ids[:, t], caches[1]))
        for ours, theirs in zip(*(c.storage.slots + c.storage.states for c in caches), strict=True):
            close(ours, theirs)


@pytest.mark.parametrize("name", sorted(PLANS))
@torch.no_grad()
def test_tapes_are_the_steps(name):
    """Every operation by itself, as many as there are of them."""
    model, plain = sharp_model(PLANS[name]()), sharp_model(PLANS[name]())
    (tapes,) = taped(model)
    compare(model, plain, tokens(2, 150))
    assert tapes.failure is None
    assert 1 <= tapes.num_recorded <= 5
    assert tapes.num_recorded + tapes.num_played == 36


@pytest.mark.parametrize("name", ["mixed", "retention", *slowly("shared", "sunk", "late")])
@torch.no_grad()
def test_tapes_of_compiled_models_hold_their_graphs(name):
    model, plain = sharp_model(PLANS[name](), compile=True), sharp_model(PLANS[name]())
    compare(model, plain, tokens(2, 150))
    tapes = model.kept_steps
    assert isinstance(tapes, DecodeTapes)
    assert tapes.failure is None
    assert tapes.num_played > 20
    before = tapes.num_recorded
    cache = model.new_cache(3, 20)
    expected = plain(tokens(3, 20), exact=True)
    for t in range(20):
        close(model.decode(tokens(3, 20)[:, t], cache), expected[:, t])
    assert 1 <= tapes.num_recorded - before <= 2
    (held,) = [kept for of, kept in tapes._caches.items() if of is cache]
    longest = max(len(tape.calls) for tape in held.values())
    assert longest < 12 * len(model.layers)  # graphs, not what is in them


@torch.no_grad()
def test_padding_is_given():
    model, plain = sharp_model(hand_plans.mixed()), sharp_model(hand_plans.mixed())
    (tapes,) = taped(model)
    ids, cache = tokens(2, 40), model.new_cache(2, 40)
    for pads in ((0, 3), (5, 0), (2, 2)):
        cache.reset()
        mask = torch.arange(8) >= torch.tensor(pads)[:, None]
        other = plain.new_cache(2, 40)
        model.prefill(ids[:, :8], cache, mask)
        plain.prefill(ids[:, :8], other, mask)
        for t in range(8, 12):
            close(model.decode(ids[:, t], cache), plain.decode(ids[:, t], other))
    assert (tapes.num_recorded, tapes.num_played) == (1, 11)


@pytest.mark.parametrize("compile", [False, True])
@torch.no_grad()
def test_chance_is_given(compile):
    model, plain = sharp_model(hand_plans.shared(), compile=compile), sharp_model(hand_plans.shared())
    (tapes,) = taped(model)
    caches = [m.new_cache(2, 120) for m in (model, plain)]
    ways = [{}, {"temperature": 0.7, "top_k": 5}, {"temperature": 0.9, "top_p": 0.8}, {"temperature": 0.5}]
    for number, way in enumerate(ways):
        chooser = Chooser(**way, generator=torch.Generator().manual_seed(number))
        other = torch.Generator().manual_seed(number)
        ids_B = tokens(2, 1)[:, 0]
        for _ in range(8):
            logits_BV = plain.decode(ids_B, caches[1])
            ids_B = model.decode(ids_B, caches[0], chooser=chooser)
            assert torch.equal(ids_B, sample(logits_BV, **way, generator=other))
    assert tapes.failure is None
    assert tapes.num_played >= 8 * len(ways) - len(ways) - 1


@pytest.mark.parametrize("compile", [False, True])
@torch.no_grad()
def test_both_levels_have_tapes(compile):
    spec = archspec.parse_spec_text(LEVELS)
    model, plain = (archspec.compile(spec, seed=3, compile=c) for c in (compile, False))
    tapes = taped(model)
    ids = tokens(2, 40)
    caches = [m.new_cache(2, 40) for m in (model, plain)]
    for m, cache in zip((model, plain), caches, strict=True):
        m.prefill(ids[:, :6], cache)
    for t in range(6, 40):
        close(model.decode(ids[:, t], caches[0]), plain.decode(ids[:, t], caches[1]))
    assert [kept.failure for kept in tapes] == [None, None]
    assert all(kept.num_played > kept.num_recorded for kept in tapes)


@torch.no_grad()
def test_a_row_given_in_another_layout_is_the_same_row():
    model = sharp_model(hand_plans.dense(), compile=True)
    ids = tokens(4, 8)
    expected, cache = model(ids), model.new_cache(4, 8)
    wide = torch.stack((ids, ids), dim=-1)
    for t in range(8):
        given = ids[:, t] if t % 2 else wide[:, t, 0]
        close(model.decode(given, cache), expected[:, t])


class Doubled(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 2 * self.inner(x)


class Other(torch.Tensor):
    """What may have its numbers anywhere."""


CHANGES = {
    "a parameter": lambda m: setattr(m.layers[0].ffn.up_proj, "weight", torch.nn.Parameter(torch.ones(48, 32))),
    "a module of torch": lambda m: setattr(m, "norm", torch.nn.Identity()),
    "a module of others": lambda m: setattr(m, "norm", Doubled(m.norm)),
    "numbers in place": lambda m: m.norm.weight.mul_(3),
    "weights assigned": lambda m: m.load_state_dict({k: 2 * v for k, v in m.state_dict().items()}, assign=True),
    "moved": lambda m: m.double().float(),
    "a tensor of others": lambda m: setattr(
        m.norm, "weight", torch.nn.Parameter(torch.full((32,), 3.0).as_subclass(Other))
    ),
    "memory of a parameter": lambda m: setattr(m.norm.weight, "data", 3 * m.norm.weight.data),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
@torch.no_grad()
def test_what_changes_in_the_model_is_seen(change):
    model, plain = sharp_model(hand_plans.dense()), sharp_model(hand_plans.dense())
    taped(model)
    ids = tokens(1, 12)
    caches = [m.new_cache(1, 12) for m in (model, plain)]
    for m, cache in zip((model, plain), caches, strict=True):
        for t in range(5):
            before = m.decode(ids[:, t], cache)
        CHANGES[change](m)
    for t in range(5, 12):
        found, expected = model.decode(ids[:, t], caches[0]), plain.decode(ids[:, t], caches[1])
        close(found, expected)
    assert not torch.allclose(before, expected)


@torch.no_grad()
def test_caches_keep_few_tapes_and_take_them_along():
    model = sharp_model(hand_plans.shared())
    (tapes,) = taped(model)
    ids, cache = tokens(1, 3), model.new_cache(1, 2000)
    for _ in range(2000):
        model.decode(ids[:, 0], cache)
    assert tapes.num_recorded > MOST_TAPES
    assert [len(kept) for kept in tapes._caches.values()] == [MOST_TAPES]
    del cache
    assert len(tapes._caches) == 0


@torch.no_grad()
def test_a_copy_has_tapes_of_its_own():
    model = sharp_model(hand_plans.shared())
    (tapes,) = taped(model)
    ids, cache = tokens(1, 12), model.new_cache(1, 12)
    expected = model(ids)
    for t in range(6):
        model.decode(ids[:, t], cache)
    copied = copy.deepcopy(model)
    assert copied.kept_steps._stack[0] is copied
    for t in range(6, 12):  # with the cache that the original has tapes of
        close((copied if t % 2 else model).decode(ids[:, t], cache), expected[:, t])
    assert (tapes.num_recorded, copied.kept_steps.num_recorded) == (2, 1)
    assert copied.kept_steps.num_played == 2


def test_gradients_and_autocast_take_no_tapes():
    model = sharp_model(hand_plans.dense())
    (tapes,) = taped(model)
    ids, cache = tokens(1, 8), model.new_cache(1, 8)
    for t in range(4):
        model.run("decode", ids[:, t : t + 1], cache)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        tapes.run(lambda given: given.inputs + 1, None, Given(ids, None), cache)
    assert (tapes.num_recorded, tapes.num_played) == (0, 0)


@torch.no_grad()
def test_a_step_that_looks_at_numbers_is_run_every_time(monkeypatch):
    model = sharp_model(hand_plans.dense())
    (tapes,) = taped(model)
    real = model.layers[0].forward

    def looking(x, mix):
        return real(x, mix) * (1 if float(x.sum()) > -1e9 else 0)

    monkeypatch.setattr(model.layers[0], "forward", looking)
    ids, cache = tokens(1, 8), model.new_cache(1, 8)
    expected = model(ids)
    for t in range(8):
        close(model.decode(ids[:, t], cache), expected[:, t])
    assert tapes.failure == "the step looks at a number on its device"
    assert tapes.num_played == 0
