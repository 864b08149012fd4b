"""Models that `archspec export` wrote, or a trainer after it: the spec stands in the config."""

import json

from archspec.convert.config import Config
from archspec.convert.errors import CheckpointError
from archspec.convert.family import Blueprint, Family
from archspec.source import Source
from archspec.spec.read_json import read_json

MODEL_TYPE = "archspec"
PREFIX = "model."


def read_exported(config: Config, name: str) -> Blueprint:
    """The spec as it is; its parameters have their names behind `model.`."""
    source = Source(f"{config.path}: spec", json.dumps(config.get("spec"), indent=2))
    spec, found = read_json(source)
    if spec is None:
        raise CheckpointError(f"{config.path}: `spec` is none: {'; '.join(one.message() for one in found)}")
    return Blueprint(spec, lambda parameter: f"{PREFIX}{parameter}")


FAMILIES = (
    Family(
        "archspec (archspec export)",
        f"model_type {MODEL_TYPE}",
        lambda fields: fields.get("model_type") == MODEL_TYPE,
        read_exported,
    ),
)
