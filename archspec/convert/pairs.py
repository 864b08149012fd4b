"""Relatives of Llama that turn pairs of dimensions: GLM-4 (arXiv 2406.12793), Helium 1, ERNIE 4.5.

Source: transformers' GlmConfig, HeliumConfig and Ernie4_5Config for what an absent field means.
"""

from archspec.convert.config import Config
from archspec.convert.family import Blueprint, transformers_family
from archspec.convert.hf import GATE_UP, in_rows, part_of
from archspec.convert.llama import HARMLESS, NAMES, Absent, Base, is_table, read_base, tensor_names, uniform_windows
from archspec.convert.rope import RopeFields
from archspec.spec.model import BiasTarget


def read_glm(config: Config, name: str) -> Blueprint:
    """GLM-4: RoPE on half of each head, gate and up in one matrix."""
    bias: tuple[BiasTarget, ...] = ("qkv",) if config.flag("attention_bias", True) else ()
    rope = RopeFields(part=("partial_rotary_factor",), default_part=0.5, kind="interleaved")
    base = read_base(config, bias=bias, absent=Absent(kv_heads=2, head_dim=128, eps=1.5625e-7), rope=rope)
    names = tensor_names({**NAMES, **dict.fromkeys(GATE_UP, "mlp.gate_up_proj")})
    parts = in_rows(base)
    blueprint = _blueprint(config, name, base)
    return Blueprint(
        blueprint.spec,
        names,
        fused=lambda parameter: parts(parameter) if part_of(parameter) in GATE_UP else None,
        ignored=is_table,
    )


def read_helium(config: Config, name: str) -> Blueprint:
    """Helium: heads that make up the width."""
    bias: list[BiasTarget] = ["qkv"] if config.flag("attention_bias") else []
    bias += ["ffn"] if config.flag("mlp_bias") else []
    rope = RopeFields(default_theta=100000.0, kind="interleaved")
    absent = Absent(kv_heads=20, head_dim=128, eps=1e-8)
    return _blueprint(config, name, read_base(config, bias=tuple(bias), absent=absent, rope=rope))


def read_ernie(config: Config, name: str) -> Blueprint:
    """ERNIE 4.5: biases everywhere or nowhere."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out", "ffn") if config.flag("use_bias") else ()
    rope = RopeFields(default_theta=500000.0, kind="interleaved")
    absent = Absent(kv_heads=2, head_dim=128, tied=True, eps=1e-5)
    return _blueprint(config, name, read_base(config, bias=bias, absent=absent, rope=rope))


def _blueprint(config: Config, name: str, base: Base) -> Blueprint:
    windows = uniform_windows(config, base.num_layers, None)
    config.finish(name, HARMLESS)
    return Blueprint(base.spec(name, [base.layer(window) for window in windows]), tensor_names(), ignored=is_table)


FAMILIES = (
    transformers_family("GLM-4", "glm", "GlmForCausalLM", read_glm),
    transformers_family("Helium", "helium", "HeliumForCausalLM", read_helium),
    transformers_family("ERNIE 4.5", "ernie4_5", "Ernie4_5ForCausalLM", read_ernie),
)
