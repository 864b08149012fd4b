"""Rows of different lengths: a left-padded row gives what it gives alone."""

import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens

import archspec

LENGTH = 23
PADS = (0, 5, 17)
PLANS = sorted(hand_plans.PADDABLE)
MODELS = {name: sharp_model(make()) for name, make in hand_plans.PADDABLE.items()}


def padded(pads=PADS, length=LENGTH):
    """Ids and mask; what stands in the padding is noise."""
    pad_lens = torch.tensor(pads)[:, None]
    return tokens(len(pads), length), (torch.arange(length) >= pad_lens).long()


def rows_alone(call, ids, pads=PADS):
    return [call(ids[b : b + 1, pad:]) for b, pad in enumerate(pads)]


@pytest.mark.parametrize("name", PLANS)
@torch.no_grad()
def test_teacher_forcing(name):
    ids, mask = padded()
    found = MODELS[name](ids, mask)
    assert found.isfinite().all()
    for row, expected in zip(found, rows_alone(MODELS[name], ids), strict=True):
        torch.testing.assert_close(row[-expected.shape[1] :], expected[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("early_exit", [True, False])
@pytest.mark.parametrize("chunks", [[LENGTH], [18, 1, 1, 1, 1, 1], [18, 3, 1, 1], [19, 4]])
@torch.no_grad()
def test_prefill_and_decoding(name, chunks, early_exit):
    model, (ids, mask) = MODELS[name], padded()
    alone = rows_alone(model, ids)
    cache = model.new_cache(len(PADS), LENGTH)
    end = 0
    for size in chunks:
        begin, end = end, end + size
        given = mask[:, begin:end] if begin == 0 else None
        found = model.prefill(ids[:, begin:end], cache, given, early_exit=early_exit)
        for row, pad, expected in zip(found, PADS, alone, strict=True):
            torch.testing.assert_close(row, expected[0, end - 1 - pad], atol=1e-4, rtol=0)
    cache.reset()
    assert cache.pad_lens_B is None


@pytest.mark.parametrize("name", PLANS)
def test_generation(name):
    model, (ids, mask) = MODELS[name], padded()
    found = model.generate(ids, 6, mask)
    for row, expected in zip(found, rows_alone(lambda x: model.generate(x, 6), ids), strict=True):
        assert row[LENGTH:].tolist() == expected[0, -6:].tolist()


@pytest.mark.parametrize("name", PLANS)
def test_loss_and_gradient(name):
    model, (ids, mask) = MODELS[name], padded((0, 5, LENGTH - 1))
    model.zero_grad()
    found = model.loss(ids, mask)
    found.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    sums = [model.loss(ids[b : b + 1, pad:]) * (LENGTH - 1 - pad) for b, pad in enumerate((0, 5))]
    expected = sum(sums) / (2 * (LENGTH - 1) - 5)
    expected.backward()
    torch.testing.assert_close(found.detach(), expected.detach(), atol=1e-5, rtol=0)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-4, rtol=1e-3)
    model.zero_grad()


def test_padding_would_take_the_place_of_sinks():
    model, (ids, mask) = sharp_model(hand_plans.sunk()), padded()
    with pytest.raises(ValueError, match="which this model keeps as sinks"):
        model(ids, mask)


def test_padding_would_take_the_place_of_sinks_that_only_a_reader_has():
    """Its cache keeps everything, so that no slot says so."""
    text = """model m {
      layers 2, width 32, vocab 61, ffn gelu(16), rope 100, heads 2 x 16
      layers 1 attend
      layers 2 cross-attend to cache@1, window 2, sinks 3
    }"""
    ids, mask = padded()
    model = archspec.compile(archspec.parse_spec_text(text), compile=False)
    with pytest.raises(ValueError, match="which this model keeps as sinks"):
        model(ids, mask)


def test_a_mask_without_padding_is_none():
    ids, _ = padded()
    model = MODELS["mixed"]
    cache = model.new_cache(3, LENGTH)
    model.prefill(ids, cache, torch.ones_like(ids))
    assert cache.pad_lens_B is None
    with torch.no_grad():
        assert torch.equal(model(ids, torch.ones_like(ids, dtype=torch.bool)), model(ids))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([[1, 1, 1], [0, 0, 0]]), "row 1 of the attention mask is all zeros"),
        (torch.tensor([[1, 1, 1], [1, 1, 0]]), "row 1 of the attention mask has a 0 behind a 1"),
        (torch.tensor([[0, 1, 0], [1, 1, 1]]), "row 0 of the attention mask has a 0 behind a 1"),
        (torch.tensor([[1, 1], [1, 1]]), r"shape \(2, 3\), not int64 of shape \(2, 2\)"),
        (torch.ones(2, 3), r"shape \(2, 3\), not float32"),
    ],
)
def test_masks_refused(mask, message):
    model, ids = MODELS["dense"], tokens(2, 3)
    calls = (
        lambda: model(ids, mask),
        lambda: model.prefill(ids, model.new_cache(2, 8), mask),
        lambda: model.generate(ids, 2, mask),
        lambda: model.loss(ids, mask),
    )
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_padding_comes_first():
    model, (ids, mask) = MODELS["dense"], padded()
    cache = model.new_cache(3, 3 * LENGTH)
    model.prefill(ids, cache, mask)
    model.prefill(ids[:, :2], cache, torch.ones_like(ids[:, :2]))
    with pytest.raises(ValueError, match="only the first chunk of a prompt may hold padding"):
        model.prefill(ids, cache, mask)
    with pytest.raises(ValueError, match="a row with at least 2 tokens"):
        model.loss(ids, padded((LENGTH - 1,) * 3)[1])


@pytest.mark.parametrize("inputs", ["tokens", "vectors"])
@pytest.mark.parametrize("outputs", ["logits", "vectors"])
@torch.no_grad()
def test_vectors_in_and_out(inputs, outputs):
    """The stack between embedding and output matrix, on its own."""
    plan = hand_plans.replace(hand_plans.mixed(), embed_scale=0.5)
    whole = sharp_model(plan)
    part = hand_plans.build_model(hand_plans.replace(plan, inputs=inputs, outputs=outputs), compile=False)
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if k in part.state_dict()})
    shapes = [(name, tuple(value.shape)) for name, value in part.state_dict().items()]
    assert shapes == list(part.plan.parameter_shapes())
    ids = tokens(2, 9)
    given = ids if inputs == "tokens" else whole.embed(ids)
    found = part.run("forward", given)
    if outputs == "vectors":
        assert found.shape == (2, 9, hand_plans.WIDTH)
        found = whole.lm_head(found)
    torch.testing.assert_close(found, whole(ids), atol=1e-5, rtol=0)
