"""Small checkpoints, made by hand: a config, and random tensors of the names and shapes that it asks for."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from archspec.convert.config import Config
from archspec.convert.detect import detect
from archspec.driver import plan

GOLDEN = Path(__file__).parent.parent / "golden"

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "vocab_size": 19,
}
MISTRAL = {**LLAMA, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 8}
QWEN2 = {**LLAMA, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = {**LLAMA, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 8}
LCKV = {**LLAMA, "architectures": ["LCKVLlamaForCausalLM"], "model_type": "lckv-llama", "layer_types": "0_0"}
GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "head_dim": 4,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "query_pre_attn_scalar": 9,
    "sliding_window": 8,
    "vocab_size": 19,
}
GPT_NEOX = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 19,
}
YOCO = {
    "dim": 16,
    "n_layers": 4,
    "hidden_dim": 24,
    "n_self_heads": 2,
    "n_attn_heads": 4,
    "n_attn_kv_heads": 2,
    "vocab_size": 19,
    "sliding_window": 4,
}


def changed(config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A config with other values; None removes a field."""
    return {key: value for key, value in {**config, **fields}.items() if value is not None}


def tensors_of(config: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights under the names of the family."""
    fields = Config(config, Path("config.json"))
    blueprint = detect(fields, "toy").read(fields, "toy")
    shapes = {}
    for name, shape in plan(blueprint.spec).parameter_shapes():
        fused = blueprint.fused(name)
        shapes[blueprint.names(name)] = fused.whole(shape) if fused else shape
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def write_config(folder: Path, config: dict[str, Any], name: str = "config.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(config))
    return folder


def write_checkpoint(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> Path:
    """A folder of config.json and model.safetensors, with random weights unless given."""
    write_config(folder, config)
    save_file(tensors_of(config) if tensors is None else tensors, folder / "model.safetensors")
    return folder
