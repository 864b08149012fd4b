"""YOCO checkpoints (arXiv 2405.05254, microsoft/unilm): a self-decoder, one global cache, a cross-decoder.

The self-decoder has window attention if `sliding_window` is set, else gated retention. Half of the layers are in
either decoder. Rotary angles include the end point: `interleaved-linspace`.
"""

import re
from collections.abc import Callable, Mapping

from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, Family
from archspec.spec.fold import LayerDescription, fold_layers
from archspec.spec.model import (
    CacheRef,
    CacheStatement,
    Embedding,
    Ffn,
    Heads,
    ModelSpec,
    Norm,
    Rope,
    Settings,
    Window,
)

MARKS = ("dim", "n_layers", "n_self_heads", "n_attn_heads")
"""Fields that no other family's config has together."""
HARMLESS = words(
    "max_batch_size max_seq_len model_parallel_size load_checkpoint checkpoint_activations "
    "batch_size tokens_per_sample yoco_model load_ckpt dtype seed seq_len prefill_len"
)
"""Fields of the authors' code that change no logits: sizes of buffers, how weights were loaded."""
NOTES = words(
    "reference reference_sha256 reference_self_agreement_max_abs_diff variant rotary attention_scale gqa swiglu "
    "max_position io chunk_size max_seq_len_note recurrent_state recurrent_state_layer sliding_window_note "
    "swa_cache swa_cache_layer"
)
"""What exports for comparison add: remarks in prose, and which tensors they hold."""

_NAMES = {
    "embed": "embed_tokens",
    "norm": "layer_norm",
    "lm_head": "output_projection",
    "mixer_norm": "mixer_layer_norm",
    "ffn_norm": "final_layer_norm",
    "mixer.q_proj": "mixer.q_proj",
    "mixer.kv.k_proj": "mixer.k_proj",
    "mixer.kv.v_proj": "mixer.v_proj",
    "mixer.k_proj": "mixer.k_proj",
    "mixer.v_proj": "mixer.v_proj",
    "mixer.g_proj": "mixer.g_proj",
    "mixer.gt_proj": "mixer.gt_proj",
    "mixer.o_proj": "mixer.out_proj",
    "ffn.gate_proj": "ffn.fc1",
    "ffn.up_proj": "ffn.gate",
    "ffn.down_proj": "ffn.fc2",
}
_CACHE_NAMES = {"norm": "kv_layer_norm", "k_proj": "k_proj", "v_proj": "v_proj"}


def read_yoco(config: Config, name: str) -> Blueprint:
    """A YOCO model. An odd `n_layers` is one too many: both decoders have `n_layers // 2`."""
    num_self = config.num_layers("n_layers") // 2
    if num_self == 0:
        raise config.bad("n_layers", "at least 2", config.get("n_layers"))
    width = config.count("dim")
    self_heads = _heads(config, "n_self_heads", width)
    cross_heads = _heads(config, "n_attn_heads", width)
    num_kv_heads = config.optional_count("n_attn_kv_heads") or cross_heads.count
    if cross_heads.count % num_kv_heads:
        raise config.bad("n_attn_kv_heads", f"a divisor of n_attn_heads {cross_heads.count}", num_kv_heads)
    window = config.optional_count("sliding_window")
    common = Settings(
        ffn=Ffn(kind="swiglu", hidden_size=config.count("hidden_dim")),
        norm=Norm(kind="rms", eps=config.number("norm_eps", 1e-5)),
        rope=Rope(kind="interleaved-linspace", theta=config.number("rope_theta", 10000.0)),
    )
    own = {"heads": self_heads, "window": Window(size=window) if window else None}
    layer = LayerDescription("attend" if window else "retention", common.model_copy(update=own))
    reader = LayerDescription(
        "cross-attend", common.model_copy(update={"heads": cross_heads}), CacheRef(layer=num_self)
    )
    folded = fold_layers([layer] * num_self + [reader] * num_self)
    kv_heads = Heads(count=num_kv_heads, head_dim=cross_heads.head_dim)
    cache = CacheStatement(layer=num_self, settings=Settings(kv_heads=kv_heads, norm=Norm(kind="rms")))
    spec = ModelSpec(
        name=name,
        num_layers=2 * num_self,
        hidden_size=width,
        vocab_size=config.count("vocab_size"),
        embedding=Embedding(scale="sqrt(width)", tied=config.flag("share_input_output_embed")),
        defaults=folded.defaults,
        statements=(folded.statements[0], cache, *folded.statements[1:]),
    )
    _check_derived(config, spec, self_heads, cross_heads)
    config.finish(name, HARMLESS | NOTES)
    return Blueprint(spec, tensor_names(num_self), prefixes=("decoder.model.", "model."))


def tensor_names(num_self: int) -> Callable[[str], str]:
    """Parameter name -> name in a checkpoint with `num_self` layers in the self-decoder."""

    def tensor_name(name: str) -> str:
        part, _, kind = name.rpartition(".")
        if part.startswith("caches."):
            return f"cross_decoder.{_CACHE_NAMES[part.rpartition('.')[2]]}.{kind}"
        layer = re.fullmatch(r"layers\.(\d+)\.(.+)", part)
        if layer is None:
            return f"{_NAMES[part]}.{kind}"
        idx = int(layer[1])
        decoder = f"self_decoder.layers.{idx}" if idx < num_self else f"cross_decoder.layers.{idx - num_self}"
        return f"{decoder}.{_NAMES[layer[2]]}.{kind}"

    return tensor_name


def _heads(config: Config, name: str, width: int) -> Heads:
    count = config.count(name)
    if width % count:
        raise config.bad(name, f"a divisor of `dim` {width}", count)
    return Heads(count=count, head_dim=width // count)


def _check_derived(config: Config, spec: ModelSpec, self_heads: Heads, cross_heads: Heads) -> None:
    """Fields that repeat what follows from others must agree with it."""
    expected = {
        "n_self_layers": spec.num_layers // 2,
        "n_cross_layers": spec.num_layers // 2,
        "self_head_dim": self_heads.head_dim,
        "cross_head_dim": cross_heads.head_dim,
        "gate_logit_normalizer": 16,
    }
    for name, value in expected.items():
        config.must(name, f"{name.replace('_', ' ')} other than {value}", value)
    scale = config.number("embed_scale", spec.hidden_size**0.5)
    if abs(scale - spec.hidden_size**0.5) > 1e-6 * scale:
        config.refuse("a scale of the embedding other than sqrt(dim)", "embed_scale", scale)


def _matches(fields: Mapping[str, object]) -> bool:
    return all(mark in fields for mark in MARKS)


FAMILIES = (Family("YOCO (microsoft/unilm)", f"fields {', '.join(MARKS)}", _matches, read_yoco),)
