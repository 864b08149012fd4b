"""GPT-2, GPT-J and OPT (arXiv 2205.01068): layer norms, ffns without gates, each with names of its own.

GPT-2 keeps its matrices the other way round, with q, k and v in one. Source: transformers' GPT2Config, GPTJConfig and
OPTConfig for what an absent field means.
"""

from dataclasses import dataclass, replace

from archspec.convert.activations import PLAIN, read_ffn_kind
from archspec.convert.config import Config, words
from archspec.convert.family import TRANSPOSED, Blueprint, Fused, transformers_family
from archspec.convert.gpt_neox import is_mask, read_heads
from archspec.convert.hf import QKV, part_of
from archspec.convert.llama import HARMLESS, Base, tensor_names
from archspec.convert.rope import percent_of
from archspec.spec.model import BiasTarget, Embedding, Ffn, Norm, Positions, Rope, Settings

NOTES = words(
    "gradient_checkpointing n_ctx reorder_and_upcast_attn summary_activation summary_first_dropout "
    "summary_proj_to_labels summary_type summary_use_proj"
)
"""Of other heads than that of a language model, of training, and of rounding."""
_OPT_TRAINING = words("dropout init_std layerdrop activation_dropout")
GPT2_NAMES = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "lm_head": "lm_head",
    "mixer_norm": "ln_1",
    "ffn_norm": "ln_2",
    **dict.fromkeys(QKV, "attn.c_attn"),
    "mixer.o_proj": "attn.c_proj",
    "ffn.up_proj": "mlp.c_fc",
    "ffn.down_proj": "mlp.c_proj",
}
GPTJ_NAMES = {
    **GPT2_NAMES,
    "mixer.q_proj": "attn.q_proj",
    "mixer.kv.k_proj": "attn.k_proj",
    "mixer.kv.v_proj": "attn.v_proj",
    "mixer.o_proj": "attn.out_proj",
    "ffn.up_proj": "mlp.fc_in",
    "ffn.down_proj": "mlp.fc_out",
}
_OPT = {
    "embed": "model.decoder.embed_tokens",
    "positions": "model.decoder.embed_positions",
    "norm": "model.decoder.final_layer_norm",
    "lm_head": "lm_head",
    "mixer_norm": "self_attn_layer_norm",
    "ffn_norm": "final_layer_norm",
    "mixer.q_proj": "self_attn.q_proj",
    "mixer.kv.k_proj": "self_attn.k_proj",
    "mixer.kv.v_proj": "self_attn.v_proj",
    "mixer.o_proj": "self_attn.out_proj",
    "ffn.up_proj": "fc1",
    "ffn.down_proj": "fc2",
}


@dataclass(frozen=True)
class Fields:
    """What a family calls the sizes."""

    width: str = "n_embd"
    layers: str = "n_layer"
    heads: str = "n_head"
    inner: str = "n_inner"
    activation: str = "gelu_new"


def read_gpt2(config: Config, name: str) -> Blueprint:
    """GPT-2: learned positions; scores may be divided by the layer's number as well."""
    eps = config.number("layer_norm_epsilon", 1e-5)
    positions = Positions(kind="learned", count=config.count("n_positions", 1024))
    base = read_gpt_base(config, Fields(), tied=True, eps=eps, bias=("qkv", "out", "ffn"), positions=positions)
    config.must("add_cross_attention", "attention to an encoder", False)
    scale = head_dim_of(base) ** -0.5 if config.flag("scale_attn_weights", True) else 1.0
    by_layer = config.flag("scale_attn_by_inverse_layer_idx")
    scales = [scale / number if by_layer else scale for number in range(1, base.num_layers + 1)]
    config.finish(name, HARMLESS | NOTES)
    default = head_dim_of(base) ** -0.5
    layers = [base.layer(attention_scale=scale if scale != default else None) for scale in scales]
    names = tensor_names(GPT2_NAMES, "transformer.h")
    return Blueprint(base.spec(name, layers), names, fused=_turned, ignored=is_mask, renamed=_with_prefix)


def read_gptj(config: Config, name: str) -> Blueprint:
    """GPT-J: mixer and ffn behind one norm, pairs are turned, biases of the ffn and of the logits."""
    eps = config.number("layer_norm_epsilon", 1e-5)
    base = read_gpt_base(config, Fields(), tied=False, eps=eps, bias=("ffn",))
    base = turned_in_pairs(config, base)
    config.must("rotary", "positions other than RoPE", True)
    config.must("scale_attn_weights", "scores that are not divided by the root of head_dim", True)
    config.finish(name, HARMLESS | NOTES)
    names = tensor_names(GPTJ_NAMES, "transformer.h")
    return Blueprint(base.spec(name, [base.layer()] * base.num_layers), names, ignored=is_mask)


def turned_in_pairs(config: Config, base: Base) -> Base:
    """The layers of GPT-J: RoPE on the first `rotary_dim` dimensions, mixer and ffn behind one norm."""
    dims = config.count("rotary_dim", 64)
    percent = percent_of(head_dim_of(base), dims)
    if percent is None:
        config.refuse(f"RoPE on {dims} of {head_dim_of(base)} dimensions", "rotary_dim", dims)
    rope = Rope(kind="interleaved", percent=percent or 100)
    config.skip("n_positions")
    return replace(base, head_bias=True).having(rope=rope, residual="parallel-one-norm")


def read_opt(config: Config, name: str) -> Blueprint:
    """OPT: learned positions behind two unused rows of their table."""
    fields = Fields("hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim", "relu")
    positions = Positions(kind="learned", count=config.count("max_position_embeddings", 2048), first_row=2)
    bias: tuple[BiasTarget, ...] = ("qkv", "out", "ffn") if config.flag("enable_bias", True) else ()
    base = read_gpt_base(config, fields, tied=True, eps=1e-5, bias=bias, positions=positions)
    if not config.flag("layer_norm_elementwise_affine", True):
        base = base.having(norm=Norm(kind="layernorm", eps=1e-5, weight=False))
    config.must("do_layer_norm_before", "norms behind the residual sum", True)
    config.must("_remove_final_layer_norm", "no norm before the output matrix", False)
    config.must("word_embed_proj_dim", "embeddings narrower than the layers", base.hidden_size)
    config.finish(name, HARMLESS | _OPT_TRAINING)
    names = tensor_names(_OPT, "model.decoder.layers")
    return Blueprint(base.spec(name, [base.layer()] * base.num_layers), names, renamed=_with_model)


def read_gpt_base(
    config: Config,
    fields: Fields,
    *,
    tied: bool,
    eps: float,
    bias: tuple[BiasTarget, ...],
    positions: Positions | None = None,
) -> Base:
    """What they have in common: layer norms, as many kv heads as heads, an ffn of four times the width."""
    width = config.count(fields.width)
    activation = "activation_function"
    kind = read_ffn_kind(config, activation, fields.activation, PLAIN)
    return Base(
        num_layers=config.num_layers(fields.layers),
        hidden_size=width,
        vocab_size=config.count("vocab_size"),
        embedding=Embedding(tied=config.flag("tie_word_embeddings", tied), positions=positions),
        common=Settings(
            heads=read_heads(config, width, fields.heads),
            ffn=Ffn(kind=kind, hidden_size=config.optional_count(fields.inner) or 4 * width),
            norm=Norm(kind="layernorm", eps=eps),
            bias=bias or None,
        ),
        kv_heads=None,
    )


def head_dim_of(base: Base) -> int:
    return (base.common.heads.head_dim if base.common.heads else None) or 1


def _turned(name: str) -> Fused | None:
    """GPT-2's `Conv1D` has (inputs, outputs); its biases are as anywhere."""
    part, is_weight = part_of(name), name.endswith(".weight")
    if part in QKV:
        return Fused(QKV.index(part), len(QKV), transposed=is_weight)
    return TRANSPOSED if is_weight and part in ("mixer.o_proj", "ffn.up_proj", "ffn.down_proj") else None


def _with_prefix(tensor: str) -> str:
    """The first GPT-2 checkpoints have no `transformer.` before their names."""
    return tensor if tensor.startswith(("transformer.", "lm_head.")) else f"transformer.{tensor}"


def _with_model(tensor: str) -> str:
    """The first OPT checkpoints have no `model.` before their names."""
    return f"model.{tensor}" if tensor.startswith("decoder.") else tensor


FAMILIES = (
    transformers_family("GPT-2", "gpt2", "GPT2LMHeadModel", read_gpt2),
    transformers_family("GPT-J", "gptj", "GPTJForCausalLM", read_gptj),
    transformers_family("OPT", "opt", "OPTForCausalLM", read_opt),
)
