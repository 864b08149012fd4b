"""OLMo (arXiv 2402.00838), and families with norms behind mixer and ffn: OLMo 2 (arXiv 2501.00656), OLMo 3, EXAONE 4.

Source: transformers' OlmoConfig, Olmo2Config, Olmo3Config and Exaone4Config for what an absent field means.
"""

from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, transformers_family
from archspec.convert.hf import HEAD_NORM
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
)
from archspec.convert.rope import LLAMA, TYPED, RopeFields, check_types, read_rope, read_rope_of_type
from archspec.spec.model import BiasTarget, Norm, Rope

NOTES = words("cache_implementation")
ACROSS = Norm(kind="rms", spread="across")
_NAMES = {
    **NAMES,
    "mixer_post_norm": "post_attention_layernorm",
    "ffn_post_norm": "post_feedforward_layernorm",
}
_TYPES = ("full_attention", "sliding_attention")
_OLMO3_ROPE = RopeFields(default_theta=5e5)


def read_olmo(config: Config, name: str) -> Blueprint:
    """OLMo: layer norms with neither weight nor bias."""
    base = read_base(config, bias=_bias(config), norm=Norm(kind="layernorm", eps=1e-5, weight=False))
    config.must("clip_qkv", "clipping of queries, keys and values")
    config.finish(name, HARMLESS)
    return Blueprint(base.spec(name, [base.layer()] * base.num_layers), tensor_names(), ignored=is_table)


def read_olmo2(config: Config, name: str) -> Blueprint:
    """OLMo 2: norms behind mixer and ffn, and of queries and keys over all heads together."""
    base = _with_norms_behind(config)
    config.finish(name, HARMLESS)
    return Blueprint(base.spec(name, [base.layer()] * base.num_layers), tensor_names(_NAMES), ignored=is_table)


def read_olmo3(config: Config, name: str) -> Blueprint:
    """OLMo 3: OLMo 2 with a window in three of four layers; only the others' RoPE is scaled."""
    types = layer_types(config, num := config.num_layers("num_hidden_layers"), patterned(num, 4))
    windows = typed_windows(config, num, types, config.optional_count("sliding_window", 4096))
    head_dim = read_heads(config).head_dim or 1
    ropes = _ropes(config, head_dim)
    base = _with_norms_behind(config, ropes["full_attention"])
    config.finish(name, HARMLESS)
    layers = [base.layer(window, rope=ropes[kind]) for window, kind in zip(windows, types, strict=True)]
    return Blueprint(base.spec(name, layers), tensor_names(_NAMES), ignored=is_table)


def read_exaone4(config: Config, name: str) -> Blueprint:
    """EXAONE 4: if there is a window, three of four layers have it, and only they have RoPE."""
    base = read_base(config, qk_norm=HEAD_NORM, absent=Absent(kv_heads=32, eps=1e-5)).having(placement="post")
    window = config.optional_count("sliding_window", 4096)
    default = _exaone4_types(config, base.num_layers, window)
    windows = typed_windows(config, base.num_layers, default, window)
    config.finish(name, HARMLESS | NOTES)
    rope = base.common.rope
    layers = [base.layer(own, rope=rope if own or window is None else Rope(kind="none")) for own in windows]
    return Blueprint(base.spec(name, layers), tensor_names(_NAMES), ignored=is_table)


def _exaone4_types(config: Config, num_layers: int, window: int | None) -> list[str]:
    """`sliding_window_pattern` is how often a layer sees all, or a word of L and G, and the last layer sees all."""
    pattern = config.get("sliding_window_pattern", 4)
    if window is None or pattern in (None, 0):
        return ["full_attention"] * num_layers
    if isinstance(pattern, str) and set(pattern) <= set("LG") and pattern:
        kinds = [pattern[idx % len(pattern)] for idx in range(num_layers - 1)] + ["G"]
        return ["sliding_attention" if kind == "L" else "full_attention" for kind in kinds]
    return patterned(num_layers, config.count("sliding_window_pattern"))


def _ropes(config: Config, head_dim: int) -> dict[str, Rope]:
    """RoPE of each type of layers: an object each, or one base for both and `rope_scaling` for the full ones."""
    values = config.get(TYPED)
    if isinstance(values, dict) and any(key in values for key in _TYPES):
        check_types(config, _TYPES)
        return {kind: read_rope_of_type(config, kind, head_dim, _OLMO3_ROPE) for kind in _TYPES}
    scaled = read_rope(config, head_dim, _OLMO3_ROPE)
    return {"full_attention": scaled, "sliding_attention": scaled.model_copy(update={"scaling": None})}


def _with_norms_behind(config: Config, rope: Rope | RopeFields = LLAMA) -> Base:
    base = read_base(config, bias=_bias(config), qk_norm=ACROSS, absent=Absent(eps=1e-5), rope=rope)
    return base.having(placement="post")


def _bias(config: Config) -> tuple[BiasTarget, ...]:
    return ("qkv", "out") if config.flag("attention_bias") else ()


FAMILIES = (
    transformers_family("OLMo", "olmo", "OlmoForCausalLM", read_olmo),
    transformers_family("OLMo 2", "olmo2", "Olmo2ForCausalLM", read_olmo2),
    transformers_family("EXAONE 4", "exaone4", "Exaone4ForCausalLM", read_exaone4),
    transformers_family("OLMo 3", "olmo3", "Olmo3ForCausalLM", read_olmo3),
)
