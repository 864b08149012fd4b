"""Weights on disk: `model.arch` and `model.safetensors` in one folder, written whole or not at all."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from archspec.files import replace_files

ARCH_FILE = "model.arch"
WEIGHTS_FILE = "model.safetensors"
SHOWN = 8
"""Names listed in a message before it is cut short."""


def save_model(model: nn.Module, directory: str | Path, arch_text: str) -> None:
    """Write the spec's text and the weights into `directory`, which is made if needed.

    Effects: replaces both files at the end; if anything fails before, neither is touched.
    Errors: ValueError without text, since a folder without a spec could not be loaded.
    """
    save_tensors(model.state_dict(), directory, arch_text)


def save_tensors(state: Mapping[str, Tensor], directory: str | Path, arch_text: str) -> None:
    """The same for tensors under the names of a model's `state_dict`."""
    if not arch_text:
        raise ValueError("this model was built without the text of a spec; set model.arch_text before saving")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    writers: dict[str, Callable[[Path], object]] = {
        WEIGHTS_FILE: lambda path: save_file(tensors, path, metadata={"format": "pt"}),
    }
    if not _holds(folder / ARCH_FILE, arch_text):
        writers[ARCH_FILE] = lambda path: path.write_text(arch_text, encoding="utf-8")
    replace_files(folder, writers)


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


@torch.no_grad()
def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill the model's parameters from a safetensors file; values are cast to the model's dtype.

    Effects: overwrites the parameters, or none of them if names or shapes disagree.
    Errors: ValueError that names what is missing, unexpected or of another shape; FileNotFoundError.
    """
    targets = model.state_dict()
    with _open(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        _check_names(path, {name: tuple(tensor.shape) for name, tensor in targets.items()}, shapes)
        for name, target in targets.items():
            target.copy_(file.get_tensor(name))


def stored_dtype(path: str | Path) -> str:
    """Name of the dtype of the tensors in a safetensors file, of the first one if they differ."""
    with _open(path) as file:
        for name in file.keys():  # noqa: SIM118
            return str(file.get_slice(name)[:0].dtype).removeprefix("torch.")
    raise ValueError(f"{path} holds no tensors")


def _open(path: str | Path) -> safe_open:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        return safe_open(str(path), framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def _check_names(path: str | Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    problems = [
        ("missing", [name for name in expected if name not in found]),
        ("unexpected", [name for name in found if name not in expected]),
        (
            "of another shape",
            [
                f"{name} {found[name]} instead of {shape}"
                for name, shape in expected.items()
                if name in found and found[name] != shape
            ],
        ),
    ]
    text = "; ".join(f"{len(names)} {what}: {_cut(names)}" for what, names in problems if names)
    if text:
        raise ValueError(f"the weights in {path} do not fit the model: {text}")


def _cut(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
