"""Embeddings, norms, residuals and heads of published models, against loops over positions in float64.

Each expectation is written out from the model's own code (transformers' modeling files), not from archspec's.
"""

import math

import pytest
import torch

import archspec

WIDTH, HEADS, VOCAB = 16, 2, 23
SIZE = WIDTH // HEADS


def model_of(header, statement="layers 1-2 attend", seed=0):
    """A model of two layers with random weights and buffers, in float64."""
    text = f"model m {{\n layers 2, width {WIDTH}, vocab {VOCAB}, heads {HEADS} x {SIZE}\n {header}\n {statement}\n}}"
    model = archspec.compile(archspec.parse_spec_text(text), dtype="float64", compile=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / 2)
    return model


class Weights:
    """The tensors of a model by name."""

    def __init__(self, model):
        self.of = model.state_dict()

    def linear(self, name, x):
        out = self.of[f"{name}.weight"] @ x
        return out + self.of[f"{name}.bias"] if f"{name}.bias" in self.of else out

    def layernorm(self, name, x, eps=1e-5):
        x = (x - x.mean()) / (((x - x.mean()) ** 2).mean() + eps) ** 0.5
        x = x * self.of[f"{name}.weight"] if f"{name}.weight" in self.of else x
        return x + self.of[f"{name}.bias"] if f"{name}.bias" in self.of else x

    def rms(self, name, x, eps=1e-5):
        x = x / ((x**2).mean() + eps) ** 0.5
        return x * self.of[f"{name}.weight"] if f"{name}.weight" in self.of else x

    def attention(self, layer, rows):
        """Causal softmax attention without positions. `rows`: the normed hidden states of all tokens."""
        name = f"layers.{layer}.mixer"
        queries, keys, values = (
            [self.linear(f"{name}.{part}", row).view(HEADS, SIZE) for row in rows]
            for part in ("q_proj", "kv.k_proj", "kv.v_proj")
        )
        out = []
        for t in range(len(rows)):
            heads = []
            for head in range(HEADS):
                scores = torch.stack([queries[t][head] @ keys[s][head] / math.sqrt(SIZE) for s in range(t + 1)])
                weights = scores.exp() / scores.exp().sum()
                heads.append(sum(weights[s] * values[s][head] for s in range(t + 1)))
            out.append(self.linear(f"{name}.o_proj", torch.cat(heads)))
        return out

    def ffn(self, layer, x):
        """down(relu(up x)): what this file varies is around it."""
        return self.linear(f"layers.{layer}.ffn.down_proj", self.linear(f"layers.{layer}.ffn.up_proj", x).clamp(min=0))


def sequential(weights, rows, norm, scale=1.0, scalar=False):
    for layer in range(2):
        mixed = weights.attention(layer, [norm(f"layers.{layer}.mixer_norm", row) for row in rows])
        rows = [row + scale * part for row, part in zip(rows, mixed, strict=True)]
        rows = [row + scale * weights.ffn(layer, norm(f"layers.{layer}.ffn_norm", row)) for row in rows]
        if scalar:
            rows = [row * weights.of[f"layers.{layer}.scalar"] for row in rows]
    return rows


def parallel_one_norm(weights, rows, norm):
    for layer in range(2):
        normed = [norm(f"layers.{layer}.mixer_norm", row) for row in rows]
        mixed = weights.attention(layer, normed)
        fed = [weights.ffn(layer, row) for row in normed]
        rows = [row + a + b for row, a, b in zip(rows, mixed, fed, strict=True)]
    return rows


def head(weights, row, scale=1.0):
    matrix = weights.of.get("lm_head.weight", weights.of["embed.weight"])
    logits = matrix @ row
    return scale * (logits + weights.of["lm_head.bias"] if "lm_head.bias" in weights.of else logits)


def gpt2(weights, ids):
    rows = [weights.of["embed.weight"][token] + weights.of["positions.weight"][t] for t, token in enumerate(ids)]
    rows = sequential(weights, rows, weights.layernorm)
    return [head(weights, weights.layernorm("norm", row)) for row in rows]


def opt(weights, ids):
    rows = [weights.of["embed.weight"][token] + weights.of["positions.weight"][t + 2] for t, token in enumerate(ids)]
    rows = sequential(weights, rows, weights.layernorm)
    return [head(weights, weights.layernorm("norm", row)) for row in rows]


def gpt_j(weights, ids):
    rows = parallel_one_norm(weights, [weights.of["embed.weight"][token] for token in ids], weights.layernorm)
    return [head(weights, weights.layernorm("norm", row)) for row in rows]


def cohere(weights, ids):
    rows = parallel_one_norm(weights, [weights.of["embed.weight"][token] for token in ids], weights.layernorm)
    return [head(weights, weights.layernorm("norm", row), scale=0.0625) for row in rows]


def granite(weights, ids):
    rows = [12.0 * weights.of["embed.weight"][token] for token in ids]
    rows = sequential(weights, rows, weights.rms, scale=0.22)
    return [head(weights, weights.rms("norm", row), scale=1 / 8) for row in rows]


def olmo(weights, ids):
    rows = sequential(weights, [weights.of["embed.weight"][token] for token in ids], weights.layernorm)
    return [head(weights, weights.layernorm("norm", row)) for row in rows]


def bloom(weights, ids):
    rows = [weights.layernorm("embed_norm", weights.of["embed.weight"][token]) for token in ids]
    rows = sequential(weights, rows, weights.layernorm)
    return [head(weights, weights.layernorm("norm", row)) for row in rows]


def scaled_layers(weights, ids):
    rows = sequential(weights, [weights.of["embed.weight"][token] for token in ids], weights.rms, scalar=True)
    return [head(weights, weights.rms("norm", row)) for row in rows]


def no_final_norm(weights, ids):
    rows = sequential(weights, [weights.of["embed.weight"][token] for token in ids], weights.rms)
    return [head(weights, row) for row in rows]


MODELS = {
    "gpt2": ("norm layernorm(1e-5), ffn relu(20), bias, positions learned 32, tied embeddings", gpt2),
    "opt": ("norm layernorm(1e-5), ffn relu(20), bias, positions learned 32 from 2, tied embeddings", opt),
    "gpt-j": ("norm layernorm(1e-5), ffn relu(20), bias ffn, no rope, residual parallel-one-norm, head-bias", gpt_j),
    "cohere": (
        "norm layernorm(1e-5, no bias), ffn relu(20), no rope, residual parallel-one-norm, logit scale 0.0625, "
        "tied embeddings, head-bias",
        cohere,
    ),
    "granite": (
        "norm rms(1e-5), ffn relu(20), no rope, embed scale 12, residual scale 0.22, logit scale 0.125",
        granite,
    ),
    "olmo": ("norm layernorm(1e-5, no weight), ffn relu(20), no rope", olmo),
    "rms without weight": ("norm rms(1e-5, no weight), ffn relu(20), no rope, layer-scalar", scaled_layers),
    "bloom": ("norm layernorm(1e-5), ffn relu(20), bias, no rope, embed norm layernorm(1e-5)", bloom),
    "layer scalar": ("norm rms(1e-5), ffn relu(20), no rope, layer-scalar", scaled_layers),
    "no final norm": ("norm rms(1e-5), ffn relu(20), no rope, no final-norm", no_final_norm),
}
IDS = torch.randint(0, VOCAB, (9,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_logits(name):
    header, by_hand = MODELS[name]
    model = model_of(header)
    expected = torch.stack(by_hand(Weights(model), IDS.tolist()))
    torch.testing.assert_close(model(IDS[None])[0], expected, atol=1e-9, rtol=1e-9)
    cache = model.new_cache(1, 9)
    found = [model.prefill(IDS[None, :5], cache), *(model.decode(token, cache) for token in IDS[5:, None])]
    torch.testing.assert_close(torch.cat(found), expected[4:], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["gpt2", "opt"])
@torch.no_grad()
def test_padding_has_no_positions(name):
    """A padded row gives what it gives alone, although positions are absolute."""
    model = model_of(MODELS[name][0])
    ids, mask = IDS.repeat(2, 1), torch.ones(2, 9, dtype=torch.int64)
    mask[1, :4] = 0
    torch.testing.assert_close(model(ids, mask)[1, 4:], model(IDS[None, 4:])[0])
    cache, alone = model.new_cache(2, 12), model.new_cache(1, 12)
    padded = model.prefill(ids, cache, mask)[1], model.decode(ids[:, 0], cache)[1]
    plain = model.prefill(IDS[None, 4:], alone)[0], model.decode(ids[:1, 0], alone)[0]
    torch.testing.assert_close(padded, plain)


def test_no_token_beyond_the_learned_positions():
    """Windows keep a cache of constant size; there are no vectors for later positions all the same."""
    model = model_of("norm rms, ffn relu(20), positions learned 6, window 3")
    ids = IDS[None, :7]
    text = "m has learned positions for 6 tokens, not for 7"
    for call in (model, model.converge, lambda ids: model.loss(torch.cat((ids, ids[:, :1]), 1))):
        with pytest.raises(ValueError, match=text):
            call(ids)
    with pytest.raises(ValueError, match=text):
        model.new_cache(1, 7)
    with pytest.raises(ValueError, match=text):
        model.plan.cache_bytes(1, 7)
    with pytest.raises(ValueError, match=text):
        model.generate(ids[:, :4], 3)
    with pytest.raises(ValueError, match=text):
        model.prefill(ids, model.new_cache(1, 3))
    cache = model.new_cache(1, 3)
    model.prefill(ids[:, :6], cache)
    with pytest.raises(ValueError, match=text):
        model.decode(ids[:, 6], cache)
    assert model.generate(ids[:, :4], 2).shape == (1, 6)
    assert model.loss(ids).isfinite()


def test_layer_scalars_start_at_one_and_are_no_parameters():
    text = (
        "model m {\n layers 2, width 16, vocab 23, heads 2, ffn relu(20), no rope, layer-scalar\n layers 1-2 attend\n}"
    )
    model = archspec.compile(archspec.parse_spec_text(text), compile=False)
    assert [layer.scalar.tolist() for layer in model.layers] == [[1.0], [1.0]]
    assert not any("scalar" in name for name, _ in model.named_parameters())
    assert dict(model.plan.buffer_shapes()) == {"layers.0.scalar": (1,), "layers.1.scalar": (1,)}


def test_width_of_the_ffn_by_layer():
    text = """model m {
      layers 3, width 16, vocab 23, heads 2, ffn swiglu(20), no rope
      layers 1 attend, ffn relu2(64)
      layers 2 attend, ffn moe(top 1 of 4 swiglu(8))
      layers 3 attend
    }"""
    shapes = dict(archspec.plan(archspec.parse_spec_text(text)).parameter_shapes())
    assert shapes["layers.0.ffn.up_proj.weight"] == (64, 16)
    assert shapes["layers.1.ffn.experts.up_proj.weight"] == (4, 8, 16)
    assert shapes["layers.2.ffn.up_proj.weight"] == (20, 16)
