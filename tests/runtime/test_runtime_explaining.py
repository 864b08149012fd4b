"""What is said about backends before anything runs is what runs."""

import flash_stand_in
import hand_plans
import pytest
import torch
from hand_plans import sharp_model, tokens

import archspec
from archspec.runtime import backends, compiling, flash, near
from archspec.runtime.build import build_meta
from archspec.runtime.choosing import Kernels, why
from archspec.runtime.explaining import LATER, asked, behind_exit, calls, explain, reads_lengths
from archspec.runtime.layers import Attention
from archspec.runtime.ways import way_of

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
        found = [line for line in lines if line.phase == phase]
        assert {line.backend for line in found} == {"matmul"}
        assert sorted(number for line in found for number in line.layers) == [2, 3, 4]
    assert retention.layers == (1,)
    (upper,) = [line for line in lines if line.phase == "prefill" and 4 in line.layers]
    assert upper.reason == "last position only, a single row over what is stored, by plain products"


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


def in_phases(model, early_exit):
    """Run a prompt, a second chunk of it and a decode step; yields the phase before each."""
    ids, cache = tokens(2, 30), model.new_cache(2, 30)
    for phase, part in (("prefill", ids[:, :16]), (LATER, ids[:, 16:29]), ("decode", ids[:, 29:])):
        yield phase
        model.prefill(part, cache, early_exit=early_exit)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("early_exit", [True, False])
@pytest.mark.parametrize("name", sorted(PLANS))
@torch.no_grad()
def test_what_is_explained_is_what_runs(monkeypatch, name, early_exit):
    """By backends and reasons of all calls of a prefill, a second chunk and a decode step."""
    model = sharp_model(PLANS[name](), backend="flash", dtype="bfloat16")
    ran, phase = set(), ""

    def noted(call, *rest):
        choice = why(call, *rest)
        ran.add((phase, *choice))
        return choice

    monkeypatch.setattr(backends, "why", noted)
    for phase in in_phases(model, early_exit):  # noqa: B007
        pass
    explained = {
        (line.phase, line.backend, line.reason.removeprefix("last position only, "))
        for line in explain(model, early_exit)
        if line.phase != "training"
    }
    assert {line for line in ran if line[0] == "decode"} == {line for line in explained if line[0] == "decode"}
    if not model.plan.groups:  # where layers iterate, what a pass reads may be the chunk before it is stored
        assert ran == {line for line in explained if line[0] != "all"}


@pytest.mark.parametrize("early_exit", [True, False])
@pytest.mark.parametrize("name", sorted(PLANS))
@pytest.mark.parametrize("backend", ["cpu", "sdpa", "matmul"])
@torch.no_grad()
def test_ways_on_a_cpu_are_those_that_run(monkeypatch, backend, name, early_exit):
    """By the functions that serve each layer in a prefill, a second chunk and a decode step."""
    model = sharp_model(PLANS[name](), backend=backend)
    wanted, ran, phase = backends.name_of(model.attend), [], ""

    def noting(module, function, way_for):
        original = getattr(module, function)

        def noted(*args):
            ran[-1] = (phase, way_for(*args))
            return original(*args)

        monkeypatch.setattr(module, function, noted)

    def attend(q, keys, values, visibility, scoring, serve=model.attend):
        shifted = q.shape[2] > 1 and visibility.by_order and not visibility.sight.sees_self
        ran.append((phase, "shifted" if shifted else "plain"))
        return serve(q, keys, values, visibility, scoring)

    noting(backends.kernels, "attend_row", lambda *_: "row")
    noting(backends.near, "attend_near", lambda *_: "near at once")
    noting(backends.past, "attend_past", lambda *_: "past")
    noting(backends, "_in_turn", lambda *args: "near in turn" if near.fits(args[4]) else "far")
    model.attend = attend
    for phase in in_phases(model, early_exit):  # noqa: B007
        pass
    explained = set()
    for block in model.layers:
        if isinstance(block.mixer, Attention):
            lines = asked(model, block.mixer, early_exit and behind_exit(model, block))
            explained |= {(phase, way_of(call, wanted)) for phase, call, _ in lines if phase != "training"}
    if model.plan.groups:  # what a pass reads may be the chunk before it is stored
        ran, explained = ({(at, way) for at, way in found if at == "decode"} for found in (ran, explained))
    assert set(ran) == explained


def test_reasons_say_who_serves_whom_on_a_cpu():
    model = build_meta(archspec.plan(archspec.parse_spec_text(YOCO)), "float32")
    local, upper = (
        [
            why(call, "cpu", None, True).reason
            for call in calls(layer.mixer, slot, torch.device("cpu"), model.dtype).values()
        ]
        for layer, slot in zip(model.layers, model.plan.slots, strict=True)
    )
    assert [reason.split(":")[0] for reason in local[:2]] == ["near", "near"]
    assert "blocks of 64 queries in turn" in local[0]
    assert upper[0] == "causal order, no mask, by torch's attention"
    assert upper[1].startswith("past: torch's flash kernel")
    assert local[2] == upper[2] == "a single row by archspec's kernel, which reads each key once"
    assert "as one batch" in local[3]


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


@pytest.mark.slow
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
