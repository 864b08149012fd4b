"""What is said about backends before anything runs is what runs."""

import flash_stand_in
import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens

import archspec
from archspec.runtime import backends, compiling, flash
from archspec.runtime.build import build_meta
from archspec.runtime.choosing import Kernels, why
from archspec.runtime.explaining import calls, explain, reads_lengths

PLANS = {**hand_plans.ALL, **hand_plans.LATE}


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(flash, "_functions", {})
    monkeypatch.setattr(flash, "installed", None)
    monkeypatch.setattr(flash, "load", lambda device: flash.installed)
    flash.use({"flash-attn 2": flash_stand_in}, "cpu")


def test_every_layer_is_explained():
    model = sharp_model(hand_plans.mixed(), backend="matmul")
    phases = {"prefill", "prefill, later chunks", "decode", "training"}
    lines = explain(model)
    assert {line.phase for line in lines} == {*phases, "all"}
    (retention,) = [line for line in lines if line.phase == "all"]
    assert (retention.backend, retention.reason) == ("torch", "fla is for CUDA")
    for phase in phases:
        (line,) = [line for line in lines if line.phase == phase]
        assert line.backend == "matmul"
        assert not set(line.layers) & set(retention.layers)


GEMMA = """model gemma { layers 2, width 32, vocab 61, heads 2 x 256, kv heads 1, rope 10000, ffn geglu(48)
  attention softcap 50, final softcap 30
  layers 1 attend, window 64
  layers 2 attend }"""
YOCO = """model yoco { layers 2, width 32, vocab 61, heads 2 x 64, rope 10000, ffn swiglu(48)
  layers 1 attend, window 64
  cache@1: kv heads 2 x 64
  layers 2 cross-attend to cache@1 }"""
LATE = """model late { layers 3, width 32, vocab 61, heads 2 x 64, rope 10000, ffn swiglu(48)
  layers 1, 3 attend, kv heads 2
  layers 2 cross-attend to cache@3
  iterate layers 2-3: 3 forward, 2 backward }"""
FLASH_2 = Kernels("flash-attn 2", "flash-attn 2")
ALL_FLASH = [["flash"] * 4] * 2
ON_CUDA = [
    (GEMMA, "bfloat16", FLASH_2, ALL_FLASH),
    (GEMMA, "bfloat16", None, [["flex", "flex", "sdpa", "flex"]] * 2),
    (GEMMA, "float32", FLASH_2, [["flex", "flex", "sdpa", "flex"]] * 2),
    (YOCO, "float16", FLASH_2, ALL_FLASH),
    (YOCO, "bfloat16", None, [["flex", "flex", "sdpa", "flex"], ["sdpa", "flex", "sdpa", "sdpa"]]),
    (YOCO, "float64", FLASH_2, [["sdpa"] * 4] * 2),
    (LATE, "bfloat16", FLASH_2, [["flash"] * 4] * 3),
    (LATE, "bfloat16", None, [["sdpa", "flex", "sdpa", "sdpa"]] * 3),
]


@pytest.mark.parametrize(("text", "dtype", "installed", "wanted"), ON_CUDA)
def test_what_auto_takes_on_a_cuda_device(text, dtype, installed, wanted):
    """Of a layer: for prefill, its later chunks, decode and training; no such device is needed to say so."""
    model = build_meta(archspec.plan(archspec.parse_spec_text(text)), dtype)
    for layer, names in zip(model.layers, wanted, strict=True):
        slot = model.plan.slots[layer.mixer.slot_idx]
        asked = calls(layer.mixer, slot, torch.device("cuda"), model.dtype)
        choices = [why(call, "auto", installed, True) for call in asked.values()]
        assert [choice.backend for choice in choices] == names
        assert all(choice.reason for choice in choices)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("name", sorted(PLANS))
@torch.no_grad()
def test_what_is_explained_is_what_runs(monkeypatch, name):
    """By backends and reasons of all calls of a prefill, a second chunk and a decode step."""
    model = sharp_model(PLANS[name](), backend="flash", dtype="bfloat16")
    ran = set()

    def noted(call, *rest):
        choice = why(call, *rest)
        phase = "decode" if call.one_row else "prefill" if call.from_start else "prefill, later chunks"
        ran.add((phase, *choice))
        return choice

    monkeypatch.setattr(backends, "why", noted)
    ids, cache = tokens(2, 30), model.new_cache(2, 30)
    for phase in (ids[:, :16], ids[:, 16:29], ids[:, 29:]):
        model.prefill(phase, cache, early_exit=False)
    explained = {(line.phase, line.backend, line.reason) for line in explain(model) if line.phase != "training"}
    assert {line for line in ran if line[0] == "decode"} == {line for line in explained if line[0] == "decode"}
    if not model.plan.groups:  # where layers iterate, what a pass reads may be the chunk before it is stored
        assert ran == {line for line in explained if line[0] != "all"}


@pytest.mark.usefixtures("stand_in")
@torch.no_grad()
def test_models_run_by_flash():
    """Logits near those of plain products, in bfloat16, for prompts in chunks, padding and decoding."""
    for name, make in hand_plans.ALL.items():
        flashed, plain = (sharp_model(make(), backend=b, dtype="bfloat16") for b in ("flash", "matmul"))
        ids = tokens(2, 24)
        mask = None if name == "sunk" else torch.arange(10) >= torch.tensor([[0], [3]])
        caches = [m.new_cache(2, 24) for m in (flashed, plain)]
        for begin, end in ((0, 10), (10, 17), *((t, t + 1) for t in range(17, 24))):
            found, expected = (
                m.prefill(ids[:, begin:end], cache, mask if begin == 0 else None)
                for m, cache in zip((flashed, plain), caches, strict=True)
            )
            torch.testing.assert_close(found, expected, atol=0.35, rtol=0.05)


@pytest.mark.usefixtures("stand_in")
def test_lengths_are_read_from_tensors():
    assert reads_lengths(sharp_model(hand_plans.shared(), backend="flash", dtype="bfloat16"))
    assert not reads_lengths(sharp_model(hand_plans.shared(), backend="flash"))
    assert not reads_lengths(sharp_model(hand_plans.shared(), backend="sdpa", dtype="bfloat16"))


@pytest.mark.usefixtures("stand_in")
def test_flash_in_compiled_units(monkeypatch):
    """Nothing breaks a unit's graph, and what comes out, gradients too, is what comes out uncompiled."""
    monkeypatch.setattr(compiling, "COMPILER", "aot_eager")
    torch._dynamo.reset()
    plan = hand_plans.mixed()
    compiled, eager = (sharp_model(plan, backend="flash", dtype="bfloat16", compile=c) for c in (True, False))
    ids, end = tokens(2, 23), 0
    caches = [model.new_cache(2, 23) for model in (compiled, eager)]
    for size in (9, 12, 1, 1):
        begin, end = end, end + size
        found, expected = (
            m.prefill(ids[:, begin:end], cache) for m, cache in zip((compiled, eager), caches, strict=True)
        )
        torch.testing.assert_close(found, expected, atol=0.2, rtol=0.05)
    losses = [model.loss(ids) for model in (compiled, eager)]
    torch.testing.assert_close(*losses, atol=0.05, rtol=0.05)
    for loss in losses:
        loss.backward()
    for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        assert float((ours.grad - theirs.grad).norm()) <= 0.05 * float(theirs.grad.norm()) + 1e-3
