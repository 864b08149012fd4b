"""GPT-NeoX (arXiv 2204.06745) and Pythia (arXiv 2304.01373): layernorms, biases, RoPE on a part of each head.

Queries, keys and values come from one matrix whose rows are, head by head, those of q, k and v.
Source: transformers' GPTNeoXConfig for what an absent field means.
"""

import re

from archspec.convert.activations import PLAIN, read_ffn_kind
from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, Fused, transformers_family
from archspec.convert.llama import HARMLESS, Base, is_table
from archspec.convert.rope import RopeFields, read_rope
from archspec.spec.model import BiasTarget, Embedding, Ffn, Heads, Norm, Settings

ROPE = RopeFields(
    theta=("rotary_emb_base", "rope_theta"), part=("rotary_pct", "partial_rotary_factor"), default_part=0.25
)
"""The family's old names, and those that transformers 4.46 wrote beside them."""
NOTES = words("classifier_dropout")
_FUSED = ("mixer.q_proj", "mixer.kv.k_proj", "mixer.kv.v_proj")
_NAMES = {
    "embed": "gpt_neox.embed_in",
    "norm": "gpt_neox.final_layer_norm",
    "lm_head": "embed_out",
    "mixer_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    **dict.fromkeys(_FUSED, "attention.query_key_value"),
    "mixer.o_proj": "attention.dense",
    "ffn.up_proj": "mlp.dense_h_to_4h",
    "ffn.down_proj": "mlp.dense_4h_to_h",
}


def read_gpt_neox(config: Config, name: str) -> Blueprint:
    """A GPT-NeoX model."""
    width = config.count("hidden_size")
    heads = read_heads(config, width)
    base = Base(
        num_layers=config.num_layers("num_hidden_layers"),
        hidden_size=width,
        vocab_size=config.count("vocab_size"),
        embedding=Embedding(tied=config.flag("tie_word_embeddings")),
        common=read_settings(config, heads),
        kv_heads=None,
    )
    config.finish(name, HARMLESS | NOTES)
    spec = base.spec(name, [base.layer()] * base.num_layers)
    return Blueprint(spec, tensor_name, fused=lambda name: fused(name, heads.count), ignored=is_mask)


def read_heads(config: Config, width: int, field: str = "num_attention_heads") -> Heads:
    """Heads that divide the width."""
    count = config.count(field)
    if width % count:
        raise config.bad(field, f"a divisor of hidden_size {width}", count)
    return Heads(count=count, head_dim=width // count)


def read_settings(config: Config, heads: Heads) -> Settings:
    """What every layer has."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out", "ffn") if config.flag("attention_bias", True) else ("ffn",)
    return Settings(
        heads=heads,
        ffn=Ffn(kind=read_ffn_kind(config, "hidden_act", "gelu", PLAIN), hidden_size=config.count("intermediate_size")),
        norm=Norm(kind="layernorm", eps=config.number("layer_norm_eps", 1e-5)),
        rope=read_rope(config, heads.head_dim or 0, ROPE),
        bias=bias,
        residual="parallel" if config.flag("use_parallel_residual", True) else None,
    )


def tensor_name(name: str) -> str:
    """Parameter name -> name in a checkpoint; q, k and v have the same."""
    part, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)", part)
    if layer is None:
        return f"{_NAMES[part]}.{kind}"
    return f"gpt_neox.layers.{layer[1]}.{_NAMES[layer[2]]}.{kind}"


def fused(name: str, num_heads: int) -> Fused | None:
    """Which part of `query_key_value` a parameter is."""
    part = re.sub(r"^layers\.\d+\.", "", name).rpartition(".")[0]
    return Fused(_FUSED.index(part), len(_FUSED), num_heads) if part in _FUSED else None


def is_mask(name: str) -> bool:
    """Masks and RoPE frequencies, which transformers once saved with the weights."""
    return is_table(name) or name.endswith((".attention.bias", ".attention.masked_bias"))


FAMILIES = (transformers_family("GPT-NeoX", "gpt_neox", "GPTNeoXForCausalLM", read_gpt_neox),)
