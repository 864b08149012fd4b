"""Dense families of transformers: Llama, Mistral, Qwen2 and Qwen3.

What an absent field means is what the family's config class in transformers makes of it.
"""

from archspec.convert.config import Config
from archspec.convert.family import Blueprint, transformers_family
from archspec.convert.llama import HARMLESS, Absent, Base, is_table, read_base, tensor_name, typed_windows
from archspec.spec.model import BiasTarget


def read_llama(config: Config, name: str) -> Blueprint:
    """Llama: biases where `attention_bias` and `mlp_bias` say."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    if config.flag("mlp_bias"):
        bias = (*bias, "ffn")
    base = read_base(config, bias=bias)
    return _blueprint(config, name, base, [None] * base.num_layers)


def read_mistral(config: Config, name: str) -> Blueprint:
    """Mistral: one window for all layers; transformers takes an absent one for 4096."""
    base = read_base(config, absent=Absent(kv_heads=8))
    window = config.optional_count("sliding_window", 4096)
    return _blueprint(config, name, base, [window] * base.num_layers)


def read_qwen2(config: Config, name: str) -> Blueprint:
    """Qwen2: q, k and v always have biases."""
    base = read_base(config, bias=("qkv",), absent=Absent(kv_heads=32))
    return _blueprint(config, name, base, _qwen_windows(config, base.num_layers))


def read_qwen3(config: Config, name: str) -> Blueprint:
    """Qwen3: norms on the queries and keys of every head, head_dim 128 unless stated."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    base = read_base(config, bias=bias, qk_norm=True, absent=Absent(kv_heads=32, head_dim=128))
    return _blueprint(config, name, base, _qwen_windows(config, base.num_layers))


def _qwen_windows(config: Config, num_layers: int) -> list[int | None]:
    """The window of each layer.

    `sliding_window` counts only with `use_sliding_window`. Without `layer_types`, the layers from index
    `max_window_layers` on have it.
    """
    stated = config.optional_count("sliding_window", 4096)
    window = stated if config.flag("use_sliding_window") else None
    first, types = config.get("max_window_layers", 28), config.get("layer_types")
    if types is None and window is None:
        return [None] * num_layers
    if types is None:
        if isinstance(first, bool) or not isinstance(first, int):
            raise config.bad("max_window_layers", "a whole number", first)
        return [window if idx >= first else None for idx in range(num_layers)]
    return typed_windows(config, num_layers, types, window)


def _blueprint(config: Config, name: str, base: Base, windows: list[int | None]) -> Blueprint:
    config.finish(name, HARMLESS)
    spec = base.spec(name, [base.layer(window) for window in windows])
    return Blueprint(spec, tensor_name, ignored=is_table)


FAMILIES = (
    transformers_family("Llama", "llama", "LlamaForCausalLM", read_llama),
    transformers_family("Mistral", "mistral", "MistralForCausalLM", read_mistral),
    transformers_family("Qwen2", "qwen2", "Qwen2ForCausalLM", read_qwen2),
    transformers_family("Qwen3", "qwen3", "Qwen3ForCausalLM", read_qwen3),
)
