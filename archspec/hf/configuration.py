"""A spec as a config of transformers."""

import json
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from archspec.driver import SpecError, plan
from archspec.levels_plan import AnyPlan
from archspec.source import Source
from archspec.spec.model import ModelSpec
from archspec.spec.read_json import read_json

CONFIG_SHIM, MODEL_SHIM = "configuration_archspec.py", "modeling_archspec.py"
AUTO_MAP = {
    "AutoConfig": "configuration_archspec.ArchSpecConfig",
    "AutoModelForCausalLM": "modeling_archspec.ArchSpecForCausalLM",
}
SHIMS = {
    CONFIG_SHIM: '"""The config class of this checkpoint is a part of archspec."""\n\n'
    'from archspec.hf import ArchSpecConfig\n\n__all__ = ["ArchSpecConfig"]\n',
    MODEL_SHIM: '"""The model class of this checkpoint is a part of archspec."""\n\n'
    'from archspec.hf import ArchSpecForCausalLM\n\n__all__ = ["ArchSpecForCausalLM"]\n',
}
"""What `trust_remote_code=True` runs: archspec as it is installed, nothing else."""


class ArchSpecConfig(PreTrainedConfig):
    """The config of an exported model: its spec in the JSON form, and what other tools look up in a config.

    Everything but the spec follows from it, and is written for readers that know nothing of specs.
    Errors: SpecError for what is no spec, or an inconsistent one.
    """

    model_type = "archspec"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    spec: dict[str, Any] | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**{key: value for key, value in kwargs.items() if key not in _DERIVED})
        self.auto_map = dict(AUTO_MAP)
        if self.spec is None:
            return
        read = self.read_spec()
        self.spec = as_json(read)
        for name, value in _derived(plan(read)).items():
            setattr(self, name, value)

    @classmethod
    def of(cls, spec: ModelSpec, **kwargs: Any) -> "ArchSpecConfig":
        """The config of a spec."""
        return cls(spec=as_json(spec), **kwargs)

    def read_spec(self) -> ModelSpec:
        """The spec. Errors: ValueError without one, SpecError for what is none."""
        if self.spec is None:
            raise ValueError("this config has no `spec`: it describes no model")
        spec, found = read_json(Source("config.json: spec", json.dumps(self.spec, indent=2)))
        if spec is None:
            raise SpecError(tuple(found))
        return spec

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As of transformers; the files that `trust_remote_code=True` runs are written too."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in SHIMS.items():
            (folder / name).write_text(text, encoding="utf-8")
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Nothing: saving writes its own shims, and must not copy archspec's sources."""


_DERIVED = ("auto_map", "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")


def _derived(made: AnyPlan) -> dict[str, object]:
    """Fields that tools read. Without a bound on positions there is no `max_position_embeddings`."""
    bound = {} if made.max_context is None else {"max_position_embeddings": made.max_context}
    return {
        "vocab_size": made.vocab_size,
        "hidden_size": made.hidden_size,
        "num_hidden_layers": len(made.layers),
        "tie_word_embeddings": made.tied_embeddings,
        **bound,
    }


def holds_export(folder: Path) -> bool:
    """Whether a folder is empty, or an exported model of archspec: one that a new export may replace."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        fields = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and fields.get("model_type") == ArchSpecConfig.model_type


def as_json(spec: ModelSpec) -> dict[str, Any]:
    """The JSON form of a spec, as `archspec show --format json` prints it."""
    return spec.model_dump(mode="json")
