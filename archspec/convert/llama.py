"""What Llama and its relatives share: header, one layer, RoPE fields of old and new configs, tensor names.

A relative differs in where biases and norms are, and in each layer's window and source of keys and values.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from archspec.convert.config import Config, words
from archspec.spec.fold import LayerDescription, fold_layers
from archspec.spec.model import (
    BiasTarget,
    CacheRef,
    Embedding,
    Ffn,
    Heads,
    ModelSpec,
    Norm,
    Rope,
    Settings,
    Window,
)

HARMLESS = words(
    "_attn_implementation _name_or_path architectures attention_dropout attn_implementation "
    "begin_suppress_tokens bos_token_id chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample "
    "dtype early_stopping eos_token_id exponential_decay_length_penalty finetuning_task hidden_dropout "
    "id2label initializer_range is_decoder label2id length_penalty max_length max_position_embeddings min_length "
    "model_type num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states "
    "output_scores pad_token_id prefix pretraining_tp problem_type remove_invalid_values repetition_penalty "
    "return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature "
    "tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p "
    "unsloth_version use_cache"
)
"""Fields of transformers configs that change no logits: training, sampling, token ids, bookkeeping."""

_NAMES = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "lm_head": "lm_head",
    "mixer_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "mixer.q_proj": "self_attn.q_proj",
    "mixer.kv.k_proj": "self_attn.k_proj",
    "mixer.kv.v_proj": "self_attn.v_proj",
    "mixer.q_norm": "self_attn.q_norm",
    "mixer.kv.k_norm": "self_attn.k_norm",
    "mixer.o_proj": "self_attn.o_proj",
    "ffn.gate_proj": "mlp.gate_proj",
    "ffn.up_proj": "mlp.up_proj",
    "ffn.down_proj": "mlp.down_proj",
}


@dataclass(frozen=True)
class Base:
    """The settings of a Llama-like config that are the same in every layer, and those of the header alone."""

    num_layers: int
    hidden_size: int
    vocab_size: int
    tied: bool
    heads: Heads
    kv_heads: Heads
    ffn: Ffn
    norm: Norm
    rope: Rope
    qk_norm: Norm | None
    bias: tuple[BiasTarget, ...]

    def layer(self, window: int | None = None, source: int | None = None) -> LayerDescription:
        """A layer that attends to its own keys and values, or to those of layer `source` (counted from 1)."""
        owns = source is None
        settings = Settings(
            heads=self.heads,
            kv_heads=self.kv_heads if owns and self.kv_heads != self.heads else None,
            window=Window(size=window) if window is not None else None,
            rope=self.rope,
            norm=self.norm,
            qk_norm=self.qk_norm,
            ffn=self.ffn,
            bias=self.bias or None,
        )
        if owns:
            return LayerDescription("attend", settings)
        return LayerDescription("cross-attend", settings, CacheRef(layer=source))

    def spec(self, name: str, layers: Sequence[LayerDescription]) -> ModelSpec:
        """The whole model."""
        folded = fold_layers(layers)
        return ModelSpec(
            name=name,
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
            embedding=Embedding(tied=self.tied),
            defaults=folded.defaults,
            statements=folded.statements,
        )


def read_base(
    config: Config,
    *,
    bias: tuple[BiasTarget, ...] = (),
    qk_norm: bool = False,
    kv_heads: int | None = None,
    head_dim: int | None = None,
) -> Base:
    """The common fields. `kv_heads`, `head_dim`: what an absent field means; None is "as many" and "width / heads"."""
    config.must("hidden_act", "an activation other than SiLU", "silu", "swish")
    width, num_heads = config.count("hidden_size"), config.count("num_attention_heads")
    size = config.optional_count("head_dim", head_dim) or width // num_heads
    num_kv_heads = config.optional_count("num_key_value_heads", kv_heads) or num_heads
    if num_heads % num_kv_heads:
        raise config.bad("num_key_value_heads", f"a divisor of num_attention_heads {num_heads}", num_kv_heads)
    eps = config.number("rms_norm_eps", 1e-6)
    return Base(
        num_layers=config.num_layers("num_hidden_layers"),
        hidden_size=width,
        vocab_size=config.count("vocab_size"),
        tied=config.flag("tie_word_embeddings"),
        heads=Heads(count=num_heads, head_dim=size),
        kv_heads=Heads(count=num_kv_heads, head_dim=size),
        ffn=Ffn(kind="swiglu", hidden_size=config.count("intermediate_size")),
        norm=Norm(kind="rms", eps=eps),
        rope=Rope(kind="half", theta=read_theta(config)),
        # Without an eps of its own, a qk-norm has the header's.
        qk_norm=Norm(kind="rms") if qk_norm else None,
        bias=bias,
    )


def read_theta(config: Config, default: float = 10000.0) -> float:
    """RoPE's base; every other way of rotating is refused.

    Source: `rope_theta` and `rope_scaling` beside each other, or both in `rope_parameters` (transformers 5).
    """
    theta = config.number("rope_theta", default)
    for name in ("rope_scaling", "rope_parameters"):
        fields = config.get(name)
        if fields is None:
            continue
        if not isinstance(fields, dict):
            raise config.bad(name, "an object", fields)
        theta = _theta_in(config, name, fields, theta)
    return theta


def _theta_in(config: Config, name: str, fields: dict[str, object], theta: float) -> float:
    kind = fields.get("rope_type", fields.get("type", "default"))
    if kind != "default":
        config.refuse(f"RoPE scaling of type {kind}", name, fields)
    for key, value in fields.items():
        if key == "rope_theta":
            stated = config.checked_number(f"{name}.{key}", value)
            if config.fields.get("rope_theta") not in (None, stated):
                config.refuse(f"a RoPE base that differs from `rope_theta` {theta:g}", f"{name}.{key}", value)
            theta = stated
        elif key == "partial_rotary_factor" and value in (None, 1.0):
            continue
        elif key not in ("rope_type", "type") and kind == "default" and value is not None:
            config.refuse("RoPE other than the default", f"{name}.{key}", value)
    return theta


def tensor_name(name: str) -> str:
    """The name of a parameter in a checkpoint of transformers' Llama, Mistral, Qwen2, Qwen3, or of LCKV."""
    part, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)", part)
    if layer is None:
        return f"{_NAMES[part]}.{kind}"
    return f"model.layers.{layer[1]}.{_NAMES[layer[2]]}.{kind}"


def is_table(name: str) -> bool:
    """RoPE frequencies, which transformers once saved with the weights."""
    return name.endswith("rotary_emb.inv_freq")
