"""Imported checkpoints compute what the code of their authors computed (tests/golden, float32)."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import archspec
from archspec.convert import import_checkpoint, write_imported
from archspec.convert.llama import tensor_name
from archspec.driver import analyse_text
from archspec.runtime.cache import Cache
from archspec.runtime.model import Model

GOLDEN = Path(__file__).parent.parent / "golden"
TOLERANCES = {
    "hf_gemma2": 1e-4,
    "hf_gpt_neox": 1e-4,
    "hf_llama": 1e-4,
    "hf_mistral": 1e-4,
    "hf_qwen3": 1e-4,
    "yoco_gret": 3e-5,
    "yoco_swa": 3e-5,
    "cla2": 1e-4,
    "lckv_sandwich_mid": 1e-4,
    "lckv_w2": 1e-4,
    "mixattention": 1e-4,
    "yoco_llama": 1e-4,
}
ITERATED = ("lckv_sandwich_mid", "lckv_w2")
LCKV = ("cla2", "mixattention", "yoco_llama", *ITERATED)
YOCO = ("yoco_gret", "yoco_swa")
HF_PREFILL = 14


@dataclass(frozen=True)
class Case:
    """A fixture, and the model that its imported and written form loads as."""

    name: str
    config: dict
    io: dict[str, Tensor]
    model: Model

    @property
    def prefill_len(self) -> int:
        stated = self.config.get("prefill_len") or self.config.get("case", {}).get("P")
        return stated or HF_PREFILL

    def close(self, found: Tensor, expected: str | Tensor, atol: float | None = None) -> None:
        expected = self.io[expected] if isinstance(expected, str) else expected
        torch.testing.assert_close(found, expected, atol=atol or TOLERANCES[self.name], rtol=0)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    @cache
    def make(name: str) -> Case:
        folder = tmp_path_factory.mktemp(name) / "imported"
        write_imported(import_checkpoint(GOLDEN / name), folder)
        config = json.loads((GOLDEN / name / "config.json").read_text())
        io = load_file(GOLDEN / name / "io.safetensors")
        return Case(name, config, io, archspec.load(folder, compile=False))

    return make


def prefilled(case: Case):
    ids = case.io["input_ids"]
    model_cache = case.model.new_cache(batch=ids.shape[0], context=ids.shape[1])
    logits = case.model.prefill(ids[:, : case.prefill_len], model_cache)
    return model_cache, logits


def cached(model_cache: Cache, idx: int, tokens: int) -> dict[str, Tensor]:
    """What slot `idx` holds after `tokens` tokens, oldest first: (B, K, min(C, tokens), H) each."""
    keys, values = model_cache.storage.slots[idx].unbind(2)
    cache_len = keys.shape[2]
    places = [position % cache_len for position in range(max(0, tokens - cache_len), tokens)]
    return {"key": keys[:, :, places], "value": values[:, :, places]}


@pytest.mark.parametrize("name", TOLERANCES)
def test_logits_of_all_positions(cases, name):
    case = cases(name)
    with torch.no_grad():
        case.close(case.model(case.io["input_ids"]), "logits_parallel" if name in LCKV else "logits")


@pytest.mark.parametrize("name", LCKV)
def test_logits_token_by_token(cases, name):
    """What the passes of a plan approximate; without iteration it is the same."""
    case = cases(name)
    with torch.no_grad():
        case.close(case.model(case.io["input_ids"], exact=True), "logits_sequential")


@pytest.mark.parametrize("name", TOLERANCES)
def test_logits_of_prefill_and_decoding(cases, name):
    case = cases(name)
    ids = case.io["input_ids"]
    model_cache, logits = prefilled(case)
    rows = [logits] + [case.model.decode(ids[:, t], model_cache) for t in range(case.prefill_len, ids.shape[1])]
    # The last one is for position T - 1, whatever position the first of the reference is for.
    case.close(torch.stack(rows, dim=1), case.io["decode_logits"][:, -len(rows) :])


@pytest.mark.parametrize("name", YOCO)
def test_global_cache_of_yoco(cases, name):
    case = cases(name)
    model_cache, _ = prefilled(case)
    slot = next(slot for slot in case.model.plan.slots if slot.projected)
    for kind, found in cached(model_cache, slot.idx, case.prefill_len).items():
        case.close(found.transpose(1, 2), f"kv_cache_{kind}")


def test_window_cache_of_yoco(cases):
    case = cases("yoco_swa")
    model_cache, _ = prefilled(case)
    slot = next(slot for slot in case.model.plan.slots if slot.writer_idx == case.config["swa_cache_layer"])
    for kind, found in cached(model_cache, slot.idx, case.prefill_len).items():
        case.close(found.transpose(1, 2), f"swa_cache_{kind}")


def test_recurrent_state_of_yoco(cases):
    case = cases("yoco_gret")
    model_cache, _ = prefilled(case)
    state = next(s for s in case.model.plan.states if s.writer_idx == case.config["recurrent_state_layer"])
    case.close(model_cache.storage.states[state.idx], "recurrent_state")


@pytest.mark.parametrize("name", LCKV)
def test_caches_of_lckv(cases, name):
    case = cases(name)
    model_cache, _ = prefilled(case)
    assert [slot.writer_idx for slot in case.model.plan.slots] == case.config["case"]["computes_kv"]
    for slot in case.model.plan.slots:
        for kind, found in cached(model_cache, slot.idx, case.prefill_len).items():
            case.close(found, f"prefill_cache.{slot.writer_idx}.{kind}")


@pytest.mark.parametrize("name", LCKV)
def test_cache_bytes_of_lckv(cases, name):
    case = cases(name)
    batch, tokens = case.io["input_ids"].shape
    expected = case.config["case"]["kv_cache_bytes_fp32"]
    assert case.model.new_cache(batch, tokens).nbytes == expected
    assert case.model.plan.cache_bytes(batch, tokens, "float32") == expected


@pytest.mark.parametrize("name", LCKV)
def test_loss_and_gradients_of_lckv(cases, name):
    case = cases(name)
    loss = case.model.loss(case.io["input_ids"])
    case.close(loss.detach(), "loss", atol=1e-5)
    parameters = {f"grad.{tensor_name(n)}": parameter for n, parameter in case.model.named_parameters()}
    wanted = case.config["case"]["grad_params"]
    found = torch.autograd.grad(loss, [parameters[n] for n in wanted])
    for n, gradient in zip(wanted, found, strict=True):
        assert gradient.abs().max() > 1e-3
        case.close(gradient, n, atol=1e-6)


@pytest.mark.parametrize("name", TOLERANCES)
def test_the_written_spec_is_clean_and_reads_back(name):
    imported = import_checkpoint(GOLDEN / name)
    analysis = analyse_text(imported.text)
    assert analysis.diagnostics == ()
    assert analysis.elaborated.spec == imported.spec
    assert set(imported.tensors) == {n for n, _ in analysis.plan().parameter_shapes()}


SPECS = {
    "cla2": """\
  layers 1-7 step 2 attend
  layers 2 cross-attend to cache@1
  layers 4 cross-attend to cache@3
  layers 6 cross-attend to cache@5
  layers 8 cross-attend to cache@7
""",
    "hf_gemma2": """\
model hf_gemma2 {
  layers 6, width 64, vocab 131, heads 4 x 16, kv heads 2, ffn geglu-tanh(144), norm rms(1e-6, 1+w)
  rope 10000, sandwich norms, attention scale rsqrt(24), attention softcap 3
  embed scale sqrt(width), final softcap 5, tied embeddings

  layers 1-5 step 2 attend, window 8
  layers 2-6 step 2 attend
""",
    "hf_gpt_neox": """\
model hf_gpt_neox {
  layers 4, width 64, vocab 131, heads 4 x 16, ffn gelu(256), norm layernorm(1e-5)
  rope 10000 on 25%, bias, residual parallel

  layers 1-4 attend
""",
    "hf_mistral": """\
model hf_mistral {
  layers 4, width 64, vocab 131, heads 4 x 16, kv heads 2, window 8, ffn swiglu(144), norm rms(1e-6)
  rope 10000

  layers 1-4 attend
""",
    "hf_qwen3": ", norm rms(1e-6), qk-norm\n  rope 1000000\n",
    "lckv_sandwich_mid": """\
  layers 1, 5, 8 attend
  layers 2-4, 6-7 cross-attend to cache@5
  iterate layers 2-5: 7 forward, 2 backward
""",
    "lckv_w2": """\
  layers 1, 7-8 attend
  layers 2-6 cross-attend to cache@7
  iterate layers 2-7: 7 forward, 2 backward
""",
    "mixattention": """\
  layers 1 attend
  layers 2, 4, 8 attend, window 8
  layers 3 cross-attend to cache@2, window 8
  layers 5-6 cross-attend to cache@4, window 8
  layers 7 cross-attend to cache@1
""",
    "yoco_gret": """\
# Imported from a checkpoint of YOCO (microsoft/unilm).
model yoco_gret {
  layers 4, width 64, vocab 131, ffn swiglu(128), norm rms(1e-5), rope interleaved-linspace(10000)
  embed scale sqrt(width)

  layers 1-2 retention, heads 2 x 32
  cache@2: kv heads 2 x 16, norm rms
  layers 3-4 cross-attend to cache@2, heads 4 x 16
}
""",
    "yoco_llama": """\
  layers 1-4 attend, window 8
  layers 5 attend
  layers 6-8 cross-attend to cache@5
""",
    "yoco_swa": "\n  layers 1-2 attend, heads 2 x 32, window 8\n",
}


@pytest.mark.parametrize("name", SPECS)
def test_the_written_spec_reads_as_a_person_would_write_it(name):
    assert SPECS[name] in import_checkpoint(GOLDEN / name).text
