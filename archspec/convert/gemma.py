"""Gemma 2 (arXiv 2408.00118): norms before and after both parts of a layer, softcaps, a window in every other layer.

Source: transformers' Gemma2Config for what an absent field means. Norms scale by 1 + weight.
"""

from dataclasses import replace

from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, transformers_family
from archspec.convert.llama import HARMLESS, NAMES, Absent, is_table, read_base, tensor_names, typed_windows
from archspec.spec.model import BiasTarget, Embedding

ABSENT = Absent(kv_heads=4, head_dim=256, tied=True, activation="gelu_pytorch_tanh")
NOTES = words("cache_implementation")
"""How the authors' code stores keys and values."""
_NAMES = {
    **NAMES,
    "mixer_post_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_post_norm": "post_feedforward_layernorm",
}


def read_gemma2(config: Config, name: str) -> Blueprint:
    """Gemma 2: `hidden_activation` counts, and `hidden_act`, which old configs have beside it, must agree."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    base = read_base(config, bias=bias, absent=ABSENT, activation_field="hidden_activation")
    activation = config.get("hidden_activation") or ABSENT.activation
    config.must("hidden_act", f"an activation that differs from `hidden_activation` {activation}", activation)
    if config.flag("use_bidirectional_attention"):
        config.refuse("attention to later tokens", "use_bidirectional_attention", True)
    windows = _windows(config, base.num_layers)
    norm = base.common.norm
    settings = {
        "norm": norm.model_copy(update={"plus_one": True}) if norm is not None else None,
        "placement": "sandwich",
        "attention_scale": config.number("query_pre_attn_scalar", 256) ** -0.5,
        "attention_softcap": config.optional_number("attn_logit_softcapping", 50.0),
    }
    base = replace(
        base,
        common=base.common.model_copy(update=settings),
        embedding=Embedding(scale="sqrt(width)", tied=base.embedding.tied),
        final_softcap=config.optional_number("final_logit_softcapping", 30.0),
    )
    config.finish(name, HARMLESS | NOTES)
    spec = base.spec(name, [base.layer(window) for window in windows])
    return Blueprint(spec, tensor_names(_NAMES), ignored=is_table)


def _windows(config: Config, num_layers: int) -> list[int | None]:
    """Without `layer_types`, every other layer has the window, the first one among them."""
    window = config.optional_count("sliding_window", 4096)
    config.must("sliding_window_size", f"a window that differs from `sliding_window` {window}", window)
    types = config.get("layer_types")
    if types is None:
        types = ["full_attention" if idx % 2 else "sliding_attention" for idx in range(num_layers)]
    return typed_windows(config, num_layers, types, window)


FAMILIES = (transformers_family("Gemma 2", "gemma2", "Gemma2ForCausalLM", read_gemma2),)
