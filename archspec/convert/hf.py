"""Dense families of transformers that are close to Llama: Mistral, Qwen2 and Qwen3, SmolLM3, Phi-3, Seed-OSS, Arcee.

What an absent field means is what the family's config class in transformers makes of it.
"""

from collections.abc import Callable

from archspec.convert.activations import PLAIN
from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, Fused, transformers_family
from archspec.convert.llama import (
    HARMLESS,
    NAMES,
    Absent,
    Base,
    is_table,
    read_base,
    tensor_names,
    typed_windows,
    uniform_windows,
)
from archspec.convert.rope import RopeFields
from archspec.spec.model import BiasTarget, Heads, Norm, Rope

QKV = ("mixer.q_proj", "mixer.kv.k_proj", "mixer.kv.v_proj")
GATE_UP = ("ffn.gate_proj", "ffn.up_proj")
HEAD_NORM = Norm(kind="rms")
"""Of the queries and keys of every head; without an eps of its own it has the header's."""


def read_llama(config: Config, name: str) -> Blueprint:
    """Llama: biases where `attention_bias` and `mlp_bias` say."""
    return _blueprint(config, name, read_base(config, bias=stated_bias(config)))


def read_mistral(config: Config, name: str) -> Blueprint:
    """Mistral: one window for all layers; transformers takes an absent one for 4096."""
    base = read_base(config, absent=Absent(kv_heads=8))
    window = config.optional_count("sliding_window", 4096)
    return _blueprint(config, name, base, uniform_windows(config, base.num_layers, window))


def read_ministral(config: Config, name: str) -> Blueprint:
    """Ministral: Mistral with a type for each layer; without `layer_types` all slide, if there is a window."""
    base = read_base(config, absent=Absent(kv_heads=8))
    window = config.optional_count("sliding_window", 4096)
    kind = "full_attention" if window is None else "sliding_attention"
    return _blueprint(config, name, base, typed_windows(config, base.num_layers, [kind] * base.num_layers, window))


def read_qwen2(config: Config, name: str) -> Blueprint:
    """Qwen2: q, k and v always have biases."""
    base = read_base(config, bias=("qkv",), absent=Absent(kv_heads=32))
    return _blueprint(config, name, base, qwen_windows(config, base.num_layers))


def read_qwen3(config: Config, name: str) -> Blueprint:
    """Qwen3: norms on the queries and keys of every head, head_dim 128 unless stated."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    base = read_base(config, bias=bias, qk_norm=HEAD_NORM, absent=Absent(kv_heads=32, head_dim=128))
    return _blueprint(config, name, base, qwen_windows(config, base.num_layers))


def read_smollm3(config: Config, name: str) -> Blueprint:
    """SmolLM3 (arXiv 2501.18795): some layers without positions, every fourth one unless stated.

    Those have the window, if `use_sliding_window` is set and no `layer_types` say otherwise.
    """
    absent = Absent(kv_heads=4, tied=True)
    base = read_base(config, bias=stated_bias(config), absent=absent, rope=RopeFields(default_theta=2e6))
    turned = _turned_layers(config, base.num_layers)
    stated = config.optional_count("sliding_window")
    window = stated if config.flag("use_sliding_window") else None
    types = ["full_attention" if window is None or is_turned else "sliding_attention" for is_turned in turned]
    windows = typed_windows(config, base.num_layers, types, window)
    config.skip("max_window_layers")
    config.finish(name, HARMLESS)
    layers = [
        base.layer(window) if is_turned else base.layer(window, rope=Rope(kind="none"))
        for window, is_turned in zip(windows, turned, strict=True)
    ]
    return Blueprint(base.spec(name, layers), tensor_names(), ignored=is_table)


def _turned_layers(config: Config, num_layers: int) -> list[bool]:
    """Which layers have RoPE: those with a 1 in `no_rope_layers`."""
    every = config.count("no_rope_layer_interval", 4)
    flags = config.get("no_rope_layers")
    if flags is None:
        return [bool(number % every) for number in range(1, num_layers + 1)]
    if not isinstance(flags, list) or len(flags) != num_layers or any(flag not in (0, 1) for flag in flags):
        raise config.bad("no_rope_layers", f"a list of {num_layers} times 0 or 1", flags)
    return [flag == 1 for flag in flags]


def read_phi3(config: Config, name: str) -> Blueprint:
    """Phi-3 (arXiv 2404.14219): q, k and v in one matrix, and so gate and up."""
    rope = RopeFields(part=("partial_rotary_factor",))
    base = read_base(config, absent=Absent(eps=1e-5), rope=rope)
    windows = uniform_windows(config, base.num_layers, config.optional_count("sliding_window"))
    names = dict(NAMES, **dict.fromkeys(QKV, "self_attn.qkv_proj"), **dict.fromkeys(GATE_UP, "mlp.gate_up_proj"))
    config.finish(name, HARMLESS | words("original_max_position_embeddings"))
    spec = base.spec(name, [base.layer(window) for window in windows])
    return Blueprint(spec, tensor_names(names), fused=in_rows(base), ignored=is_table)


def read_seed_oss(config: Config, name: str) -> Blueprint:
    """Seed-OSS: biases of q, k and v unless stated, of the output by a field of its own."""
    bias: list[BiasTarget] = ["qkv"] if config.flag("attention_bias", True) else []
    bias += ["out"] if config.flag("attention_out_bias") else []
    bias += ["ffn"] if config.flag("mlp_bias") else []
    return _blueprint(config, name, read_base(config, bias=tuple(bias), absent=Absent(kv_heads=8, head_dim=128)))


def read_arcee(config: Config, name: str) -> Blueprint:
    """Arcee's AFM: an ffn without a gate, of squared ReLUs unless stated."""
    absent = Absent(activation="relu2", eps=1e-5)
    return _blueprint(config, name, read_base(config, bias=stated_bias(config), absent=absent, kinds=PLAIN))


def stated_bias(config: Config) -> tuple[BiasTarget, ...]:
    """The biases that `attention_bias` and `mlp_bias` ask for."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    return (*bias, "ffn") if config.flag("mlp_bias") else bias


def in_rows(base: Base) -> Callable[[str], Fused | None]:
    """Parameter name -> its part of a matrix of q, k and v one behind another, or of gate and up."""
    heads = base.common.heads or Heads(count=1)
    num_kv = (base.kv_heads or heads).count
    total = heads.count + 2 * num_kv
    parts = {
        "mixer.q_proj": Fused(0, total, width=heads.count),
        "mixer.kv.k_proj": Fused(heads.count, total, width=num_kv),
        "mixer.kv.v_proj": Fused(heads.count + num_kv, total, width=num_kv),
        "ffn.gate_proj": Fused(0, 2),
        "ffn.up_proj": Fused(1, 2),
    }
    return lambda name: parts.get(part_of(name))


def part_of(name: str) -> str:
    """`mixer.q_proj` of `layers.3.mixer.q_proj.weight`."""
    return name.split(".", 2)[2].rpartition(".")[0] if name.startswith("layers.") else name.rpartition(".")[0]


def qwen_windows(config: Config, num_layers: int) -> list[int | None]:
    """The window of each layer.

    `sliding_window` counts only with `use_sliding_window`. Without `layer_types`, the layers from index
    `max_window_layers` on have it.
    """
    stated = config.optional_count("sliding_window", 4096)
    window = stated if config.flag("use_sliding_window") else None
    first = config.get("max_window_layers", 28)
    if window is None and config.get("layer_types") is None:
        return [None] * num_layers
    if isinstance(first, bool) or not isinstance(first, int):
        raise config.bad("max_window_layers", "a whole number", first)
    types = ["sliding_attention" if idx >= first else "full_attention" for idx in range(num_layers)]
    return typed_windows(config, num_layers, types, window)


def _blueprint(config: Config, name: str, base: Base, windows: list[int | None] | None = None) -> Blueprint:
    """A model with the tensor names of Llama."""
    windows = uniform_windows(config, base.num_layers, None) if windows is None else windows
    config.finish(name, HARMLESS)
    spec = base.spec(name, [base.layer(window) for window in windows])
    return Blueprint(spec, tensor_names(), ignored=is_table)


FAMILIES = (
    transformers_family("Llama", "llama", "LlamaForCausalLM", read_llama),
    transformers_family("Mistral", "mistral", "MistralForCausalLM", read_mistral),
    transformers_family("Ministral", "ministral", "MinistralForCausalLM", read_ministral),
    transformers_family("Qwen2", "qwen2", "Qwen2ForCausalLM", read_qwen2),
    transformers_family("Qwen3", "qwen3", "Qwen3ForCausalLM", read_qwen3),
    transformers_family("SmolLM3", "smollm3", "SmolLM3ForCausalLM", read_smollm3),
    transformers_family("Phi-3", "phi3", "Phi3ForCausalLM", read_phi3),
    transformers_family("Seed-OSS", "seed_oss", "SeedOssForCausalLM", read_seed_oss),
    transformers_family("Arcee", "arcee", "ArceeForCausalLM", read_arcee),
)
