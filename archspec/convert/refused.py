"""Families that are known and cannot be expressed yet: what each would need, and the config field that asks for it.

When the language gains a feature, its row goes; when the last row of a family goes, the family gets an importer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from archspec.convert.config import Config
from archspec.convert.errors import ImportRefused, Problem
from archspec.convert.family import Blueprint, Family

Fields = Mapping[str, object]


@dataclass(frozen=True)
class Need:
    """A feature, the field that asks for it (`a.b` is b in the object a), and the values that do."""

    feature: str
    field: str
    needs: Callable[[object], bool] = bool

    def problem(self, fields: Fields) -> Problem | None:
        value: object = fields
        for key in self.field.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return Problem(self.feature, self.field, value) if self.needs(value) else None


def _any_of(value: object) -> bool:
    return any(value) if isinstance(value, list) else bool(value)


_GEMMA3N = (
    Need("AltUp (alternating updates of parallel streams)", "altup_num_inputs"),
    Need("Laurel (low-rank residual branches)", "laurel_rank"),
    Need("per-layer embeddings", "hidden_size_per_layer_input"),
    Need("sparse FFN activations", "activation_sparsity_pattern", _any_of),
)
_MLA = (Need("multi-head latent attention", "kv_lora_rank"),)
_ALIBI = Need("ALiBi: biases by distance in place of positions", "model_type")
_OTHERS = (
    ("Gemma 3n", ("gemma3n_text", "gemma3n"), _GEMMA3N),
    ("DeepSeek", ("deepseek_v2", "deepseek_v3"), _MLA),
    ("BLOOM", ("bloom",), (_ALIBI,)),
    ("MPT", ("mpt",), (_ALIBI,)),
    (
        "Llama 4",
        ("llama4_text", "llama4"),
        (
            Need("attention in chunks of the context", "model_type"),
            Need("queries scaled by the logarithm of their position", "attn_temperature_tuning"),
        ),
    ),
    ("Phi-3.5-MoE", ("phimoe",), (Need("sparse-mixer routing", "model_type"),)),
    ("Nemotron", ("nemotron",), (Need("factors of 1 + weight in layer norms", "model_type"),)),
    (
        "Hunyuan",
        ("hunyuan_v1_dense", "hunyuan_v1_moe"),
        (Need("norms of queries and keys behind the rotation", "model_type"),),
    ),
)
"""Name, types, what each would need: docs/zoo.md says why the language lacks it."""


def _family(name: str, key: str, needs: tuple[Need, ...], matches: Callable[[Fields], bool]) -> Family:
    def read(config: Config, model_name: str) -> Blueprint:
        problems = tuple(problem for need in needs if (problem := need.problem(config.fields)) is not None)
        missing = Problem("an importer of this family", "model_type", config.fields.get("model_type"))
        raise ImportRefused(f"{model_name}, a {name} model", problems or (missing,))

    return Family(name, key, matches, read)


def _of_type(name: str, model_types: tuple[str, ...], needs: tuple[Need, ...]) -> Family:
    key = f"model_type {model_types[0]}"
    return _family(name, key, needs, lambda fields: fields.get("model_type") in model_types)


FAMILIES = tuple(_of_type(name, types, needs) for name, types, needs in _OTHERS)
