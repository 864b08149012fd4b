"""Gemma 1, 2 and 3 (arXiv 2403.08295, 2408.00118, 2503.19786): norms that scale by 1 + weight, scaled embeddings.

Gemma 2 has norms before and after both parts of a layer, softcaps, and a window in every other layer; Gemma 3 has norms
of queries and keys in place of attention's softcap, and a RoPE for each type of layers. Source: the config classes in
transformers for what an absent field means.
"""

from collections.abc import Mapping
from dataclasses import replace

from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, transformers_family
from archspec.convert.llama import (
    HARMLESS,
    NAMES,
    Absent,
    Base,
    is_table,
    layer_types,
    patterned,
    read_base,
    read_heads,
    tensor_names,
    typed_windows,
    uniform_windows,
)
from archspec.convert.rope import LLAMA, RopeFields, check_types, read_rope, read_rope_of_type
from archspec.convert.text_part import text_family
from archspec.spec.model import BiasTarget, Embedding, Norm, Rope

ABSENT = Absent(kv_heads=4, head_dim=256, tied=True, activation="gelu_pytorch_tanh")
NOTES = words("cache_implementation")
"""How the authors' code stores keys and values."""
SANDWICH = {
    **NAMES,
    "mixer_post_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_post_norm": "post_feedforward_layernorm",
}
TYPES = ("full_attention", "sliding_attention")
GEMMA3_DEFAULTS: Mapping[str, object] = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
}
"""Configs of conditional generation leave out what is the default."""
_PATTERNS = ("sliding_window_pattern", "_sliding_window_pattern")


def read_gemma(config: Config, name: str) -> Blueprint:
    """Gemma 1: a Llama; where `hidden_activation` is stated, it counts and not `hidden_act`."""
    field = "hidden_act" if config.get("hidden_activation") is None else "hidden_activation"
    config.skip("hidden_act")
    base = read_gemma_base(config, replace(ABSENT, kv_heads=16), activation_field=field)
    windows = uniform_windows(config, base.num_layers, None)
    config.finish(name, HARMLESS | NOTES)
    return Blueprint(base.spec(name, [base.layer(window) for window in windows]), tensor_names(), ignored=is_table)


def read_gemma2(config: Config, name: str) -> Blueprint:
    """Gemma 2: `hidden_activation` counts, and `hidden_act`, which old configs have beside it, must agree.

    Without `layer_types`, every other layer has the window, the first one among them.
    """
    base = read_gemma_base(config, ABSENT)
    check_activation(config)
    window = config.optional_count("sliding_window", 4096)
    config.must("sliding_window_size", f"a window that differs from `sliding_window` {window}", window)
    windows = typed_windows(config, base.num_layers, patterned(base.num_layers, 2), window)
    base = replace(base, final_softcap=config.optional_number("final_logit_softcapping", 30.0)).having(
        placement="sandwich",
        attention_scale=_attention_scale(config, base),
        attention_softcap=config.optional_number("attn_logit_softcapping", 50.0),
    )
    config.finish(name, HARMLESS | NOTES)
    spec = base.spec(name, [base.layer(window) for window in windows])
    return Blueprint(spec, tensor_names(SANDWICH), ignored=is_table)


def read_gemma3(config: Config, name: str) -> Blueprint:
    """Gemma 3, text: windows in all but every sixth layer, which have a RoPE of their own."""
    config = config.filled(GEMMA3_DEFAULTS)
    num_layers = config.num_layers("num_hidden_layers")
    types = layer_types(config, num_layers, patterned(num_layers, _pattern(config)))
    windows = typed_windows(config, num_layers, types, config.optional_count("sliding_window", 4096))
    ropes = _gemma3_ropes(config, read_heads(config, ABSENT.head_dim).head_dim or 1)
    base = read_gemma_base(config, ABSENT, rope=ropes["full_attention"])
    check_activation(config)
    base = replace(base, final_softcap=config.optional_number("final_logit_softcapping")).having(
        placement="sandwich",
        attention_scale=_attention_scale(config, base),
        qk_norm=base.common.norm,
    )
    config.must("attn_logit_softcapping", "a softcap of attention, which transformers' Gemma 3 does not apply")
    config.finish(name, HARMLESS | NOTES)
    layers = [base.layer(window, rope=ropes[kind]) for window, kind in zip(windows, types, strict=True)]
    return Blueprint(base.spec(name, layers), tensor_names(SANDWICH), ignored=is_table)


def read_gemma_base(
    config: Config,
    absent: Absent,
    rope: Rope | RopeFields = LLAMA,
    activation_field: str = "hidden_activation",
    plus_one: bool = True,
) -> Base:
    """What all of them have. `plus_one`: norms scale by 1 + weight."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    norm = Norm(kind="rms", eps=config.number("rms_norm_eps", 1e-6), plus_one=plus_one)
    base = read_base(config, bias=bias, absent=absent, norm=norm, rope=rope, activation_field=activation_field)
    return replace(base, embedding=Embedding(scale="sqrt(width)", tied=base.embedding.tied))


def _attention_scale(config: Config, base: Base) -> float | None:
    """One over the root of `query_pre_attn_scalar`; None if that is the head_dim, as it would be anyway."""
    size = config.number("query_pre_attn_scalar", 256)
    return None if base.common.heads and size == base.common.heads.head_dim else size**-0.5


def check_activation(config: Config, harmless: tuple[str, ...] = ()) -> None:
    """Refuse a `hidden_act` that says something else than `hidden_activation`, and attention to later tokens."""
    activation = config.get("hidden_activation") or ABSENT.activation
    config.must("hidden_act", f"an activation that differs from `hidden_activation` {activation}", activation)
    config.must("use_bidirectional_attention", "attention to later tokens", False, *harmless)


def _pattern(config: Config) -> int:
    """Every so many layers one sees all, if `layer_types` does not say."""
    stated = [config.count(field) for field in _PATTERNS if config.get(field) is not None]
    if len(set(stated)) > 1:
        config.refuse(f"a pattern that differs from `{_PATTERNS[0]}` {stated[0]}", _PATTERNS[1], stated[1])
    return stated[0] if stated else 6


def _gemma3_ropes(config: Config, head_dim: int) -> dict[str, Rope]:
    """RoPE of each type of layers: objects in `rope_parameters`, or two bases and `rope_scaling` for the full ones."""
    values = config.get("rope_parameters")
    full, sliding = RopeFields(default_theta=1e6), RopeFields(theta=("rope_local_base_freq",))
    if isinstance(values, dict) and values:
        check_types(config, TYPES)
    return {
        "full_attention": read_rope(
            config, head_dim, replace(full, objects=("rope_scaling", "rope_parameters.full_attention"))
        ),
        "sliding_attention": read_rope_of_type(config, "sliding_attention", head_dim, sliding),
    }


FAMILIES = (
    transformers_family("Gemma", "gemma", "GemmaForCausalLM", read_gemma),
    transformers_family("Gemma 2", "gemma2", "Gemma2ForCausalLM", read_gemma2),
    transformers_family("Gemma 3", "gemma3_text", "Gemma3ForCausalLM", read_gemma3),
    text_family(
        "Gemma 3",
        "gemma3",
        "Gemma3ForConditionalGeneration",
        read_gemma3,
        harmless=words(
            "boi_token_index boi_token_id eoi_token_index eoi_token_id image_token_index image_token_id "
            "mm_tokens_per_image vision_config"
        ),
    ),
)
