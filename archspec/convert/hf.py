"""Dense families of transformers: Llama, Mistral, Qwen2 and Qwen3.

What an absent field means is what the family's config class in transformers makes of it.
"""

from collections.abc import Callable, Mapping

from archspec.convert.config import Config
from archspec.convert.family import Blueprint, Family
from archspec.convert.llama import HARMLESS, Base, is_table, read_base, tensor_name
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
    base = read_base(config, kv_heads=8)
    window = config.optional_count("sliding_window", 4096)
    return _blueprint(config, name, base, [window] * base.num_layers)


def read_qwen2(config: Config, name: str) -> Blueprint:
    """Qwen2: q, k and v always have biases."""
    base = read_base(config, bias=("qkv",), kv_heads=32)
    return _blueprint(config, name, base, _qwen_windows(config, base.num_layers))


def read_qwen3(config: Config, name: str) -> Blueprint:
    """Qwen3: norms on the queries and keys of every head, head_dim 128 unless stated."""
    bias: tuple[BiasTarget, ...] = ("qkv", "out") if config.flag("attention_bias") else ()
    base = read_base(config, bias=bias, qk_norm=True, kv_heads=32, head_dim=128)
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
    if not isinstance(types, list) or len(types) != num_layers:
        raise config.bad("layer_types", f"a list of {num_layers}, one a layer", types)
    for kind in dict.fromkeys(map(str, types)):
        if kind not in ("full_attention", "sliding_attention"):
            config.refuse(f"layers of type {kind}", "layer_types", types)
    if window is None and "sliding_attention" in types:
        config.refuse("sliding layers without a window", "layer_types", types)
    return [window if kind == "sliding_attention" else None for kind in types]


def _blueprint(config: Config, name: str, base: Base, windows: list[int | None]) -> Blueprint:
    config.finish(name, HARMLESS)
    spec = base.spec(name, [base.layer(window) for window in windows])
    return Blueprint(spec, tensor_name, ignored=is_table)


def _family(name: str, model_type: str, architecture: str, read: Callable[[Config, str], Blueprint]) -> Family:
    """A family that is told by `model_type`, or by `architectures` in a config without one."""

    def matches(fields: Mapping[str, object]) -> bool:
        return (
            fields.get("model_type", model_type if fields.get("architectures") == [architecture] else None)
            == model_type
        )

    def checked(config: Config, model_name: str) -> Blueprint:
        config.must("architectures", f"a class other than {architecture}", [architecture])
        return read(config, model_name)

    return Family(f"{name} (transformers)", f"model_type {model_type}", matches, checked)


FAMILIES = (
    _family("Llama", "llama", "LlamaForCausalLM", read_llama),
    _family("Mistral", "mistral", "MistralForCausalLM", read_mistral),
    _family("Qwen2", "qwen2", "Qwen2ForCausalLM", read_qwen2),
    _family("Qwen3", "qwen3", "Qwen3ForCausalLM", read_qwen3),
)
