"""The contestants: caches that are filled without a prefill, transformers on the same weights, first tokens.

Legend: B batch, T tokens.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import archspec
from archspec.bench import first_token
from archspec.bench.contestants import Compiled, decoded, random_ids
from archspec.bench.filling import fill, move_to
from archspec.bench.peers import Transformers, llama_config, make_llama
from archspec.bench.workloads import Workload, block_length

SPECS = Path(__file__).parents[2] / "specs"

NANO = ("nano_llama", "nano_yoco", "nano_lckv", "nano_block")
LLAMA = """model m {
  layers 2, width 32, vocab 50, ffn swiglu(48), norm rms(1e-3), rope 500
  layers 1-2 attend, heads 4 x 8, kv heads 2
}"""


def compiled(name: str) -> Compiled:
    plan = archspec.plan(archspec.parse(SPECS / f"nano/{name}.arch"))
    return Compiled(name, plan, device="cpu", dtype="float32", compile=False)


@torch.no_grad()
def decode(model: Any, ids_BT: Tensor, cache: Any) -> Tensor:
    return torch.stack([model.decode(ids_B, cache) for ids_B in ids_BT.unbind(1)], dim=1)


@pytest.mark.parametrize("name", NANO)
def test_going_back_is_as_if_nothing_had_been_decoded(name: str) -> None:
    """Contents beyond a position never count, so that a sample can start where the one before it did."""
    own = compiled(name)
    ids_BT = random_ids(own.plan, 2, 24, own.model.device)
    cache: Any = own.model.new_cache(2, 64)
    own.model.prefill(ids_BT[:, :20], cache)
    first = decode(own.model, ids_BT[:, 20:23], cache)
    move_to(cache, 20)
    assert torch.equal(decode(own.model, ids_BT[:, 20:23], cache), first)


@pytest.mark.parametrize("name", NANO)
def test_a_filled_cache_goes_on_as_a_prefilled_one_would(name: str) -> None:
    own = compiled(name)
    filled, prefilled = own.model.new_cache(2, 64), own.model.new_cache(2, 64)
    fill(filled, 40)
    own.model.prefill(random_ids(own.plan, 2, 40, own.model.device), prefilled)  # type: ignore[arg-type]
    ids_BT = random_ids(own.plan, 2, 9, own.model.device)
    logits = decode(own.model, ids_BT, filled)
    decode(own.model, ids_BT, prefilled)
    assert torch.isfinite(logits).all()
    assert filled.num_cached_tokens == prefilled.num_cached_tokens == 49
    if name == "nano_block":
        assert filled.num_open == prefilled.num_open
        assert filled.blocks.num_cached_tokens == prefilled.blocks.num_cached_tokens
        assert filled.tokens.num_cached_tokens == prefilled.tokens.num_cached_tokens
    else:
        assert torch.equal(filled.input_pos, prefilled.input_pos)
        lengths = [[cache.live_len(slot, 50) for slot in own.plan.slots] for cache in (filled, prefilled)]  # type: ignore[union-attr]
        assert lengths[0] == lengths[1]
    assert all(bool(tensor.any()) for tensor in _buffers(filled))


def _buffers(cache: Any) -> list[Tensor]:
    stacks = [cache.blocks, cache.tokens] if hasattr(cache, "blocks") else [cache]
    return [tensor for stack in stacks for tensor in (*stack.storage.slots, *stack.storage.states)]


@pytest.mark.parametrize("name", NANO)
@pytest.mark.parametrize("context", [8, 33, 70])
def test_decoding_stays_within_its_cache_and_does_whole_blocks(name: str, context: int) -> None:
    own = compiled(name)
    length = block_length(own.plan)
    trial = own.trial(Workload("decode", "float32", 2, context), 2)
    assert trial.cache_bytes == own.plan.cache_bytes(2, context, "float32")
    assert trial.most * length == decoded(context, length) <= max(context // 2, length)
    for _ in range(2):
        trial.begin()
        for _ in range(trial.most):
            trial.run()  # refuses what does not fit
    assert trial.tokens == 2 * length


def test_too_little_context_is_refused() -> None:
    own = compiled("nano_block")
    with pytest.raises(ValueError, match="from a context of 8 tokens"):
        own.trial(Workload("decode", "float32", 1, 7), 1)
    with pytest.raises(ValueError, match="whole blocks of 4"):
        move_to(own.model.new_cache(1, 16), 6)


@pytest.mark.parametrize(
    ("old", "new", "is_llama"),
    [
        ("rope 500", "rope 500", True),
        ("rope 500", "rope 500, tied embeddings", True),
        (", kv heads 2", "", True),
        ("heads 4 x 8", "heads 4 x 16", True),
        ("heads 4 x 8, kv heads 2", "heads 3 x 8", False),
        ("rope 500", "no rope", False),
        ("rope 500", "rope interleaved(500)", False),
        ("rope 500", "rope 500 on 50%", False),
        ("rope 500", "rope 500 scaled linear(2)", False),
        ("rope 500", "rope 500, bias", False),
        ("rope 500", "rope 500, qk-norm", False),
        ("rope 500", "rope 500, residual parallel", False),
        ("rope 500", "rope 500, residual scale 0.5", False),
        ("rope 500", "rope 500, post norms", False),
        ("rope 500", "rope 500, final norm layernorm(1e-3)", False),
        ("rope 500", "rope 500, logit scale 0.5", False),
        ("rope 500", "rope 500, final softcap 3", False),
        ("rope 500", "rope 500, attention softcap 3", False),
        ("rope 500", "rope 500, attention scale 0.5", False),
        ("rope 500", "rope 500, v-norm rms(1e-3)", False),
        ("rope 500", "rope 500, values-from-keys", False),
        ("rope 500", "rope 500, sink-logits", False),
        ("rope 500", "rope 500, output-gate", False),
        ("rope 500", "rope 500, embed scale 2", False),
        ("rope 500", "rope 500, head-bias", False),
        ("rope 500", "rope 500, layer-scalar", False),
        ("rms(1e-3)", "rms(1e-3, 1+w)", False),
        ("rms(1e-3)", "layernorm(1e-3)", False),
        ("swiglu(48)", "geglu(48)", False),
        ("swiglu(48)", "moe(top 1 of 2 swiglu(48))", False),
        ("layers 1-2 attend", "layers 1-2 attend, window 4", False),
        ("layers 1-2 attend", "layers 1-2 attend, no diagonal", False),
        ("layers 1-2 attend", "layers 2 ffn-only\n layers 1 attend", False),
        ("kv heads 2", "kv heads 2, ffn swiglu(48)\n layers 2 cross-attend to cache@1, heads 4 x 8", False),
    ],
)
def test_a_llama_in_transformers_is_the_same_model(old: str, new: str, is_llama: bool) -> None:
    text = LLAMA.replace(old, new)
    if "cross-attend" in new:
        text = text.replace("layers 1-2 attend", "layers 1 attend")
    plan = archspec.plan(archspec.parse_spec_text(text))
    assert (llama_config(plan) is not None) == is_llama
    if not is_llama:
        return
    own = Compiled("m", plan, device="cpu", dtype="float32", compile=False)
    for tensor in own.model.parameters():
        torch.nn.init.normal_(tensor, std=0.3)
    peer: Any = make_llama(plan, dict(own.model.state_dict()))
    ids_BT = random_ids(plan, 2, 12, own.model.device)
    with torch.no_grad():
        assert torch.allclose(peer(ids_BT).logits, own.model(ids_BT), atol=1e-4)
    shared = {tensor.data_ptr() for tensor in own.model.parameters()}
    assert {tensor.data_ptr() for tensor in peer.parameters()} == shared  # one copy of the weights


@pytest.mark.parametrize("static", [False, True])
def test_peers_decode_at_the_same_places_again_and_again(static: bool) -> None:
    own = compiled("nano_llama")
    peer = Transformers(own, static=static)
    seen: list[int] = []
    forward = peer.model.forward

    def looking(*args: Any, **kwargs: Any) -> Any:
        seen.append(int(kwargs["past_key_values"].get_seq_length()))
        return forward(*args, **kwargs)

    peer.model.forward = looking
    with torch.compiler.set_stance("force_eager"):
        trial = peer.trial(Workload("decode", "float32", 2, 40), 2)
        for _ in range(2):
            trial.begin()
            for _ in range(trial.most):
                trial.run()
    assert seen == [*range(24, 40)] * 2
    assert trial.cache_bytes == own.plan.cache_bytes(2, 40, "float32")
    assert trial.run_bytes == own.trial(Workload("decode", "float32", 2, 40), 2).run_bytes


def test_first_tokens_are_timed_in_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # compiling is tested elsewhere; here it is the processes
    spec = archspec.parse(SPECS / "nano/nano_block.arch")
    times = first_token.cold_and_warm(spec, device="cpu", dtype="float32", batch=2, threads=1)
    assert all(seconds > 0 for seconds in times)
    with pytest.raises(RuntimeError, match="unknown device"):
        first_token.cold_and_warm(spec, device="warp", dtype="float32", batch=2, threads=1)
