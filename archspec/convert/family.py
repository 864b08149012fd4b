"""What an importer of one family provides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from archspec.convert.config import Config
from archspec.spec.model import ModelSpec


@dataclass(frozen=True)
class Blueprint:
    """A config that was understood: the spec, and where each of its parameters is in the checkpoint."""

    spec: ModelSpec
    names: Callable[[str], str]
    """Parameter name in `Plan.parameter_shapes` -> tensor name in the checkpoint."""
    ignored: Callable[[str], bool] = field(default=lambda name: False)
    """Tensors of the checkpoint that hold no weights, tables of angles say."""
    prefixes: tuple[str, ...] = ()
    """What training code may put before every tensor name."""
    remarks: tuple[str, ...] = ()
    """Lines for the comment on top of the spec."""


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint."""

    name: str
    """How it is called in messages, with where it comes from."""
    key: str
    """What a config says to be of this family, as a list of known ones would show it."""
    matches: Callable[[Mapping[str, object]], bool]
    """Whether a config is one of this family."""
    read: Callable[[Config, str], Blueprint]
    """Config and model name -> blueprint. Errors: ImportRefused, CheckpointError."""
