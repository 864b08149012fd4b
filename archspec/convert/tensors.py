"""The tensors of a checkpoint folder, whatever files they are in, read one by one when they are asked for."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from archspec.convert.errors import CheckpointError
from archspec.parameters import Shape
from archspec.plan import DTYPE_BYTES

SAFETENSORS = ("model.safetensors", "weights.safetensors")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
PICKLES = (".pth", ".pt", ".bin")
NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state(_\d+)?)\.(bin|pt|pth)")
"""What transformers' trainer saves beside the weights."""
NESTED = ("model", "state_dict")
"""Keys under which training code keeps the weights in a pickle of more than weights."""


@dataclass(frozen=True)
class SafetensorsEntry:
    """A tensor in an open safetensors file."""

    file: safe_open
    name: str

    @property
    def shape(self) -> Shape:
        return tuple(self.file.get_slice(self.name).get_shape())

    def read(self) -> Tensor:
        tensor: Tensor = self.file.get_tensor(self.name)
        return tensor


@dataclass(frozen=True)
class LoadedEntry:
    """A tensor of a pickle, mapped into memory where the file allows it."""

    tensor: Tensor

    @property
    def shape(self) -> Shape:
        return tuple(self.tensor.shape)

    def read(self) -> Tensor:
        return self.tensor.detach().clone()


Entry = SafetensorsEntry | LoadedEntry
Entries = Mapping[str, Entry]


def open_weights(folder: Path) -> Entries:
    """Every tensor of a checkpoint by the name it has there. Errors: CheckpointError."""
    for name in SAFETENSORS:
        if (folder / name).exists():
            return _open_safetensors(folder / name)
    for name in INDEXES:
        if (folder / name).exists():
            return _open_shards(folder / name)
    pickles = sorted(
        path for path in folder.iterdir() if path.suffix in PICKLES and not NO_WEIGHTS.fullmatch(path.name)
    )
    if len(pickles) == 1:
        return _open_pickle(pickles[0])
    if pickles:
        names = ", ".join(path.name for path in pickles)
        raise CheckpointError(f"{folder}: several weight files and no index: {names}")
    looked = ", ".join([*SAFETENSORS, *INDEXES, *(f"*{suffix}" for suffix in PICKLES)])
    raise CheckpointError(f"{folder}: no weights: looked for {looked}")


def read_floats(entry: Entry, name: str) -> Tensor:
    """The tensor of an entry. Errors: CheckpointError if it is of a dtype that models do not compute in."""
    tensor = entry.read()
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise CheckpointError(f"tensor {name} is {dtype}, not one of {', '.join(DTYPE_BYTES)}: is it quantized?")
    return tensor


def _open_any(path: Path) -> Entries:
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)


def _open_safetensors(path: Path) -> Entries:
    try:
        file = safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from error
    return {name: SafetensorsEntry(file, name) for name in file.keys()}  # noqa: SIM118


def _open_shards(index: Path) -> Entries:
    """The tensors that an index of `{"weight_map": {name: file}}` lists; files beside it only."""
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        files = {name: str(file) for name, file in weight_map.items()}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of weight files: {error}") from error
    shards: dict[str, Entries] = {}
    for file in sorted(set(files.values())):
        path = index.parent / file
        if Path(file).name != file or not path.is_file():
            raise CheckpointError(f"{index}: names {file}, which is not in this folder")
        shards[file] = _open_any(path)
    absent = [name for name, file in files.items() if name not in shards[file]]
    if absent:
        raise CheckpointError(f"{index}: {absent[0]} is not in {files[absent[0]]}")
    return {name: shards[file][name] for name, file in files.items()}


def _open_pickle(path: Path) -> Entries:
    loaded = _load(path)
    for key in NESTED:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path}: holds more than named tensors")
    return {str(name): LoadedEntry(tensor) for name, tensor in loaded.items()}


def _load(path: Path) -> object:
    """Weights only, never code. Files of the format before zip archives cannot be mapped."""
    try:
        with path.open("rb") as file:
            mappable = file.read(2) == b"PK"
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: not a file of weights alone: {reason}") from error
