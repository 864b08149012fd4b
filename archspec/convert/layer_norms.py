"""Families with layer norms and RoPE: StarCoder 2 (arXiv 2402.19173), Stable LM (arXiv 2402.17834), Phi-1.5 and Phi-2.

Source: transformers' Starcoder2Config, StableLmConfig and PhiConfig for what an absent field means.
"""

from dataclasses import replace

from archspec.convert.activations import PLAIN
from archspec.convert.config import Config
from archspec.convert.family import Blueprint, transformers_family
from archspec.convert.llama import HARMLESS, NAMES, Absent, is_table, read_base, tensor_names, uniform_windows
from archspec.convert.rope import RopeFields
from archspec.spec.model import BiasTarget, Norm

_ALL: tuple[BiasTarget, ...] = ("qkv", "out", "ffn")
_STARCODER2 = {**NAMES, "ffn.up_proj": "mlp.c_fc", "ffn.down_proj": "mlp.c_proj"}
_STABLELM = {
    **NAMES,
    "mixer.q_norm": "self_attn.q_layernorm.norms.{}",
    "mixer.kv.k_norm": "self_attn.k_layernorm.norms.{}",
}
_PHI = {
    **NAMES,
    "norm": "model.final_layernorm",
    "mixer.q_norm": "self_attn.q_layernorm",
    "mixer.kv.k_norm": "self_attn.k_layernorm",
    "mixer.o_proj": "self_attn.dense",
    "ffn.up_proj": "mlp.fc1",
    "ffn.down_proj": "mlp.fc2",
}


def read_starcoder2(config: Config, name: str) -> Blueprint:
    """StarCoder 2: biases everywhere unless `use_bias` is false, one window for all layers if any."""
    base = read_base(
        config,
        bias=_ALL if config.flag("use_bias", True) else (),
        norm=Norm(kind="layernorm", eps=config.number("norm_epsilon", 1e-5)),
        absent=Absent(kv_heads=2, tied=True, activation="gelu_pytorch_tanh"),
        kinds=PLAIN,
    )
    windows = uniform_windows(config, base.num_layers, config.optional_count("sliding_window"))
    config.must("mlp_type", "an ffn with a gate", "default")
    config.must("norm_type", "another norm than a layer norm", "layer_norm")
    config.finish(name, HARMLESS)
    spec = base.spec(name, [base.layer(window) for window in windows])
    return Blueprint(spec, tensor_names(_STARCODER2), ignored=is_table)


def read_stablelm(config: Config, name: str) -> Blueprint:
    """Stable LM: RoPE on a quarter; with `qk_layernorm` a norm for every head, each with a tensor of its own."""
    bias: tuple[BiasTarget, ...] = ("qkv",) if config.flag("use_qkv_bias") else ()
    norm = Norm(kind="layernorm", eps=config.number("layer_norm_eps", 1e-5))
    rope = RopeFields(part=("partial_rotary_factor", "rope_pct"), default_part=0.25)
    base = read_base(config, bias=bias, norm=norm, rope=rope)
    if config.flag("qk_layernorm"):
        base = base.having(qk_norm=norm.model_copy(update={"bias": False, "spread": "each"}))
    base = base.having(residual="parallel-one-norm" if config.flag("use_parallel_residual") else None)
    windows = uniform_windows(config, base.num_layers, None)
    config.finish(name, HARMLESS)
    heads = base.common.heads
    counts = {
        part: each.count
        for part, each in (("mixer.q_norm", heads), ("mixer.kv.k_norm", base.kv_heads or heads))
        if each
    }
    spec = base.spec(name, [base.layer(window) for window in windows])
    return Blueprint(spec, tensor_names(_STABLELM, counts=counts), ignored=is_table)


def read_phi(config: Config, name: str) -> Blueprint:
    """Phi: mixer and ffn behind one norm, biases everywhere, of the logits too; RoPE on half of each head."""
    norm = Norm(kind="layernorm", eps=config.number("layer_norm_eps", 1e-5))
    rope = RopeFields(part=("partial_rotary_factor",), default_part=0.5)
    base = read_base(config, bias=_ALL, norm=norm, rope=rope, absent=Absent(activation="gelu_new"), kinds=PLAIN)
    base = replace(base, head_bias=True).having(residual="parallel-one-norm")
    if config.flag("qk_layernorm"):
        base = base.having(qk_norm=norm)
    windows = uniform_windows(config, base.num_layers, None)
    config.finish(name, HARMLESS)
    return Blueprint(base.spec(name, [base.layer(window) for window in windows]), tensor_names(_PHI), ignored=is_table)


FAMILIES = (
    transformers_family("StarCoder 2", "starcoder2", "Starcoder2ForCausalLM", read_starcoder2),
    transformers_family("Stable LM", "stablelm", "StableLmForCausalLM", read_stablelm),
    transformers_family("Phi", "phi", "PhiForCausalLM", read_phi),
)
