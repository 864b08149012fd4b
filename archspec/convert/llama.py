"""What Llama and its relatives share: header, one layer, windows by layer type, tensor names.

A relative differs in where biases and norms are, and in each layer's window and source of keys and values.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from archspec.convert.activations import GATED, FfnKind, read_ffn_kind
from archspec.convert.config import Config, words
from archspec.convert.family import Names
from archspec.convert.rope import LLAMA, RopeFields, read_rope
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
    "_attn_implementation _name_or_path architectures attention_dropout attn_implementation attn_pdrop "
    "begin_suppress_tokens bos_token_id chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample "
    "dtype early_stopping embd_pdrop embedding_dropout eos_token_id exponential_decay_length_penalty "
    "finetuning_task gradient_checkpointing hidden_dropout id2label initializer_range is_decoder label2id "
    "length_penalty max_length max_position_embeddings min_length model_max_length model_type num_beam_groups "
    "num_beams num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix "
    "pretraining_tp problem_type remove_invalid_values repetition_penalty resid_pdrop residual_dropout return_dict "
    "return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature tie_encoder_decoder "
    "tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p unsloth_version use_cache"
)
"""Fields of transformers configs that change no logits: training, sampling, token ids, bookkeeping."""

NAMES = {
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


OF_KEYS_AND_VALUES = ("kv_heads", "v_norm", "values_from_keys")
"""Settings that a reader of another layer's keys and values does not have."""


@dataclass(frozen=True)
class Base:
    """The header of a config, and what is the same in every layer."""

    num_layers: int
    hidden_size: int
    vocab_size: int
    embedding: Embedding
    common: Settings
    """Of every layer, without its window."""
    kv_heads: Heads | None
    """Of layers with keys and values of their own; None if they have as many as query heads."""
    final_softcap: float | None = None
    logit_scale: float = 1.0
    head_bias: bool = False

    @property
    def ffn(self) -> Ffn:
        """The ffn of `intermediate_size`."""
        if not isinstance(self.common.ffn, Ffn):
            raise TypeError("a base has an ffn that is no mixture")
        return self.common.ffn

    def having(self, **settings: object) -> "Base":
        """With other settings in every layer."""
        return replace(self, common=self.common.model_copy(update=settings))

    def layer(self, window: int | None = None, source: int | None = None, **settings: object) -> LayerDescription:
        """A layer that attends to its own keys and values, or to those of layer `source` (counted from 1).

        `settings` are its own, and come before the common ones.
        """
        own = {
            "window": Window(size=window) if window is not None else None,
            "kv_heads": self.kv_heads,
            **settings,
        }
        unowned = {} if source is None else dict.fromkeys(OF_KEYS_AND_VALUES)
        settings_of_layer = self.common.model_copy(update={**own, **unowned})
        if source is None:
            return LayerDescription("attend", settings_of_layer)
        return LayerDescription("cross-attend", settings_of_layer, CacheRef(layer=source))

    def spec(self, name: str, layers: Sequence[LayerDescription]) -> ModelSpec:
        """The whole model."""
        folded = fold_layers(layers)
        return ModelSpec(
            name=name,
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
            embedding=self.embedding,
            head_bias=self.head_bias,
            logit_scale=self.logit_scale,
            final_softcap=self.final_softcap,
            defaults=folded.defaults,
            statements=folded.statements,
        )


@dataclass(frozen=True)
class Absent:
    """What an absent field means; None is "as many as heads" and "width / heads"."""

    kv_heads: int | None = None
    head_dim: int | None = None
    tied: bool = False
    activation: str = "silu"
    eps: float = 1e-6


def read_base(
    config: Config,
    *,
    bias: tuple[BiasTarget, ...] = (),
    qk_norm: Norm | None = None,
    absent: Absent = Absent(),
    norm: Norm | None = None,
    rope: RopeFields | Rope = LLAMA,
    activation_field: str = "hidden_act",
    kinds: Mapping[str, FfnKind] = GATED,
) -> Base:
    """The common fields. Without `norm` it is an RMS norm, with the eps of the config; with a `rope`, none is read."""
    width, heads = config.count("hidden_size"), read_heads(config, absent.head_dim)
    size = heads.head_dim or 0
    kv_heads = config.optional_count("num_key_value_heads", absent.kv_heads) or heads.count
    if heads.count % kv_heads:
        raise config.bad("num_key_value_heads", f"a divisor of num_attention_heads {heads.count}", kv_heads)
    ffn_kind = read_ffn_kind(config, activation_field, absent.activation, kinds)
    return Base(
        num_layers=config.num_layers("num_hidden_layers"),
        hidden_size=width,
        vocab_size=config.count("vocab_size"),
        embedding=Embedding(tied=config.flag("tie_word_embeddings", absent.tied)),
        common=Settings(
            heads=heads,
            ffn=Ffn(kind=ffn_kind, hidden_size=config.count("intermediate_size")),
            norm=norm or Norm(kind="rms", eps=config.number("rms_norm_eps", absent.eps)),
            rope=rope if isinstance(rope, Rope) else read_rope(config, size, rope),
            # Without an eps of its own, a qk-norm has the header's.
            qk_norm=qk_norm,
            bias=bias or None,
        ),
        kv_heads=Heads(count=kv_heads) if kv_heads != heads.count else None,
    )


def read_heads(config: Config, default: int | None = None) -> Heads:
    """The query heads; without `head_dim` and a default for it they divide the width."""
    count = config.count("num_attention_heads")
    return Heads(
        count=count, head_dim=config.optional_count("head_dim", default) or config.count("hidden_size") // count or 1
    )


def patterned(num_layers: int, every: int) -> list[str]:
    """Types of layers of which every so many see all."""
    return ["sliding_attention" if number % every else "full_attention" for number in range(1, num_layers + 1)]


def layer_types(config: Config, num_layers: int, default: Sequence[str]) -> list[str]:
    """The type of each layer, as `layer_types` or else the default says; other types than two are refused."""
    stated = config.get("layer_types")
    types = list(default) if stated is None else stated
    if not isinstance(types, list) or len(types) != num_layers:
        raise config.bad("layer_types", f"a list of {num_layers}, one a layer", types)
    for kind in dict.fromkeys(map(str, types)):
        if kind not in ("full_attention", "sliding_attention"):
            config.refuse(f"layers of type {kind}", "layer_types", types)
    return list(map(str, types))


def typed_windows(config: Config, num_layers: int, default: Sequence[str], window: int | None) -> list[int | None]:
    """The window of each layer: of those that `layer_types` calls `sliding_attention`."""
    types = layer_types(config, num_layers, default)
    if window is None and "sliding_attention" in types:
        config.refuse("sliding layers without a window", "layer_types", types)
    return [window if kind == "sliding_attention" else None for kind in types]


def uniform_windows(config: Config, num_layers: int, window: int | None) -> list[int | None]:
    """The window of each layer in a family whose layers are alike; `layer_types` may only repeat that."""
    kind = "full_attention" if window is None else "sliding_attention"
    types = layer_types(config, num_layers, [kind] * num_layers)
    if ({"full_attention", "sliding_attention"} - {kind}) & set(types):
        config.refuse("layers that differ in a family where all are alike", "layer_types", types)
    return [window] * num_layers


def tensor_names(
    names: Mapping[str, str] = NAMES, layers: str = "model.layers", counts: Mapping[str, int] | None = None
) -> Names:
    """Parameter name -> name in a checkpoint; `names` are those of parts of a layer, and of the model.

    A name with `{}` is that of as many tensors as `counts` says for the part.
    """

    def tensor_name(name: str) -> str | tuple[str, ...]:
        in_layer = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
        prefix, local = (f"{layers}.{in_layer[1]}.", in_layer[2]) if in_layer else ("", name)
        part, _, kind = local.rpartition(".")
        source = prefix + (names[local] if local in names else f"{names[part]}.{kind}")
        if "{}" not in source:
            return source
        return tuple(source.format(idx) for idx in range((counts or {})[part]))

    return tensor_name


def tensor_name(name: str) -> str:
    """The name of a parameter in a checkpoint of transformers' Llama, Mistral, Qwen2, Qwen3, or of LCKV."""
    return str(_llama_name(name))


_llama_name = tensor_names()


def is_table(name: str) -> bool:
    """RoPE frequencies, which transformers once saved with the weights."""
    return name.endswith("rotary_emb.inv_freq")
