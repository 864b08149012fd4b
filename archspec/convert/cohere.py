"""Command R (Cohere) and Command R7B (Cohere2, arXiv 2504.00698): mixer and ffn behind one norm, pairs are turned.

Cohere2 has windows and RoPE in three of four layers, and neither in the fourth. Source: transformers' CohereConfig and
Cohere2Config for what an absent field means.
"""

from dataclasses import replace

from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, transformers_family
from archspec.convert.llama import (
    HARMLESS,
    Absent,
    Base,
    is_table,
    layer_types,
    patterned,
    read_base,
    tensor_names,
    typed_windows,
    uniform_windows,
)
from archspec.convert.rope import RopeFields
from archspec.spec.model import BiasTarget, Norm, Rope

NOTES = words("cache_implementation layer_switch order_of_interleaved_layers")
"""Of the authors' other code; `layer_types` and `sliding_window_pattern` say the same."""
_ALWAYS = {
    "position_embedding_type": ("positions of another type", "rope_gptj"),
    "rotary_pct": ("RoPE on a part of a head", 1.0),
    "use_embedding_sharing": ("an output matrix of its own", True),
    "use_gated_activation": ("an ffn without a gate", True),
    "use_parallel_block": ("mixer and ffn one after the other", True),
    "use_parallel_embedding": ("embeddings in parallel", False),
}
"""Fields of the published Cohere2 configs that transformers does not read."""


def read_cohere(config: Config, name: str) -> Blueprint:
    """Cohere; with `use_qk_norm` layer norms of queries and keys, with a weight for every head."""
    base = _base(config, RopeFields(default_theta=500000.0, kind="interleaved"))
    if config.flag("use_qk_norm"):
        base = base.having(qk_norm=Norm(kind="layernorm", eps=_eps(config), bias=False, spread="each"))
    windows = uniform_windows(config, base.num_layers, None)
    config.finish(name, HARMLESS | NOTES)
    return Blueprint(base.spec(name, [base.layer(window) for window in windows]), tensor_names(), ignored=is_table)


def read_cohere2(config: Config, name: str) -> Blueprint:
    """Cohere2: layers with a window are turned, the others are not."""
    base = _base(config, RopeFields(kind="interleaved"))
    head_dim = base.hidden_size // (base.common.heads.count if base.common.heads else 1)
    config.must("head_dim", "a head_dim other than width / heads", head_dim)
    for field, (feature, value) in _ALWAYS.items():
        config.must(field, feature, value)
    config.must("use_qk_norm", "norms of queries and keys", False)
    default = patterned(base.num_layers, config.count("sliding_window_pattern", 4))
    types = layer_types(config, base.num_layers, default)
    windows = typed_windows(config, base.num_layers, types, config.optional_count("sliding_window", 4096))
    config.finish(name, HARMLESS | NOTES)
    rope = base.common.rope
    layers = [base.layer(window, rope=rope if window else Rope(kind="none")) for window in windows]
    return Blueprint(base.spec(name, layers), tensor_names(), ignored=is_table)


def _base(config: Config, rope: RopeFields) -> Base:
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    norm = Norm(kind="layernorm", eps=_eps(config), bias=False)
    base = read_base(config, bias=bias, norm=norm, absent=Absent(tied=True), rope=rope)
    base = base.having(residual="parallel-one-norm")
    return replace(base, logit_scale=config.number("logit_scale", 0.0625))


def _eps(config: Config) -> float:
    return config.number("layer_norm_eps", 1e-5)


FAMILIES = (
    transformers_family("Cohere", "cohere", "CohereForCausalLM", read_cohere),
    transformers_family("Cohere 2", "cohere2", "Cohere2ForCausalLM", read_cohere2),
)
