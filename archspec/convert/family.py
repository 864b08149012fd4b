"""What an importer of one family provides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from archspec.convert.config import Config
from archspec.parameters import Shape
from archspec.spec.model import ModelSpec


@dataclass(frozen=True)
class Fused:
    """One of `count` parameters that a checkpoint keeps in one tensor, head by head: its rows are (N, count, H)."""

    idx: int
    count: int
    num_heads: int

    def whole(self, shape: Shape) -> Shape:
        """The shape of the tensor that holds all of them, each of this shape."""
        return (self.count * shape[0], *shape[1:])

    def part(self, tensor: Tensor) -> Tensor:
        """This parameter's rows."""
        return tensor.unflatten(0, (self.num_heads, self.count, -1))[:, self.idx].flatten(0, 1).clone()


@dataclass(frozen=True)
class Blueprint:
    """A config that was understood: the spec, and where each of its parameters is in the checkpoint."""

    spec: ModelSpec
    names: Callable[[str], str]
    """Parameter name in `Plan.parameter_shapes` -> tensor name in the checkpoint."""
    fused: Callable[[str], Fused | None] = field(default=lambda name: None)
    """Parameter name -> which part of the tensor it is; None if it is all of it."""
    ignored: Callable[[str], bool] = field(default=lambda name: False)
    """Tensors of the checkpoint that hold no weights, tables of angles say."""
    prefixes: tuple[str, ...] = ()
    """What training code may put before every tensor name."""
    remarks: tuple[str, ...] = ()
    """Lines for the comment on top of the spec."""


Reader = Callable[[Config, str], Blueprint]


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint."""

    name: str
    """How it is called in messages, with where it comes from."""
    key: str
    """What a config says to be of this family, as a list of known ones would show it."""
    matches: Callable[[Mapping[str, object]], bool]
    """Whether a config is one of this family."""
    read: Reader
    """Config and model name -> blueprint. Errors: ImportRefused, CheckpointError."""


def transformers_family(name: str, model_type: str, architecture: str, read: Reader) -> Family:
    """A family that is told by `model_type`, or by `architectures` in a config without one."""

    def matches(fields: Mapping[str, object]) -> bool:
        implied = model_type if fields.get("architectures") == [architecture] else None
        return fields.get("model_type", implied) == model_type

    def checked(config: Config, model_name: str) -> Blueprint:
        config.must("architectures", f"a class other than {architecture}", [architecture])
        return read(config, model_name)

    return Family(f"{name} (transformers)", f"model_type {model_type}", matches, checked)
