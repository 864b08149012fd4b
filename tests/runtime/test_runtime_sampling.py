"""Choosing tokens: the right distribution, the same tokens for a seed, inside of the step that computes the logits."""

from pathlib import Path

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens
from torch.utils._python_dispatch import TorchDispatchMode

import archspec
from archspec.runtime.level_stacks import BlockStack
from archspec.runtime.sampling import Chooser, Draw, choose, keep_top_k, keep_top_p, sample

NANO = Path(__file__).parents[2] / "specs" / "nano"
WAYS = [{}, {"temperature": 0.7}, {"temperature": 1.3, "top_k": 5}, {"temperature": 1.0, "top_k": 9, "top_p": 0.8}]


def nano(name, **options):
    return archspec.compile(archspec.parse(NANO / f"nano_{name}.arch"), **options)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def chi_square(found, probs, num_draws):
    """Pearson's statistic over what can happen; nothing else may have."""
    assert not found[probs == 0].any()
    expected = probs[probs > 0] * num_draws
    return float(((found[probs > 0] - expected) ** 2 / expected).sum()), len(expected) - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS[1:], ids=str)
def test_frequencies_are_the_probabilities(way, dtype):
    logits = (2 * torch.randn(20, generator=seeded(3), dtype=torch.float64)).to(dtype)
    num_draws = 40_000
    ids = sample(logits.expand(num_draws, -1), **way, generator=seeded(1))
    scaled = logits[None].double() / way["temperature"]
    if "top_k" in way:
        scaled = keep_top_k(scaled, way["top_k"])
    if "top_p" in way:
        scaled = keep_top_p(scaled, way["top_p"])
    statistic, freedom = chi_square(ids.bincount(minlength=20), scaled.softmax(-1)[0], num_draws)
    # Five standard deviations above the mean of the chi-square distribution.
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def test_top_k_is_before_top_p():
    # Of the two best, the first has 0.6 of the probability: enough. Of all tokens it has 0.3, and two are needed.
    logits = torch.tensor([[0.3, 0.2, 0.18, 0.17, 0.15]]).log().expand(500, -1)
    assert set(sample(logits, 1.0, 2, 0.6 - 1e-3, seeded(0)).tolist()) == {0}
    assert set(sample(logits, 1.0, None, 0.5 - 1e-3, seeded(0)).tolist()) == {0, 1}


def test_a_choice_never_falls_on_what_is_left_out_whatever_the_noise():
    logits = torch.tensor([[1.0, 2.0, -torch.inf, 0.0]])
    for noise in (torch.zeros(1, 4), torch.full((1, 4), 1e30), torch.tensor([[5.0, 5.0, 0.0, 5.0]])):
        draw = Draw(noise, torch.tensor(1.0), 2, torch.tensor(0.99))
        assert int(choose(logits, draw)) in (0, 1)


def test_values_that_mean_nothing_are_refused():
    for way in ({"temperature": -1}, {"temperature": 1, "top_k": 0}, {"temperature": 1, "top_p": 0.0}):
        with pytest.raises(ValueError, match=next(reversed(way))):
            Chooser(**way)


def by_hand(model, ids, num_new, **way):
    """Prefill, decode and choices one after the other."""
    generator = seeded(5)
    cache = model.new_cache(ids.shape[0], ids.shape[1] + num_new)
    logits = model.prefill(ids, cache)
    for _ in range(num_new):
        next_B = sample(logits, **way, generator=generator)
        ids = torch.cat((ids, next_B[:, None]), dim=1)
        logits = model.decode(next_B, cache)
    return ids


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", ["llama", "block"])
def test_generation_is_prefill_decode_and_sample(name, way):
    model = nano(name, compile=False)
    ids = tokens(3, 9)
    found = model.generate(ids, 11, **way, seed=5)
    assert torch.equal(found, by_hand(model, ids, 11, **way))
    assert torch.equal(found, model.generate(ids, 11, **way, seed=5))
    if way:
        assert not torch.equal(found, model.generate(ids, 11, **way, seed=6))


def test_the_first_of_single_tokens_is_chosen_once():
    """A prompt of one token, and chunks taken token by token."""
    for name in ("lckv", "block"):
        model = nano(name, compile=False)
        logits = model.prefill(tokens(2, 5), model.new_cache(2, 8), exact=True)
        chooser = Chooser(1.0, generator=seeded(1))
        found = model.prefill(tokens(2, 5), model.new_cache(2, 8), exact=True, chooser=chooser)
        assert torch.equal(found, sample(logits, 1.0, generator=seeded(1)))
        assert model.generate(tokens(2, 1), 3, temperature=1.0, seed=1).shape == (2, 4)


class Looks(TorchDispatchMode):
    """How often the host asks for a value."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["llama", "lckv", "block"])
def test_the_host_waits_for_tokens_only_if_there_is_an_end(name, monkeypatch):
    model = nano(name, compile=False)
    monkeypatch.setattr(model, "_check_ids", lambda *_: None)  # on a CPU it looks at ids; elsewhere it does not

    def looks(num_new, **options):
        with Looks() as mode:
            model.generate(tokens(2, 8), num_new, temperature=1.0, top_k=3, top_p=0.9, seed=0, **options)
        return mode.count

    assert looks(4) == looks(13)
    assert looks(13, eos_token_id=255) > looks(4, eos_token_id=255)


def test_choices_are_part_of_the_compiled_step(graphs):
    plan = hand_plans.shared()
    compiled, eager = sharp_model(plan, compile=True), sharp_model(plan)
    ids, seen = tokens(2, 7), []
    for way in ({}, {"temperature": 0.7}, {"temperature": 1.1}, {"temperature": 0.9, "top_k": 4, "top_p": 0.9}):
        assert torch.equal(compiled.generate(ids, 6, **way, seed=1), eager.generate(ids, 6, **way, seed=1))
        seen.append(graphs())
    # Another temperature is no other graph, and no logits leave a step.
    assert seen[1] == seen[2]
    assert not any(unit.__name__ == "leave" for unit, *_ in compiled.call._made)
    compiled.generate(ids, 6, temperature=2.0, top_k=7, top_p=0.3, seed=1)
    assert graphs() == seen[3]


def test_choices_of_levels_are_part_of_the_compiled_step(graphs):
    compiled, eager = nano("block"), nano("block", compile=False)
    with torch._dynamo.config.patch(error_on_recompile=False):  # one block and several are not the same to a graph
        for way in (WAYS[0], WAYS[3]):
            found, wanted = (model.generate(tokens(2, 8), 7, **way, seed=1) for model in (compiled, eager))
            assert torch.equal(found, wanted)
    seen = graphs()
    compiled.generate(tokens(2, 12), 9, temperature=2.0, top_k=7, top_p=0.3, seed=1)
    assert graphs() == seen
    # The block level gives vectors; no logits leave the token level.
    assert [kind[0] for unit, kind, _ in compiled.tokens.call._made if unit.__name__ == "leave"] == [BlockStack]
