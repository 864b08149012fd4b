"""What an importer of one family provides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from archspec.convert.config import Config
from archspec.parameters import Shape
from archspec.spec.model import ModelSpec


@dataclass(frozen=True)
class Fused:
    """One of several parameters that a checkpoint keeps in one tensor.

    Along `axis` the tensor is (num_groups, count, N) and the parameter `width` of the `count` from `idx` on: head by
    head for `query_key_value` of GPT-NeoX, one behind another with one group. `transposed`: the tensor's last two axes
    are swapped as well (`Conv1D` of GPT-2).
    """

    idx: int
    count: int
    num_groups: int = 1
    width: int = 1
    axis: int = 0
    transposed: bool = False

    def whole(self, shape: Shape) -> Shape:
        """The shape of the tensor that holds all of them, each of this shape."""
        sizes = list(shape)
        sizes[self.axis] = sizes[self.axis] // self.width * self.count
        if self.transposed:
            sizes[-2:] = reversed(sizes[-2:])
        return tuple(sizes)

    def part(self, tensor: Tensor) -> Tensor:
        """This parameter."""
        turned = tensor.mT if self.transposed else tensor
        grouped = turned.unflatten(self.axis, (self.num_groups, self.count, -1))
        chosen = grouped.narrow(self.axis + 1, self.idx, self.width)
        return chosen.flatten(self.axis, self.axis + 2).clone(memory_format=torch.contiguous_format)


TRANSPOSED = Fused(0, 1, transposed=True)
"""A matrix that is stored the other way round."""


Names = Callable[[str], str | tuple[str, ...]]


@dataclass(frozen=True)
class Blueprint:
    """A config that was understood: the spec, and where each of its parameters is in the checkpoint."""

    spec: ModelSpec
    names: Names
    """Parameter name in `Plan.parameter_shapes` -> tensor name in the checkpoint; of a parameter that is kept row by
    row in several tensors, such as experts, all of their names."""
    fused: Callable[[str], Fused | None] = field(default=lambda name: None)
    """Parameter name -> which part of the tensor it is; None if it is all of it."""
    ignored: Callable[[str], bool] = field(default=lambda name: False)
    """Tensors of the checkpoint that the model does not use: tables of angles, the parts for images."""
    renamed: Callable[[str], str] = field(default=lambda tensor: tensor)
    """Tensor name of a checkpoint in any of its layouts -> the name in the one that `names` gives."""
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


def check_code(config: Config, architecture: str) -> None:
    """Refuse code that a checkpoint brings along, unless it is an early form of what transformers has now."""
    code = config.get("auto_map")
    name = code.get("AutoModelForCausalLM") if isinstance(code, dict) else code
    if code and not (isinstance(name, str) and name.endswith(f".{architecture}")):
        config.refuse(f"code other than that of {architecture}", "auto_map", code)


def transformers_family(name: str, model_type: str, architecture: str, read: Reader) -> Family:
    """A family that is told by `model_type`, or by `architectures` in a config without one."""

    def matches(fields: Mapping[str, object]) -> bool:
        implied = model_type if fields.get("architectures") == [architecture] else None
        return fields.get("model_type", implied) == model_type

    def checked(config: Config, model_name: str) -> Blueprint:
        config.must("architectures", f"a class other than {architecture}", [architecture])
        check_code(config, architecture)
        return read(config, model_name)

    return Family(f"{name} (transformers)", f"model_type {model_type}", matches, checked)
