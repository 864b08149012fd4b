"""Random checkpoints of transformers' own models, in sizes drawn at random: nothing in them is at its neutral value."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Fields = dict[str, Any]
VOCAB, TOKENS = 67, 24
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": VOCAB}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 12,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


def sizes(rng: random.Random, *, head_dim: bool = True, kv: bool = True) -> Fields:
    """GQA, MQA or neither; an odd or even number of layers; heads that divide the width or do not."""
    heads = rng.choice((2, 4, 6))
    width = heads * rng.choice((8, 12, 16))
    fields = {
        **_IDS,
        "hidden_size": width,
        "intermediate_size": rng.choice((40, 56)),
        "num_hidden_layers": rng.choice((2, 3, 5)),
        "num_attention_heads": heads,
        "max_position_embeddings": 64,
        "tie_word_embeddings": rng.random() < 0.5,
    }
    if kv:
        fields["num_key_value_heads"] = rng.choice((1, heads // 2, heads))
    if head_dim:
        fields["head_dim"] = rng.choice((8, 12, 16))
    return fields


def llama_rope(rng: random.Random) -> Fields:
    """The default, or one of the scalings."""
    theta = rng.choice((500.0, 10000.0))
    scaling = rng.choice(
        (
            {"rope_type": "default"},
            {"rope_type": "linear", "factor": 3.0},
            _LLAMA3,
            {**_YARN, "beta_fast": 16.0, "beta_slow": 2.0},
            {**_YARN, "attention_factor": 1.25, "truncate": False},
        )
    )
    return {"rope_parameters": {"rope_theta": theta, **scaling}}


def _flip(rng: random.Random, *names: str) -> Fields:
    return {name: rng.random() < 0.5 for name in names}


def llama(rng: random.Random) -> Fields:
    return {**sizes(rng), **llama_rope(rng), **_flip(rng, "attention_bias", "mlp_bias"), "rms_norm_eps": 1e-4}


def mistral(rng: random.Random) -> Fields:
    return {**sizes(rng), **llama_rope(rng), "sliding_window": rng.choice((5, None))}


def ministral(rng: random.Random) -> Fields:
    fields = sizes(rng)
    types = [rng.choice(("full_attention", "sliding_attention")) for _ in range(fields["num_hidden_layers"])]
    return {**fields, "sliding_window": 6, "layer_types": types}


def qwen2(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False), **llama_rope(rng), "sliding_window": 6, "max_window_layers": 1}
    return {**fields, **_flip(rng, "use_sliding_window")}


def qwen3(rng: random.Random) -> Fields:
    return {**qwen2(rng), "head_dim": 16, **_flip(rng, "attention_bias")}


def phi3(rng: random.Random) -> Fields:
    part = rng.choice((0.5, 1.0))
    rope = {"rope_theta": 5000.0, "partial_rotary_factor": part, "rope_type": "default"}
    fields = sizes(rng, head_dim=False)
    fields["hidden_size"] = 16 * fields["num_attention_heads"]
    return {**fields, "rope_parameters": rope, "sliding_window": rng.choice((6, None))}


def olmo(rng: random.Random) -> Fields:
    return {**sizes(rng, head_dim=False), **llama_rope(rng), **_flip(rng, "attention_bias")}


def olmo3(rng: random.Random) -> Fields:
    scaled = rng.choice(({"rope_type": "default"}, _YARN))
    rope = {
        "full_attention": {"rope_theta": 5000.0, **scaled},
        "sliding_attention": {"rope_theta": 5000.0, "rope_type": "default"},
    }
    fields = sizes(rng, head_dim=False)
    return {**fields, "rope_parameters": rope, "sliding_window": 7, "num_hidden_layers": rng.choice((3, 5))}


def smollm3(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False), **_flip(rng, "attention_bias", "mlp_bias", "use_sliding_window")}
    return {**fields, "no_rope_layer_interval": 2, "sliding_window": 6, "rope_parameters": {"rope_theta": 3000.0}}


def seed_oss(rng: random.Random) -> Fields:
    return {**sizes(rng), **llama_rope(rng), **_flip(rng, "attention_bias", "attention_out_bias", "mlp_bias")}


def arcee(rng: random.Random) -> Fields:
    return {**sizes(rng, head_dim=False), **_flip(rng, "attention_bias", "mlp_bias")}


def exaone4(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False), **llama_rope(rng), "num_hidden_layers": 5}
    return {
        **fields,
        **rng.choice(({"sliding_window": 6}, {"sliding_window": None, "layer_types": ["full_attention"] * 5})),
    }


def glm(rng: random.Random) -> Fields:
    rope = {"rope_theta": 5000.0, "partial_rotary_factor": rng.choice((0.5, 1.0)), "rope_type": "default"}
    return {**sizes(rng), "rope_parameters": rope, **_flip(rng, "attention_bias")}


def helium(rng: random.Random) -> Fields:
    fields = {**sizes(rng), **_flip(rng, "attention_bias", "mlp_bias")}
    fields["head_dim"] = fields["hidden_size"] // fields["num_attention_heads"]
    return fields


def ernie(rng: random.Random) -> Fields:
    return {**sizes(rng), **llama_rope(rng), **_flip(rng, "use_bias")}


def granite(rng: random.Random) -> Fields:
    factors = {
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.5,
        "residual_multiplier": 0.3,
        "attention_multiplier": 0.2,
    }
    return {**sizes(rng, head_dim=False), **factors, **_flip(rng, "attention_bias", "mlp_bias")}


def granite_moe(rng: random.Random) -> Fields:
    fields = granite(rng)
    del fields["mlp_bias"]
    return {**fields, "num_local_experts": 5, "num_experts_per_tok": 2}


def granite_moe_shared(rng: random.Random) -> Fields:
    return {**granite_moe(rng), "shared_intermediate_size": rng.choice((0, 24))}


def cohere(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False), **_flip(rng, "attention_bias", "use_qk_norm")}
    return {**fields, "logit_scale": 0.3, "tie_word_embeddings": True}


def cohere2(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False), **_flip(rng, "attention_bias"), "logit_scale": 0.3, "sliding_window": 6}
    return {**fields, "tie_word_embeddings": True, "num_hidden_layers": 5}


def gemma(rng: random.Random) -> Fields:
    return {**sizes(rng), "tie_word_embeddings": True}


def gemma2(rng: random.Random) -> Fields:
    fields = {**sizes(rng), "tie_word_embeddings": True, "query_pre_attn_scalar": 20, "sliding_window": 6}
    return {**fields, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0}


def gemma3(rng: random.Random) -> Fields:
    scaled = rng.choice(({"rope_type": "default"}, {"rope_type": "linear", "factor": 4.0}))
    rope = {
        "full_attention": {"rope_theta": 8000.0, **scaled},
        "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"},
    }
    fields = {**sizes(rng), "tie_word_embeddings": True, "query_pre_attn_scalar": 20, "sliding_window": 6}
    fields["num_hidden_layers"] = 7
    return {**fields, "rope_parameters": rope, "final_logit_softcapping": rng.choice((None, 4.0))}


def gemma4(rng: random.Random) -> Fields:
    rope = {
        "full_attention": {"rope_theta": 8000.0, "rope_type": "proportional", "partial_rotary_factor": 0.25},
        "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"},
    }
    fields = {**sizes(rng), "tie_word_embeddings": True, "sliding_window": 6, "hidden_size_per_layer_input": 0}
    heads = fields["num_attention_heads"]
    fields |= {"global_head_dim": rng.choice((8, 24, 32)), "num_global_key_value_heads": rng.choice((1, heads))}
    fields |= {"final_logit_softcapping": rng.choice((None, 4.0)), "rope_parameters": rope, "num_hidden_layers": 7}
    fields["layer_types"] = [
        "sliding_attention" if kind == "s" else "full_attention"
        for kind in rng.choice(("ssfssff", "sfsfsff", "sfsffsf"))
    ]
    shared = rng.choice((0, 2, 4))
    return {**fields, **_flip(rng, "attention_k_eq_v", "use_double_wide_mlp"), "num_kv_shared_layers": shared}


def gpt_neox(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False, kv=False), **_flip(rng, "attention_bias", "use_parallel_residual")}
    fields["hidden_size"] = 16 * fields["num_attention_heads"]
    return {**fields, "rope_parameters": {"rope_theta": 5000.0, "partial_rotary_factor": rng.choice((0.25, 0.5, 1.0))}}


def mixtral(rng: random.Random) -> Fields:
    window = rng.choice((5, None))
    return {**sizes(rng), "num_local_experts": 5, "num_experts_per_tok": rng.choice((1, 2)), "sliding_window": window}


def qwen2_moe(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False), "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 16}
    fields |= {"shared_expert_intermediate_size": 24, "decoder_sparse_step": rng.choice((1, 2)), "mlp_only_layers": [1]}
    fields |= {"sliding_window": 6, "max_window_layers": 2}
    return {**fields, **_flip(rng, "norm_topk_prob", "qkv_bias", "use_sliding_window")}


def qwen3_moe(rng: random.Random) -> Fields:
    fields = {**sizes(rng), "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 16}
    fields |= {"decoder_sparse_step": rng.choice((1, 2)), "mlp_only_layers": [1], "sliding_window": 6}
    return {**fields, **_flip(rng, "norm_topk_prob", "attention_bias", "use_sliding_window")}


def olmoe(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False), "num_experts": 6, "num_experts_per_tok": 3}
    return {**fields, **_flip(rng, "norm_topk_prob", "attention_bias")}


def gpt_oss(rng: random.Random) -> Fields:
    rope = {**_YARN, "truncate": False, "rope_theta": 5000.0}
    fields = {**sizes(rng), "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 6}
    return {**fields, "rope_parameters": rope, **_flip(rng, "attention_bias")}


def starcoder2(rng: random.Random) -> Fields:
    return {**sizes(rng, head_dim=False), "sliding_window": rng.choice((5, None)), **_flip(rng, "use_bias")}


def stablelm(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False), **_flip(rng, "use_qkv_bias", "qk_layernorm", "use_parallel_residual")}
    fields["hidden_size"] = 16 * fields["num_attention_heads"]
    return {**fields, "rope_parameters": {"rope_theta": 5000.0, "partial_rotary_factor": rng.choice((0.25, 0.5))}}


def phi(rng: random.Random) -> Fields:
    fields = {**sizes(rng, head_dim=False), **_flip(rng, "qk_layernorm")}
    fields["hidden_size"] = 16 * fields["num_attention_heads"]
    return {**fields, "rope_parameters": {"rope_theta": 5000.0, "partial_rotary_factor": rng.choice((0.5, 0.4))}}


def _gpt(rng: random.Random) -> Fields:
    heads = rng.choice((2, 4))
    fields = {**_IDS, "n_embd": heads * rng.choice((8, 12)), "n_layer": rng.choice((2, 3)), "n_head": heads}
    return {**fields, "n_positions": 64, "n_inner": rng.choice((None, 40)), **_flip(rng, "tie_word_embeddings")}


def gpt2(rng: random.Random) -> Fields:
    return {**_gpt(rng), **_flip(rng, "scale_attn_weights", "scale_attn_by_inverse_layer_idx")}


def gptj(rng: random.Random) -> Fields:
    return {**_gpt(rng), "rotary_dim": rng.choice((4, 8))}


def codegen(rng: random.Random) -> Fields:
    fields = {**_gpt(rng), "rotary_dim": rng.choice((4, 8)), "n_head": rng.choice((4, 8))}
    return {**fields, "n_embd": fields["n_head"] * rng.choice((8, 12))}


def gpt_bigcode(rng: random.Random) -> Fields:
    return {**_gpt(rng), **_flip(rng, "multi_query", "scale_attn_weights")}


def gpt_neo(rng: random.Random) -> Fields:
    heads = rng.choice((2, 4))
    fields = {**_IDS, "hidden_size": heads * rng.choice((8, 12)), "num_heads": heads, "num_layers": 3}
    fields |= {"intermediate_size": rng.choice((None, 40)), "window_size": 6, "max_position_embeddings": 64}
    return {**fields, "attention_types": [[["global", "local"], 1], [[rng.choice(("global", "local"))], 1]]}


def opt(rng: random.Random) -> Fields:
    fields = sizes(rng, head_dim=False, kv=False)
    fields["ffn_dim"] = fields.pop("intermediate_size")
    fields |= {"word_embed_proj_dim": fields["hidden_size"], "activation_function": rng.choice(("relu", "gelu"))}
    return {**fields, **_flip(rng, "enable_bias", "layer_norm_elementwise_affine")}


def falcon(rng: random.Random) -> Fields:
    fields = sizes(rng, head_dim=False, kv=False)
    fields["ffn_hidden_size"] = fields.pop("intermediate_size")
    kind = rng.choice(("new", "new-one-norm", "mqa", "heads", "sequential"))
    fields |= {"new_decoder_architecture": kind.startswith("new"), "multi_query": kind == "mqa"}
    fields |= {"num_kv_heads": fields["num_attention_heads"] // (2 if kind.startswith("new") else 1)}
    fields |= {"parallel_attn": kind != "sequential", "num_ln_in_parallel_attn": 1 if kind == "new-one-norm" else None}
    return {**fields, **_flip(rng, "bias")}


FAMILIES: dict[str, Callable[[random.Random], Fields]] = {
    "Llama": llama,
    "Mistral": mistral,
    "Ministral": ministral,
    "Qwen2": qwen2,
    "Qwen3": qwen3,
    "Phi3": phi3,
    "Olmo": olmo,
    "Olmo2": olmo,
    "Olmo3": olmo3,
    "SmolLM3": smollm3,
    "Exaone4": exaone4,
    "Glm": glm,
    "Helium": helium,
    "Ernie4_5": ernie,
    "SeedOss": seed_oss,
    "Arcee": arcee,
    "Granite": granite,
    "GraniteMoe": granite_moe,
    "GraniteMoeShared": granite_moe_shared,
    "Cohere": cohere,
    "Cohere2": cohere2,
    "Gemma": gemma,
    "Gemma2": gemma2,
    "Gemma3Text": gemma3,
    "Gemma4Text": gemma4,
    "GPTNeoX": gpt_neox,
    "Mixtral": mixtral,
    "Qwen2Moe": qwen2_moe,
    "Qwen3Moe": qwen3_moe,
    "Olmoe": olmoe,
    "GptOss": gpt_oss,
    "Starcoder2": starcoder2,
    "StableLm": stablelm,
    "Phi": phi,
    "GPT2": gpt2,
    "GPTJ": gptj,
    "GPTNeo": gpt_neo,
    "GPTBigCode": gpt_bigcode,
    "CodeGen": codegen,
    "OPT": opt,
    "Falcon": falcon,
}
"""What transformers calls a config, without `Config` -> fields of a random one."""


def make_config(family: str, fields: Fields) -> Any:
    import transformers

    return getattr(transformers, f"{family}Config")(**fields)


def make_model(config: Any, seed: int = 0) -> Any:
    """transformers' model of a config, with every parameter and buffer at random."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    randomise(model, seed)
    model.generation_config.eos_token_id = None
    return model


@torch.no_grad()
def randomise(model: Any, seed: int) -> None:
    """Matrices keep the size of what passes them; vectors, norms' factors among them, are far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() == 1:
            tensor.copy_(0.7 + 0.4 * noise)
        else:
            tensor.copy_(noise * tensor.shape[-1] ** -0.5)
    model.get_input_embeddings().weight.mul_(2)
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


def save(folder: Path, family: str, fields: Fields, seed: int = 0) -> Any:
    """A checkpoint folder, and the model that was saved in it."""
    model = make_model(make_config(family, fields), seed)
    model.save_pretrained(folder)
    # Otherwise transformers 5.23 drops positions before shared layers, also of per-layer embeddings that are not there.
    model.config.output_hidden_states = True
    return model
