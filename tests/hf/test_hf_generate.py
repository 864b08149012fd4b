"""Generation by transformers: the tokens are archspec's own, from memory of the size that the plan says."""

import copy

import pytest
import torch
from tiny_models import ONE_LEVEL, SYSTEMS, TWO_LEVELS, core, exported, loaded, random_ids
from transformers import DynamicCache

from archspec.hf import ArchSpecCache, ArchSpecForCausalLM
from archspec.runtime.backends import BACKENDS

EVERY = pytest.mark.parametrize("name", SYSTEMS)
LENGTHS = (9, 4, 13)


def left_padded(lengths=LENGTHS):
    rows = [random_ids(1, length, seed=length)[0] for length in lengths]
    width = max(lengths)
    ids = torch.stack([torch.cat((torch.zeros(width - len(row), dtype=torch.int64), row)) for row in rows])
    mask = torch.tensor([[0] * (width - length) + [1] * length for length in lengths])
    return rows, ids, mask


@EVERY
def test_greedy_tokens_are_archspecs_own(name):
    model, ids = loaded(name), random_ids(3, 11)
    out = model.generate(ids, max_new_tokens=12, do_sample=False)
    assert torch.equal(out, core(name).generate(ids, 12))
    assert len(set(out[:, 11:].flatten().tolist())) > 12  # no model that says the same whatever it is given


@EVERY
def test_left_padded_rows_are_as_alone(name):
    model = loaded(name)
    rows, ids, mask = left_padded()
    out = model.generate(ids, attention_mask=mask, max_new_tokens=9, do_sample=False)
    for row, tokens in zip(rows, out, strict=True):
        assert torch.equal(tokens[-9:], model.generate(row[None], max_new_tokens=9, do_sample=False)[0, -9:])


def plain_beams(model, prompt_T, num_beams, num_new):
    """Beam search without anything to reorder: each candidate is read anew, the prompt as one chunk."""

    def log_probs(new):
        cache = model.new_cache(1, len(prompt_T) + num_new)
        logits = model.prefill(prompt_T[None], cache)
        for token in new:
            logits = model.decode(torch.tensor([token]), cache)
        return logits[0].log_softmax(-1)

    beams = [(0.0, ())]
    for _ in range(num_new):
        found = [(score + s.item(), (*new, t)) for score, new in beams for t, s in enumerate(log_probs(new))]
        beams = sorted(found, reverse=True)[:num_beams]
    return [list(new) for _, new in beams]


@EVERY
def test_beams_are_those_of_a_plain_search(name):
    model, ids = loaded(name), random_ids(2, 6)
    out = model.generate(ids, max_new_tokens=6, num_beams=3, num_return_sequences=3, do_sample=False)
    expected = [beam for row in ids for beam in plain_beams(core(name), row, 3, 6)]
    assert out[:, 6:].tolist() == expected
    assert not torch.equal(out[::3], model.generate(ids, max_new_tokens=6, do_sample=False))


@EVERY
def test_beams_of_left_padded_rows_are_as_alone(name):
    model = loaded(name)
    rows, ids, mask = left_padded((7, 3))
    out = model.generate(ids, attention_mask=mask, max_new_tokens=5, num_beams=3, do_sample=False)
    for row, tokens in zip(rows, out, strict=True):
        alone = model.generate(row[None], max_new_tokens=5, num_beams=3, do_sample=False)
        assert torch.equal(tokens[-5:], alone[0, -5:])


@EVERY
def test_sampling_follows_the_logits(name):
    """With a seed, sampling from one row that is repeated differs by row, and is what top_k allows."""
    model, ids = loaded(name), random_ids(1, 8)
    torch.manual_seed(0)
    out = model.generate(ids, max_new_tokens=1, do_sample=True, top_k=2, num_return_sequences=64)
    best = core(name).prefill(ids, core(name).new_cache(1, 8)).topk(2).indices[0].tolist()
    assert set(out[:, -1].tolist()) == set(best)


@EVERY
def test_memory_is_the_plans(name):
    model, ids = loaded(name), random_ids(2, 10)
    out = model.generate(ids, max_new_tokens=8, num_beams=2, return_dict_in_generate=True, do_sample=False)
    cache = out.past_key_values
    assert isinstance(cache, ArchSpecCache)
    assert cache.nbytes == model.plan.cache_bytes(batch=4, context=17, dtype="float32")
    assert cache.get_seq_length() == 17
    assert cache.batch_size == 4


@EVERY
def test_prompts_leave_by_the_prefill_exit(name, monkeypatch):
    model, calls = loaded(name), []
    own = model.model
    monkeypatch.setattr(type(own), "forward", lambda *args, **kwargs: pytest.fail("all logits were computed"))
    prefill = own.prefill
    monkeypatch.setattr(own, "prefill", lambda *args, **kwargs: calls.append(args[0].shape) or prefill(*args, **kwargs))
    model.generate(random_ids(2, 10), max_new_tokens=4, do_sample=False)
    assert calls == [(2, 10)]


@pytest.mark.parametrize("name", ONE_LEVEL)
def test_without_cache_and_by_chunks_the_tokens_are_the_same(name):
    model, ids = loaded(name), random_ids(2, 10)
    expected = model.generate(ids, max_new_tokens=6, do_sample=False)
    if name != "lckv":  # whose layers iterate over all tokens that are new at once
        assert torch.equal(model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False), expected)
        assert torch.equal(model.generate(ids, max_new_tokens=6, do_sample=False, prefill_chunk_size=4), expected)


@pytest.mark.parametrize("name", ONE_LEVEL)
def test_a_cache_goes_on_in_the_next_turn_and_grows(name):
    model, ids = loaded(name), random_ids(2, 7)
    first = model.generate(ids, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    cache, turn = first.past_key_values, torch.cat((first.sequences, random_ids(2, 1, seed=5)), dim=1)
    kept = copy.deepcopy(cache)
    out = model.generate(turn, max_new_tokens=40, do_sample=False, past_key_values=cache)
    assert torch.equal(out, model.generate(turn, max_new_tokens=40, do_sample=False, past_key_values=kept))
    expected = core(name)
    own = expected.new_cache(2, 60)
    logits = expected.prefill(ids, own)
    for ids_B in first.sequences[:, 7:-1].unbind(1):
        logits = expected.decode(ids_B, own)
    logits = expected.prefill(turn[:, 10:], own)
    for token_B in out[:, 12:].unbind(1):
        assert torch.equal(logits.argmax(-1), token_B)
        logits = expected.decode(token_B, own)


@EVERY
def test_calls_with_a_cache_give_all_logits(name):
    """As some loops call a model: everything at once, then token by token, with no cache of their own making."""
    model, ids = loaded(name), random_ids(2, 12)
    own = core(name)
    first = model(ids, use_cache=True)
    assert torch.allclose(first.logits, own(ids), atol=1e-5)
    cache = own.new_cache(2, 20)
    own.prefill(ids, cache)
    more = random_ids(2, 5, seed=3)
    expected = torch.stack([own.decode(ids_B, cache) for ids_B in more.unbind(1)], dim=1)
    assert torch.allclose(model(more, past_key_values=first.past_key_values).logits, expected, atol=1e-5)


@EVERY
def test_rows_of_a_cache_are_selected_and_repeated(name):
    model, ids, after = loaded(name), random_ids(3, 10), random_ids(1, 6, seed=4)

    def continued(cache, batch):
        steps = [model(step.expand(batch, 1), past_key_values=cache).logits[:, 0] for step in after.split(1, 1)]
        return torch.stack(steps, dim=1)

    def filled():
        cache = model.new_cache(3, 16)
        model(ids, past_key_values=cache, logits_to_keep=1)
        return cache

    rows = continued(filled(), 3)
    repeated = filled()
    repeated.batch_repeat_interleave(2)
    assert torch.allclose(continued(repeated, 6), rows.repeat_interleave(2, 0), atol=1e-5)
    selected = filled()
    selected.batch_select_indices(torch.tensor([2, 0]))
    assert torch.allclose(continued(selected, 2), rows[[2, 0]], atol=1e-5)
    selected.reset()
    assert selected.get_seq_length() == 0


@pytest.mark.parametrize("name", ["dense", "lckv", "cla"])
def test_caches_that_forget_nothing_can_be_cropped(name):
    model, ids = loaded(name), random_ids(2, 10)
    cache, kept = model.new_cache(2, 16), model.new_cache(2, 16)
    model(ids, past_key_values=cache, logits_to_keep=1)
    model(ids, past_key_values=kept, logits_to_keep=1)
    model(random_ids(2, 3, seed=9), past_key_values=cache)
    assert cache.is_croppable
    cache.crop(-3)
    token = torch.tensor([[7], [8]])
    assert torch.equal(model(token, past_key_values=cache).logits, model(token, past_key_values=kept).logits)
    with pytest.raises(ValueError, match="cannot forget 99"):
        cache.crop(-99)


@pytest.mark.parametrize("name", ["yoco_window", "yoco_retention", *TWO_LEVELS])
def test_caches_that_forget_refuse_to_be_cropped(name):
    model = loaded(name)
    cache = model.new_cache(1, 16)
    model(random_ids(1, 9), past_key_values=cache, logits_to_keep=1)
    assert not cache.is_croppable
    cache.crop(0)
    with pytest.raises(ValueError, match="cannot take back tokens"):
        cache.crop(-1)


def test_attention_can_be_written_out():
    ids = random_ids(2, 10)
    rows = []
    for kind in ("eager", "sdpa"):
        model = ArchSpecForCausalLM.from_pretrained(exported("yoco_window"), attn_implementation=kind)
        assert model.model.attend is BACKENDS[{"eager": "matmul"}.get(kind, kind)]
        rows.append(model(ids).logits)
    assert torch.allclose(*rows, atol=1e-4)
    with pytest.raises(ValueError, match="Flash Attention"):
        ArchSpecForCausalLM.from_pretrained(exported("yoco_window"), attn_implementation="flash_attention_2")


REFUSED = {
    "assisted": ({"prompt_lookup_num_tokens": 3}, "cannot be taken back"),
    "contrastive": ({"penalty_alpha": 0.6, "top_k": 4}, "cannot be taken back"),
    "static": ({"cache_implementation": "static"}, "one kind of cache"),
    "foreign cache": ({"past_key_values": DynamicCache()}, "ArchSpecCache"),
    "embeddings": ({"inputs_embeds": torch.zeros(1, 3, 32)}, "inputs_embeds"),
    "attentions": ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions"),
    "right padding": ({"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}, "padding on the left"),
    "a hole": ({"attention_mask": torch.tensor([[1, 1, 0, 1, 1]])}, "only leading positions"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", ["dense", "block_prefix"])
def test_what_it_cannot_do_is_said(name, case):
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        loaded(name).generate(random_ids(1, 5), max_new_tokens=4, do_sample=False, **copy.deepcopy(options))


@pytest.mark.parametrize("option", [{"use_cache": False}, {"prefill_chunk_size": 4}])
@pytest.mark.parametrize("name", TWO_LEVELS)
def test_blocks_need_the_whole_prompt_at_once(name, option):
    with pytest.raises(ValueError, match="blocks begin where the prompt ends"):
        loaded(name).generate(random_ids(1, 9), max_new_tokens=4, **option)


def test_a_mask_that_contradicts_the_cache_is_refused():
    model = loaded("dense")
    _, ids, mask = left_padded((5, 3))
    cache = model.new_cache(2, 12)
    model(ids, attention_mask=mask, past_key_values=cache, logits_to_keep=1)
    token = torch.tensor([[1], [2]])
    with pytest.raises(ValueError, match="must repeat it"):
        model(token, attention_mask=torch.ones(2, 6, dtype=torch.int64), past_key_values=cache)
    with pytest.raises(ValueError, match="9 columns"):
        model(token, attention_mask=torch.ones(2, 9, dtype=torch.int64), past_key_values=cache)
