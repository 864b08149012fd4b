"""Granite 3 of IBM: Llama with four multipliers; and its mixtures, with or without a shared expert.

Source: transformers' GraniteConfig, GraniteMoeConfig and GraniteMoeSharedConfig for what an absent field means.
"""

from dataclasses import replace

from archspec.convert.config import Config, words
from archspec.convert.family import Blueprint, Fused, transformers_family
from archspec.convert.hf import part_of, stated_bias
from archspec.convert.llama import HARMLESS, NAMES, Base, is_table, read_base, tensor_names
from archspec.spec.model import Embedding, Ffn, Moe, SharedFfn

TRAINING = words("output_router_logits router_aux_loss_coef router_jitter_noise")
"""Fields of mixtures that change no logits."""
_NAMES = {
    **NAMES,
    "ffn.router": "block_sparse_moe.router.layer",
    "ffn.experts.gate_proj": "block_sparse_moe.input_linear",
    "ffn.experts.up_proj": "block_sparse_moe.input_linear",
    "ffn.experts.down_proj": "block_sparse_moe.output_linear",
    "ffn.shared.gate_proj": "shared_mlp.input_linear",
    "ffn.shared.up_proj": "shared_mlp.input_linear",
    "ffn.shared.down_proj": "shared_mlp.output_linear",
}
_FUSED = {
    "ffn.experts.gate_proj": Fused(0, 2, axis=1),
    "ffn.experts.up_proj": Fused(1, 2, axis=1),
    "ffn.shared.gate_proj": Fused(0, 2),
    "ffn.shared.up_proj": Fused(1, 2),
}


def read_granite(config: Config, name: str) -> Blueprint:
    """Granite without a mixture."""
    base = _multiplied(config)
    config.finish(name, HARMLESS)
    return Blueprint(base.spec(name, [base.layer()] * base.num_layers), tensor_names(), ignored=is_table)


def read_granite_moe(config: Config, name: str) -> Blueprint:
    """Granite with experts whose weights are a softmax over the chosen ones."""
    base = _multiplied(config)
    shared = config.get("shared_intermediate_size")
    shared_ffn = None
    if shared not in (None, 0):
        shared_ffn = SharedFfn(ffn=Ffn(kind=base.ffn.kind, hidden_size=config.count("shared_intermediate_size")))
    moe = Moe(
        top=config.count("num_experts_per_tok", 2),
        num_experts=config.count("num_local_experts", 8),
        expert=base.ffn,
        shared=shared_ffn,
    )
    base = base.having(ffn=moe)
    config.finish(name, HARMLESS | TRAINING)
    spec = base.spec(name, [base.layer()] * base.num_layers)
    return Blueprint(
        spec, tensor_names(_NAMES), fused=lambda parameter: _FUSED.get(part_of(parameter)), ignored=is_table
    )


def _multiplied(config: Config) -> Base:
    """Llama with factors on the embedding, on what mixer and ffn add, on attention's scores and on the logits."""
    base = read_base(config, bias=stated_bias(config))
    residual = config.number("residual_multiplier", 1.0)
    base = base.having(
        residual_scale=residual if residual != 1 else None,
        attention_scale=config.number("attention_multiplier", 1.0),
    )
    return replace(
        base,
        embedding=Embedding(scale=config.number("embedding_multiplier", 1.0), tied=base.embedding.tied),
        logit_scale=1 / config.number("logits_scaling", 1.0),
    )


FAMILIES = (
    transformers_family("Granite", "granite", "GraniteForCausalLM", read_granite),
    transformers_family("Granite MoE", "granitemoe", "GraniteMoeForCausalLM", read_granite_moe),
    transformers_family(
        "Granite MoE with a shared expert", "granitemoeshared", "GraniteMoeSharedForCausalLM", read_granite_moe
    ),
)
