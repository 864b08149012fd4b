"""Attention of published families against a decoder written as loops from their formulas, in float64.

The loops share nothing with the runtime but the parameters' names: no cache, no masks, no batched products.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import archspec
from archspec.runtime.model import Model

WIDTH, VOCAB, LENGTH = 24, 19, 9
HEADER = f"layers 2, width {WIDTH}, vocab {VOCAB}, norm rms(1e-6), no ffn"
Frequencies = Callable[[int, int], float]
"""Pair of dimensions, head_dim -> radians a position."""


def plain(theta: float) -> Frequencies:
    return lambda pair, head_dim: theta ** (-2 * pair / head_dim)


@dataclass(frozen=True)
class Layer:
    """What the loops are told of a layer, in the words of its family's config."""

    heads: int
    kv_heads: int
    head_dim: int
    frequency: Frequencies | None
    window: int | None = None
    scale: float | None = None
    qk_norm: Callable[[Tensor, Tensor], Tensor] | None = None
    """(heads (N, H), weight) -> heads."""
    v_norm: Callable[[Tensor], Tensor] | None = None
    k_eq_v: bool = False
    reads: int | None = None
    """0-based layer whose keys and values it attends to."""


def rms(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean() + 1e-6).sqrt()


def each_head(x: Tensor, weight: Tensor) -> Tensor:
    """Qwen3, Gemma 3: RMS norm of each head, one weight for all."""
    return torch.stack([rms(head) * weight for head in x])


def across_heads(x: Tensor, weight: Tensor) -> Tensor:
    """OLMo 2: RMS norm of all heads together."""
    return (rms(x.flatten()) * weight).view_as(x)


def cohere(x: Tensor, weight: Tensor) -> Tensor:
    """Command R+: each head centred and scaled, with a weight of its own and no bias."""
    rows = [(head - head.mean()) / (head.var(unbiased=False) + 1e-6).sqrt() for head in x]
    return torch.stack([row * weight[n] for n, row in enumerate(rows)])


def turn(x: Tensor, position: int, frequency: Frequencies | None) -> Tensor:
    """Rotate dimension i with i + H / 2."""
    if frequency is None:
        return x
    half, out = x.shape[-1] // 2, x.clone()
    for i in range(half):
        angle = position * frequency(i, 2 * half)
        out[..., i] = x[..., i] * math.cos(angle) - x[..., i + half] * math.sin(angle)
        out[..., i + half] = x[..., i + half] * math.cos(angle) + x[..., i] * math.sin(angle)
    return out


def keys_and_values(h: Tensor, position: int, layer: Layer, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    shape = (layer.kv_heads, layer.head_dim)
    k = (weights["kv.k_proj.weight"] @ h).view(shape)
    v = k if layer.k_eq_v else (weights["kv.v_proj.weight"] @ h).view(shape)
    if layer.qk_norm is not None:
        k = layer.qk_norm(k, weights["kv.k_norm.weight"])
    if layer.v_norm is not None:
        v = torch.stack([layer.v_norm(head) for head in v])
    return turn(k, position, layer.frequency), v


def attend(h: Tensor, t: int, layer: Layer, weights: dict[str, Tensor], cache: list[tuple[Tensor, Tensor]]) -> Tensor:
    q = (weights["q_proj.weight"] @ h).view(layer.heads, layer.head_dim)
    if layer.qk_norm is not None:
        q = layer.qk_norm(q, weights["q_norm.weight"])
    q = turn(q, t, layer.frequency)
    scale = layer.head_dim**-0.5 if layer.scale is None else layer.scale
    seen = range(0 if layer.window is None else max(0, t - layer.window + 1), t + 1)
    rows = []
    for n in range(layer.heads):
        kv = n // (layer.heads // layer.kv_heads)
        powers = [math.exp(float(q[n] @ cache[s][0][kv]) * scale) for s in seen]
        total = sum(powers)
        if "sink_logits" in weights:
            total += math.exp(float(weights["sink_logits"][n]))
        rows.append(sum(p / total * cache[s][1][kv] for p, s in zip(powers, seen, strict=True)))
    o = torch.stack(rows).flatten()
    if "g_proj.weight" in weights:
        o = o * torch.sigmoid(weights["g_proj.weight"] @ h)
    return weights["o_proj.weight"] @ o


def logits_by_loops(model: Model, layers: list[Layer], ids: list[int]) -> Tensor:
    """Logits (T, V): pre-norm layers of attention alone."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    xs = [state["embed.weight"][token] for token in ids]
    caches: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for idx, layer in enumerate(layers):
        prefix = f"layers.{idx}.mixer."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        hs = [rms(x) * state[f"layers.{idx}.mixer_norm.weight"] for x in xs]
        if layer.reads is None:
            caches[idx] = [keys_and_values(h, t, layer, weights) for t, h in enumerate(hs)]
        cache = caches[idx if layer.reads is None else layer.reads]
        xs = [x + attend(h, t, layer, weights, cache) for t, (x, h) in enumerate(zip(xs, hs, strict=True))]
    return torch.stack([state["lm_head.weight"] @ (rms(x) * state["norm.weight"]) for x in xs])


def llama3(pair: int, head_dim: int) -> float:
    """Base 100, factor 4, 16 tokens originally: one wavelength stays, one is stretched, those between are mixed."""
    frequency = 100.0 ** (-2 * pair / head_dim)
    share = 16 * frequency / (2 * math.pi)
    smooth = min(1.0, max(0.0, (share - 1) / (4 - 1)))
    return (1 - smooth) * frequency / 4 + smooth * frequency


def proportional(pair: int, head_dim: int) -> float:
    return 1000.0 ** (-2 * pair / head_dim) if pair < head_dim // 8 else 0.0


CASES = {
    "llama 3.1": (
        "layers 1-2 attend, heads 4 x 8, kv heads 2, rope 100 scaled llama3(4, low 1, high 4, original 16)",
        [Layer(4, 2, 8, llama3)] * 2,
    ),
    "linear": (
        "layers 1-2 attend, heads 4 x 8, rope 100 scaled linear(3)",
        [Layer(4, 4, 8, lambda pair, head_dim: 100.0 ** (-2 * pair / head_dim) / 3)] * 2,
    ),
    "gpt-oss": (
        "layers 1 attend, heads 4 x 8, kv heads 2, rope 100, window 3, sink-logits\n"
        "layers 2 attend, heads 4 x 8, kv heads 2, rope 100, sink-logits",
        [Layer(4, 2, 8, plain(100.0), window=3), Layer(4, 2, 8, plain(100.0))],
    ),
    "reader with sinks of its own": (
        "layers 1 attend, heads 4 x 8, kv heads 2, rope 100, window 4\n"
        "layers 2 cross-attend to cache@1, heads 6 x 8, window 4, sink-logits",
        [Layer(4, 2, 8, plain(100.0), window=4), Layer(6, 2, 8, plain(100.0), window=4, reads=0)],
    ),
    "smollm3": (
        "layers 1 attend, heads 4 x 8, kv heads 2, rope 100\nlayers 2 attend, heads 4 x 8, kv heads 2, no rope",
        [Layer(4, 2, 8, plain(100.0)), Layer(4, 2, 8, None)],
    ),
    "gemma 4": (
        "layers 1 attend, heads 4 x 8, kv heads 2, rope 100, window 4, qk-norm rms(1e-6), v-norm rms(1e-6, no weight),"
        " attention scale 1\n"
        "layers 2 attend, heads 4 x 16, kv heads 1, rope proportional(1000) on 25%, qk-norm rms(1e-6),"
        " v-norm rms(1e-6, no weight), values-from-keys, attention scale 1",
        [
            Layer(4, 2, 8, plain(100.0), window=4, scale=1.0, qk_norm=each_head, v_norm=rms),
            Layer(4, 1, 16, proportional, scale=1.0, qk_norm=each_head, v_norm=rms, k_eq_v=True),
        ],
    ),
    "a reader of gemma 4's values": (
        "layers 1 attend, heads 4 x 16, kv heads 1, rope proportional(1000) on 25%, qk-norm rms(1e-6),"
        " v-norm rms(1e-6, no weight), values-from-keys\n"
        "layers 2 cross-attend to cache@1, heads 2 x 16, qk-norm rms(1e-6)",
        [
            Layer(4, 1, 16, proportional, qk_norm=each_head, v_norm=rms, k_eq_v=True),
            Layer(2, 1, 16, proportional, qk_norm=each_head, reads=0),
        ],
    ),
    "olmo 2": (
        "layers 1-2 attend, heads 4 x 8, kv heads 2, rope 100, qk-norm rms(1e-6) across heads",
        [Layer(4, 2, 8, plain(100.0), qk_norm=across_heads)] * 2,
    ),
    "command r+": (
        "layers 1-2 attend, heads 4 x 8, kv heads 2, rope 100, qk-norm layernorm(1e-6, no bias) each head",
        [Layer(4, 2, 8, plain(100.0), qk_norm=cohere)] * 2,
    ),
    "gated attention": (
        "layers 1-2 attend, heads 4 x 8, kv heads 2, rope 100, output-gate",
        [Layer(4, 2, 8, plain(100.0))] * 2,
    ),
}


@pytest.mark.parametrize("backend", ["sdpa", "matmul"])
@pytest.mark.parametrize("name", CASES)
def test_against_loops(name, backend):
    statements, layers = CASES[name]
    spec = archspec.parse_spec_text(f"model m {{\n{HEADER}\n{statements}\n}}")
    model = archspec.compile(spec, dtype="float64", seed=3, compile=False, backend=backend)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator) * 0.6)
    ids = torch.randint(0, VOCAB, (1, LENGTH), generator=generator)
    wanted = logits_by_loops(model, layers, ids[0].tolist())
    with torch.no_grad():
        assert torch.allclose(model(ids)[0], wanted, atol=1e-4), float((model(ids)[0] - wanted).abs().max())
        cache = model.new_cache(1, LENGTH)
        rows = [model.prefill(ids[:, :4], cache), *(model.decode(ids[:, t], cache) for t in range(4, LENGTH))]
    assert torch.allclose(torch.cat(rows), wanted[3:], atol=1e-4)


def test_a_sink_takes_weight_away():
    """With a sink of ln 3 and all scores zero, a token that sees only itself keeps a quarter of its value."""
    text = "model m {\nlayers 1, width 8, vocab 5, norm rms(1e-6), no ffn, no rope\nlayers 1 attend, heads 2 x 4, sink-logits\n}"
    model = archspec.compile(archspec.parse_spec_text(text), compile=False)
    mixer = model.layers[0].mixer
    with torch.no_grad():
        mixer.sink_logits.fill_(math.log(3.0))
        mixer.q_proj.weight.zero_()
        mixer.o_proj.weight.copy_(torch.eye(8))
        mixer.kv.v_proj.weight.copy_(torch.eye(8))
        model.lm_head.weight.copy_(torch.randn(5, 8))
        ids = torch.tensor([[2]])
        x = model.embed.weight[2]
        h = x / (x.square().mean() + 1e-6).sqrt()
        y = x + 0.25 * h
        wanted = model.lm_head.weight @ (y / (y.square().mean() + 1e-6).sqrt())
        assert torch.allclose(model(ids)[0, 0], wanted, atol=1e-5)
