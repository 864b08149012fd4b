"""Building, generation, loss, saving."""

import hand_plans
import pytest
import torch
from hand_plans import VOCAB, sharp_model, tokens
from safetensors.torch import load_file, save_file

from archspec.runtime import weights
from archspec.runtime.build import build_empty, build_meta, build_model, load_model
from archspec.runtime.sampling import keep_top_k, keep_top_p, sample
from archspec.runtime.weights import load_weights, stored_dtype


def equal(left, right):
    left, right = left.state_dict(), right.state_dict()
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_seed_decides_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (build_model(hand_plans.mixed(), seed=seed, compile=False) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(one, same)
    assert not equal(one, other)
    assert 0.018 < float(one.embed.weight.detach().std()) < 0.022
    assert bool((one.norm.weight == 1).all())
    rounded = build_model(hand_plans.mixed(), seed=1, dtype="bfloat16", compile=False)
    assert torch.equal(rounded.embed.weight, one.embed.weight.bfloat16())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "unknown dtype 'int8'; known: float64, float32, bfloat16, float16"),
        ({"device": "abacus"}, "unknown device 'abacus'; this machine has: cpu"),
        ({"device": "cuda:99"}, "unknown device 'cuda:99'; this machine has: cpu"),
        ({"backend": "fast"}, "unknown attention backend 'fast'; known: auto, sdpa, matmul"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(hand_plans.dense(), **options)


def test_large_plan_without_memory():
    slot = hand_plans.slot(0, 0, [0], heads=8, dim=128)
    layers = [hand_plans.attend(0, slot, heads=32)]
    steps = [hand_plans.write(0), hand_plans.layer(0)]
    plan = hand_plans.plan("large", layers, [slot], steps, 1, hidden_size=4096, vocab_size=1 << 20)
    model = build_meta(plan)
    assert sum(p.numel() for p in model.parameters()) == plan.num_parameters() > 8e9
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_dtypes(dtype):
    plan, ids = hand_plans.mixed(), tokens(2, 12)
    model, reference = sharp_model(plan, dtype=dtype), sharp_model(plan)
    with torch.no_grad():
        logits = model(ids)
        assert logits.dtype == model.dtype == getattr(torch, dtype)
        error = (logits.float() - reference(ids)).abs().max()
    assert error < (1e-4 if dtype == "float64" else 0.3)
    assert model.generate(ids, 3).shape == (2, 15)


def test_greedy_generation_is_the_argmax_of_forward():
    model, ids = sharp_model(hand_plans.mixed()), tokens(2, 5)
    found = model.generate(ids, 8)
    expected = ids
    with torch.no_grad():
        for _ in range(8):
            expected = torch.cat((expected, model(expected)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(found, expected)
    assert torch.equal(model.generate(ids, 0), ids)


def test_ended_rows_repeat_the_end():
    model, ids = sharp_model(hand_plans.dense()), tokens(2, 5)
    free = model.generate(ids, 12)
    end = int(free[0, 6])
    found = model.generate(ids, 12, eos_token_id=end)
    assert found.shape == free.shape
    for row, expected in zip(found[:, 5:].tolist(), free[:, 5:].tolist(), strict=True):
        stop = expected.index(end) + 1 if end in expected else len(expected)
        assert row == expected[:stop] + [end] * (len(expected) - stop)


def test_generation_stops_when_all_rows_have_ended(monkeypatch):
    model, ids = sharp_model(hand_plans.dense()), tokens(1, 5)
    first = int(model.generate(ids, 1)[0, -1])
    monkeypatch.setattr(model, "decode", lambda *_: pytest.fail("decoded past the end"))
    assert model.generate(ids, 50, eos_token_id=first)[0, 5:].tolist() == [first] * 50


def test_sampling():
    model, ids = sharp_model(hand_plans.dense()), tokens(2, 5)
    options = {"temperature": 1.0, "top_k": 20, "top_p": 0.9}
    one, same, other = (model.generate(ids, 20, seed=seed, **options) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    greedy = model.generate(ids, 6)
    assert torch.equal(model.generate(ids, 6, temperature=1.0, top_k=1), greedy)
    assert torch.equal(model.generate(ids, 6, temperature=1.0, top_p=1e-6), greedy)


def test_kept_logits():
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    assert keep_top_k(logits, 2).isfinite().tolist() == [[False, True, False, True]]
    assert keep_top_k(logits, 9).isfinite().all()
    assert keep_top_p(logits, 0.65).isfinite().tolist() == [[False, True, False, True]]
    assert keep_top_p(logits, 0.75).isfinite().tolist() == [[False, True, True, True]]
    assert keep_top_p(logits, 1.0).isfinite().all()
    assert int(sample(logits)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_k": 0}, "top_k must be"),
        ({"top_p": 0.0}, "top_p must be"),
        ({"max_new_tokens": -1}, "max_new_tokens must not be negative"),
    ],
)
def test_generation_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        sharp_model(hand_plans.dense()).generate(tokens(1, 3), **{"max_new_tokens": 2, **options})


def test_loss_is_the_mean_over_next_tokens():
    model, ids = sharp_model(hand_plans.mixed()), tokens(2, 9)
    with torch.no_grad():
        chances = model(ids).log_softmax(-1)
        expected = -torch.stack([chances[b, t, ids[b, t + 1]] for b in range(2) for t in range(8)]).mean()
    loss = model.loss(ids)
    torch.testing.assert_close(loss.detach(), expected, atol=1e-5, rtol=0)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())
    with pytest.raises(ValueError, match="at least 2 tokens"):
        model.loss(ids[:, :1])


def test_exact_changes_nothing_without_iteration():
    model, ids = sharp_model(hand_plans.dense()), tokens(1, 4)
    assert torch.equal(model(ids), model(ids, exact=True))
    assert torch.equal(model.prefill(ids, model.new_cache(1, 4)), model.prefill(ids, model.new_cache(1, 4), exact=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_save_and_load(tmp_path, dtype):
    model = build_model(hand_plans.mixed(), dtype=dtype, compile=False)
    model.arch_text = "model mixed {}\n"
    model.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == ["model.arch", "model.safetensors"]
    assert (folder / "model.arch").read_text() == model.arch_text
    assert stored_dtype(folder / "model.safetensors") == dtype
    loaded = load_model(model.plan, folder / "model.safetensors", compile=False)
    assert loaded.dtype == model.dtype
    assert equal(loaded, model)
    wide = load_model(model.plan, folder / "model.safetensors", dtype="float64", compile=False)
    assert torch.equal(wide.embed.weight, model.embed.weight.double())


def test_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    model = build_model(hand_plans.dense(), compile=False)
    with pytest.raises(ValueError, match="without the text of a spec"):
        model.save(tmp_path)
    model.arch_text = "first"
    model.save(tmp_path)
    old = (tmp_path / "model.safetensors").read_bytes()

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(weights, "save_file", half)
    model.arch_text = "second"
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.arch", "model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == old
    assert (tmp_path / "model.arch").read_text() == "first"


def test_loading_is_strict(tmp_path):
    model = build_model(hand_plans.dense(), compile=False)
    model.arch_text = "text"
    model.save(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["extra.weight"] = tensors.pop("norm.weight")
    tensors["embed.weight"] = tensors["embed.weight"][:5].clone()
    save_file(tensors, path)
    other = build_model(hand_plans.dense(), seed=9, compile=False)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    message = (
        r"do not fit the model: 1 missing: norm.weight; 1 unexpected: extra.weight; "
        rf"1 of another shape: embed.weight \(5, 32\) instead of \({VOCAB}, 32\)"
    )
    with pytest.raises(ValueError, match=message):
        load_weights(other, path)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_weights(other, tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        load_weights(build_empty(hand_plans.dense(), compile=False), tmp_path / "nowhere")
