"""What Llama and its relatives share: header, one layer, windows by layer type, tensor names.

A relative differs in where biases and norms are, and in each layer's window and source of keys and values.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from archspec.convert.activations import GATED, read_ffn_kind
from archspec.convert.config import Config, words
from archspec.convert.rope import read_rope
from archspec.spec.fold import LayerDescription, fold_layers
from archspec.spec.model import (
    BiasTarget,
    CacheRef,
    Embedding,
    Ffn,
    Heads,
    ModelSpec,
    Norm,
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

    def layer(self, window: int | None = None, source: int | None = None) -> LayerDescription:
        """A layer that attends to its own keys and values, or to those of layer `source` (counted from 1)."""
        own = {
            "window": Window(size=window) if window is not None else None,
            "kv_heads": self.kv_heads if source is None else None,
        }
        settings = self.common.model_copy(update=own)
        if source is None:
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
            embedding=self.embedding,
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


def read_base(
    config: Config,
    *,
    bias: tuple[BiasTarget, ...] = (),
    qk_norm: bool = False,
    absent: Absent = Absent(),
    activation_field: str = "hidden_act",
) -> Base:
    """The common fields."""
    width, num_heads = config.count("hidden_size"), config.count("num_attention_heads")
    size = config.optional_count("head_dim", absent.head_dim) or width // num_heads
    num_kv_heads = config.optional_count("num_key_value_heads", absent.kv_heads) or num_heads
    if num_heads % num_kv_heads:
        raise config.bad("num_key_value_heads", f"a divisor of num_attention_heads {num_heads}", num_kv_heads)
    ffn_kind = read_ffn_kind(config, activation_field, absent.activation, GATED)
    return Base(
        num_layers=config.num_layers("num_hidden_layers"),
        hidden_size=width,
        vocab_size=config.count("vocab_size"),
        embedding=Embedding(tied=config.flag("tie_word_embeddings", absent.tied)),
        common=Settings(
            heads=Heads(count=num_heads, head_dim=size),
            ffn=Ffn(kind=ffn_kind, hidden_size=config.count("intermediate_size")),
            norm=Norm(kind="rms", eps=config.number("rms_norm_eps", 1e-6)),
            rope=read_rope(config, size),
            # Without an eps of its own, a qk-norm has the header's.
            qk_norm=Norm(kind="rms") if qk_norm else None,
            bias=bias or None,
        ),
        kv_heads=Heads(count=num_kv_heads, head_dim=size) if num_kv_heads != num_heads else None,
    )


def typed_windows(config: Config, num_layers: int, types: object, window: int | None) -> list[int | None]:
    """The window of each layer: of those that `layer_types` calls `sliding_attention`."""
    if not isinstance(types, list) or len(types) != num_layers:
        raise config.bad("layer_types", f"a list of {num_layers}, one a layer", types)
    for kind in dict.fromkeys(map(str, types)):
        if kind not in ("full_attention", "sliding_attention"):
            config.refuse(f"layers of type {kind}", "layer_types", types)
    if window is None and "sliding_attention" in types:
        config.refuse("sliding layers without a window", "layer_types", types)
    return [window if kind == "sliding_attention" else None for kind in types]


def tensor_names(names: Mapping[str, str] = NAMES) -> Callable[[str], str]:
    """Parameter name -> name in a checkpoint; `names` are those of parts of a layer, and of the model."""

    def tensor_name(name: str) -> str:
        part, _, kind = name.rpartition(".")
        layer = re.fullmatch(r"layers\.(\d+)\.(.+)", part)
        if layer is None:
            return f"{names[part]}.{kind}"
        return f"model.layers.{layer[1]}.{names[layer[2]]}.{kind}"

    return tensor_name


tensor_name = tensor_names()
"""The name of a parameter in a checkpoint of transformers' Llama, Mistral, Qwen2, Qwen3, or of LCKV."""


def is_table(name: str) -> bool:
    """RoPE frequencies, which transformers once saved with the weights."""
    return name.endswith("rotary_emb.inv_freq")
