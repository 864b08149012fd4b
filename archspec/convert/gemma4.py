"""Gemma 4, text: heads of another size in full layers, norms of values, keys that are values, shared caches.

The last `num_kv_shared_layers` layers read the keys and values of the last layer of their type below them. Source:
transformers' Gemma4TextConfig and modeling_gemma4 (5.17 and later).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, transformers_family
from archspec.convert.gemma import ABSENT, NOTES, SANDWICH, TYPES, check_activation, read_gemma_base
from archspec.convert.hf import HEAD_NORM
from archspec.convert.llama import HARMLESS, Base, is_table, layer_types, patterned, tensor_names
from archspec.convert.rope import RopeFields, check_types, read_rope_of_type
from archspec.convert.text_part import text_family
from archspec.spec.fold import LayerDescription
from archspec.spec.model import Ffn, Heads, Norm, Rope

DEFAULTS: Mapping[str, object] = {
    "vocab_size": 262144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "hidden_size_per_layer_input": 256,
    "sliding_window": 512,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    },
}
UNUSED = words("vocab_size_per_layer_input num_experts top_k_experts moe_intermediate_size")
"""Sizes of per-layer embeddings and of experts, which mean nothing without them."""
_NAMES = {**SANDWICH, "scalar": "layer_scalar"}


_OVERRIDES = ("head_dim", "num_key_value_heads")
"""What `per_layer_config` may say of a layer."""


@dataclass(frozen=True)
class _Shape:
    """What layers have of their own."""

    heads: Heads
    kv_heads: Heads
    rope: Rope


def read_gemma4(config: Config, name: str) -> Blueprint:
    """Gemma 4 without per-layer embeddings and without experts."""
    config = config.filled(DEFAULTS)
    config.must("hidden_size_per_layer_input", "per-layer embeddings", 0)
    config.must("enable_moe_block", "a mixture of experts beside a dense ffn, each with norms of its own", False)
    num_layers = config.num_layers("num_hidden_layers")
    types = layer_types(config, num_layers, patterned(num_layers, 6))
    check_types(config, TYPES)
    types[-1] = "full_attention"  # transformers has it so, whatever the config says
    shapes = [_shape(config, idx, kind) for idx, kind in enumerate(types)]
    base = read_gemma_base(config, ABSENT, rope=shapes[-1].rope, plus_one=False)
    check_activation(config, harmless=("vision",))
    norm = base.common.norm or Norm(kind="rms")
    base = replace(base, final_softcap=config.optional_number("final_logit_softcapping")).having(
        placement="sandwich",
        attention_scale=1.0,
        qk_norm=HEAD_NORM,
        v_norm=norm.model_copy(update={"weight": False}),
        layer_scalar=True,
    )
    layers = _layers(config, base, types, shapes)
    config.finish(name, HARMLESS | NOTES | UNUSED)
    shared = [idx for idx, layer in enumerate(layers) if layer.source is not None]
    return Blueprint(base.spec(name, layers), tensor_names(_NAMES), ignored=lambda tensor: _is_unused(tensor, shared))


def _is_unused(tensor: str, shared: Sequence[int]) -> bool:
    """Tables; and keys and values of layers that share them, which the authors' checkpoints have all the same."""
    own = re.search(r"layers\.(\d+)\.self_attn\.[kv]_(?:proj|norm)\.", tensor)
    return is_table(tensor) or (own is not None and int(own[1]) in shared)


def _layers(config: Config, base: Base, types: Sequence[str], shapes: Sequence[_Shape]) -> list[LayerDescription]:
    window, same_keys = config.count("sliding_window"), config.flag("attention_k_eq_v")
    sources, is_wide = _sources(config, types), config.flag("use_double_wide_mlp")
    wide = Ffn(kind=base.ffn.kind, hidden_size=2 * (base.ffn.hidden_size or 0))
    one_rope = len({shape.rope for shape in shapes}) == 1
    layers = []
    for kind, shape, source in zip(types, shapes, sources, strict=True):
        is_sliding, owns = kind == "sliding_attention", source is None
        layers.append(
            base.layer(
                window if is_sliding else None,
                source,
                heads=shape.heads,
                kv_heads=shape.kv_heads if shape.kv_heads.count != shape.heads.count else None,
                # Queries turn as the keys of the cache did: there is nothing to say.
                rope=shape.rope if owns or one_rope else None,
                values_from_keys=True if same_keys and not is_sliding else None,
                ffn=wide if is_wide and not owns else base.ffn,
            )
        )
    return layers


def _sources(config: Config, types: Sequence[str]) -> list[int | None]:
    """The layer (from 1) that each one takes its keys and values from; None for its own."""
    field = "num_kv_shared_layers"
    num_shared = 0 if config.get(field) in (None, 0) else config.count(field)
    first = len(types) - num_shared
    last_of_type = {kind: number for number, kind in enumerate(types[: max(first, 0)], start=1)}
    missing = [kind for kind in types if kind not in last_of_type]
    if missing:
        raise config.bad(field, f"so few that a layer of type {missing[0]} has keys and values", num_shared)
    return [None if idx < first else last_of_type[kind] for idx, kind in enumerate(types)]


def _shape(config: Config, idx: int, kind: str) -> _Shape:
    """Heads and RoPE of a layer: those of the model, unless its type or `per_layer_config` says otherwise."""
    own = _overrides(config, idx)
    if own is None:
        own = _of_full_layers(config) if kind == "full_attention" else {}
    layer = config.filled({"head_dim": 256, "num_key_value_heads": 4}).changed(own)
    head_dim, count = layer.count("head_dim"), config.count("num_attention_heads")
    kv_heads = layer.count("num_key_value_heads")
    if count % kv_heads:
        raise config.bad("num_key_value_heads", f"a divisor of num_attention_heads {count}", kv_heads)
    config.skip(*_OVERRIDES)
    rope = read_rope_of_type(config, kind, head_dim, RopeFields())
    return _Shape(Heads(count=count, head_dim=head_dim), Heads(count=kv_heads), rope)


def _of_full_layers(config: Config) -> dict[str, object]:
    """Of layers that see everything; their number of kv heads counts only if keys are values."""
    kv_heads = config.optional_count("num_global_key_value_heads")
    own: dict[str, object] = {"head_dim": config.count("global_head_dim", 512)}
    return own | ({"num_key_value_heads": kv_heads} if kv_heads and config.flag("attention_k_eq_v") else {})


def _overrides(config: Config, idx: int) -> dict[str, object] | None:
    """What `per_layer_config`, which transformers 5 writes, says of a layer; None if the config has none."""
    every = config.get("per_layer_config")
    config.skip("global_head_dim", "num_global_key_value_heads")
    if every is None:
        return None
    if not isinstance(every, dict) or not all(re.fullmatch(r"\d{1,6}", key) for key in every):
        raise config.bad("per_layer_config", "an object of indices of layers", every)
    own: object = next((value for key, value in every.items() if int(key) == idx), {})
    if not isinstance(own, dict):
        raise config.bad(f"per_layer_config.{idx}", "an object", own)
    for key in own:
        if key not in _OVERRIDES:
            config.refuse(f"layers that differ in {key}", f"per_layer_config.{idx}.{key}", own[key])
    return own


FAMILIES = (
    transformers_family("Gemma 4", "gemma4_text", "Gemma4ForCausalLM", read_gemma4),
    text_family(
        "Gemma 4",
        "gemma4",
        "Gemma4ForConditionalGeneration",
        read_gemma4,
        harmless=words(
            "audio_config audio_token_id boa_token_id boi_token_id eoa_token_id eoa_token_index eoi_token_id "
            "image_token_id video_token_id vision_config vision_soft_tokens_per_image"
        ),
    ),
)
