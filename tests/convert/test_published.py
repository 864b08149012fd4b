"""Configs as their authors publish them mean the models of the shipped specs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import changed

import archspec
from archspec.convert.config import Config
from archspec.convert.detect import detect

SPECS = Path(__file__).parents[2] / "specs"
TINYLLAMA_LCKV: dict[str, Any] = {
    "architectures": ["LCKVLlamaForCausalLM"],
    "backward_passes": 2,
    "forward_passes": 7,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "layer_types": "_".join(["0", *["20"] * 20, "21"]),
    "max_position_embeddings": 2048,
    "model_type": "lckv-llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 22,
    "num_key_value_heads": 4,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 32000,
}
HUB = json.loads((Path(__file__).parents[1] / "data" / "hub_configs.json").read_text())
"""As huggingface.co has them; gemma_3_4b states the vocabulary of the shipped spec, which has no rows for images."""
PUBLISHED: dict[str, dict[str, Any]] = {
    **HUB,
    "lckv/tinyllama_lckv_w2": TINYLLAMA_LCKV,
    "lckv/tinyllama_lckv_w10": {
        **TINYLLAMA_LCKV,
        "attention_bias": False,
        "auto_map": {
            "AutoConfig": "configuration_lckv.LCKVLlamaConfig",
            "AutoModelForCausalLM": "modeling_lckv.LCKVLlamaForCausalLM",
        },
        "force_nodiag": True,
        "head_dim": 64,
        "layer_types": "_".join([*"01234", *["16"] * 12, "17", "18", "19", "20", "21"]),
        "mlp_bias": False,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tokenizer_class": "LlamaTokenizer",
        "torch_dtype": "bfloat16",
        "use_sequential": False,
    },
    "lckv/tinyllama_sandwich_middle": {
        **TINYLLAMA_LCKV,
        "layer_types": "_".join(["0", *["10"] * 20, "21"]),
    },
    "lckv/tinyllama_lasagna_bottom": {
        **TINYLLAMA_LCKV,
        "layer_types": "_".join(str(idx - idx % 2) for idx in range(22)),
    },
    "gemma/gemma_2_2b": {
        "architectures": ["Gemma2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0,
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2304,
        "initializer_range": 0.02,
        "intermediate_size": 9216,
        "max_position_embeddings": 8192,
        "model_type": "gemma2",
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": 256000,
    },
    "pythia/pythia_410m": {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "classifier_dropout": 0.1,
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "model_type": "gpt_neox",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": 50304,
    },
}


def plan_of(config: dict[str, Any]) -> archspec.Plan:
    fields = Config(config, Path("config.json"))
    return archspec.plan(detect(fields, "model").read(fields, "model").spec)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shipped_spec_is_what_the_published_config_says(name):
    shipped = archspec.plan(archspec.parse(SPECS / f"{name}.arch"))
    assert plan_of(PUBLISHED[name]) == replace(shipped, name="model")


def test_a_changed_config_is_another_plan():
    config = changed(PUBLISHED["lckv/tinyllama_lckv_w10"], force_nodiag=None)
    assert plan_of(config) != plan_of(PUBLISHED["lckv/tinyllama_lckv_w10"])
