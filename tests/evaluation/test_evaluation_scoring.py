"""What a model thinks of tokens: the same as its logits say, in chunks, through caches, in blocks."""

import eval_models
import pytest
import torch

from archspec.evaluation import first_row, score, score_cached
from archspec.runtime import loss

MODELS = pytest.mark.parametrize("name", eval_models.SPECS)


def ids_of(batch, length, vocab=256, seed=0):
    return torch.randint(vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


@MODELS
@pytest.mark.parametrize("length", [2, 5, 8, 9, 23])
def test_scores_are_those_of_the_logits(name, length, monkeypatch):
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 1)
    monkeypatch.setattr(loss, "FEWEST_ROWS", 3)
    model, ids = eval_models.model(name), ids_of(3, length)
    options = {"prompt_len": 4} if name == "levels" else {}
    logits = model(ids[:, :-1], **options)
    expected = -logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    found, skipped = score(model, ids), first_row(model.plan)
    assert found.losses.shape == (3, length - 1)
    torch.testing.assert_close(found.losses[:, skipped:], expected[:, skipped:])
    assert torch.equal(found.hits[:, skipped:], (logits.argmax(-1) == ids[:, 1:])[:, skipped:])
    assert bool(found.losses[:, :skipped].isnan().all())
    assert not bool(found.hits[:, :skipped].any())


@MODELS
@pytest.mark.parametrize("begin", [1, 6, 16])
def test_caches_say_the_same(name, begin):
    model, ids = eval_models.model(name), ids_of(2, 17)
    by_forcing, by_decoding = score(model, ids), score_cached(model, ids, begin)
    rows = slice(max(begin - 1, first_row(model.plan)), None)
    torch.testing.assert_close(by_decoding.losses[:, rows], by_forcing.losses[:, rows])
    assert torch.equal(by_decoding.hits[:, rows], by_forcing.hits[:, rows])
    assert bool(by_decoding.losses[:, : begin - 1].isnan().all())


def test_a_mean_of_scores_is_the_loss():
    for name in eval_models.SPECS:
        model, ids = eval_models.model(name), ids_of(2, 16)
        assert score(model, ids).losses.nanmean().item() == pytest.approx(float(model.loss(ids).detach()))


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (torch.zeros(1, 1, dtype=torch.int64), "2 tokens or more"),
        (torch.zeros(1, 4), "not float32"),
        (torch.full((1, 4), 256), "must be 0 to 255; these are 256 to 256"),
    ],
)
def test_ids_that_cannot_be_scored(ids, said):
    with pytest.raises(ValueError, match=said):
        score(eval_models.model("dense"), ids)


def test_a_prefill_leaves_something_to_score():
    with pytest.raises(ValueError, match="begin must be 1 to 4"):
        score_cached(eval_models.model("dense"), ids_of(1, 5), begin=5)
