"""Relatives of GPT-2 and GPT-J: GPT-Neo, GPT-BigCode (StarCoder 1, arXiv 2305.06161) and CodeGen (arXiv 2203.13474).

Source: transformers' GPTNeoConfig, GPTBigCodeConfig and CodeGenConfig for what an absent field means.
"""

from dataclasses import replace

from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, Fused, transformers_family
from archspec.convert.gpt import (
    GPT2_NAMES,
    GPTJ_NAMES,
    NOTES,
    Fields,
    head_dim_of,
    read_gpt_base,
    turned_in_pairs,
)
from archspec.convert.gpt_neox import is_mask
from archspec.convert.hf import QKV, in_rows, part_of
from archspec.convert.llama import HARMLESS, tensor_names
from archspec.spec.model import BiasTarget, Heads, Positions

CODEGEN_PARTS = 4
"""CodeGen keeps q, v and k in as many parts as it was trained on devices."""
_NEO_TRAINING = words("resid_dropout embed_dropout classifier_dropout")
_ROUNDING = words("attention_softmax_in_fp32 scale_attention_softmax_in_fp32 inference_runner pre_allocate_kv_cache")
_NEO = {
    **GPT2_NAMES,
    "mixer.q_proj": "attn.attention.q_proj",
    "mixer.kv.k_proj": "attn.attention.k_proj",
    "mixer.kv.v_proj": "attn.attention.v_proj",
    "mixer.o_proj": "attn.attention.out_proj",
}
_CODEGEN = {**GPTJ_NAMES, **dict.fromkeys(QKV, "attn.qkv_proj")}


def read_gpt_neo(config: Config, name: str) -> Blueprint:
    """GPT-Neo: learned positions, scores that are not scaled, a window in layers that `attention_types` calls local."""
    fields = Fields("hidden_size", "num_layers", "num_heads", "intermediate_size")
    positions = Positions(kind="learned", count=config.count("max_position_embeddings", 2048))
    eps = config.number("layer_norm_epsilon", 1e-5)
    base = read_gpt_base(config, fields, tied=True, eps=eps, bias=("out", "ffn"), positions=positions)
    kinds, window = _neo_kinds(config, base.num_layers), config.count("window_size", 256)
    config.finish(name, HARMLESS | NOTES | _NEO_TRAINING)
    base = base.having(attention_scale=1.0)
    spec = base.spec(name, [base.layer(window if kind == "local" else None) for kind in kinds])
    return Blueprint(spec, tensor_names(_NEO, "transformer.h"), ignored=_is_neo_mask)


def _neo_kinds(config: Config, num_layers: int) -> list[str]:
    """`attention_types` is a list of [kinds, times]; `attention_layers` is the same, written out."""
    config.skip("attention_layers")
    stated = config.get("attention_types")
    if stated is None:
        return ["local" if idx % 2 else "global" for idx in range(num_layers)]
    kinds: list[str] = []
    for entry in stated if isinstance(stated, list) else []:
        match entry:
            case [list() as group, int() as times] if len(group) * times <= num_layers:
                kinds += group * times
    if len(kinds) != num_layers or any(kind not in ("global", "local") for kind in kinds):
        raise config.bad("attention_types", f"`global` or `local` for each of {num_layers} layers", stated)
    return kinds


def _is_neo_mask(tensor: str) -> bool:
    return is_mask(tensor) or tensor.endswith((".attn.attention.bias", ".attn.attention.masked_bias"))


def read_gpt_bigcode(config: Config, name: str) -> Blueprint:
    """GPT-BigCode: GPT-2 with one kv head, its matrices the usual way round."""
    positions = Positions(kind="learned", count=config.count("n_positions", 1024))
    eps = config.number("layer_norm_epsilon", 1e-5)
    bias: tuple[BiasTarget, ...] = ("qkv", "out", "ffn")
    fields = Fields(activation="gelu_pytorch_tanh")
    base = read_gpt_base(config, fields, tied=True, eps=eps, bias=bias, positions=positions)
    config.must("add_cross_attention", "attention to an encoder", False)
    heads, one_kv_head = base.hidden_size // head_dim_of(base), config.flag("multi_query", True)
    num_kv = 1 if one_kv_head else heads
    config.must("num_key_value_heads", f"a number of kv heads other than {num_kv}", num_kv)
    if not config.flag("scale_attn_weights", True):
        base = base.having(attention_scale=1.0)
    if num_kv != heads:
        base = replace(base, kv_heads=Heads(count=1))
    config.finish(name, HARMLESS | NOTES | _ROUNDING)
    spec = base.spec(name, [base.layer()] * base.num_layers)
    rows = in_rows(base)

    def fused(parameter: str) -> Fused | None:
        part = part_of(parameter)
        if part not in QKV:
            return None
        return rows(parameter) if one_kv_head else Fused(QKV.index(part), len(QKV), heads)

    return Blueprint(spec, tensor_names(GPT2_NAMES, "transformer.h"), fused=fused, ignored=is_mask)


def read_codegen(config: Config, name: str) -> Blueprint:
    """CodeGen: GPT-J with q, v and k in one matrix, device by device."""
    eps = config.number("layer_norm_epsilon", 1e-5)
    base = turned_in_pairs(config, read_gpt_base(config, Fields(), tied=False, eps=eps, bias=("ffn",)))
    heads = base.hidden_size // head_dim_of(base)
    if heads % CODEGEN_PARTS:
        raise config.bad("n_head", f"a multiple of {CODEGEN_PARTS}", heads)
    config.must("scale_attn_weights", "scores that are not divided by the root of head_dim", True)
    config.finish(name, HARMLESS | NOTES)
    order = (QKV[0], QKV[2], QKV[1])
    parts = {part: Fused(idx, len(order), CODEGEN_PARTS) for idx, part in enumerate(order)}
    return Blueprint(
        base.spec(name, [base.layer()] * base.num_layers),
        tensor_names(_CODEGEN, "transformer.h"),
        fused=lambda parameter: parts.get(part_of(parameter)),
        ignored=lambda tensor: is_mask(tensor) or tensor.endswith(".attn.causal_mask"),
    )


FAMILIES = (
    transformers_family("GPT-Neo", "gpt_neo", "GPTNeoForCausalLM", read_gpt_neo),
    transformers_family("GPT-BigCode", "gpt_bigcode", "GPTBigCodeForCausalLM", read_gpt_bigcode),
    transformers_family("CodeGen", "codegen", "CodeGenForCausalLM", read_codegen),
)
