"""What a package says of itself, and whether it fits: the machine, the versions, the model."""

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from archspec.runtime.package.expressions import Tree

FOLDER = "package"
"""Of a package, in the folder of a model."""
MANIFEST = "manifest.json"
KERNELS = "rows.so"
MEND = "write it again with `archspec compile --aot`, or leave it aside: `--no-compile`, in Python `package=False`"


class PackageError(ValueError):
    """A package that cannot be made, or that does not fit."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Input(_Frozen):
    """A tensor that a unit takes: its sizes are numbers or symbols, its strides products such as `64*s0`."""

    dtype: str
    sizes: tuple[int | str, ...]
    strides: tuple[str, ...]


class Unit(_Frozen):
    """A compiled function. It takes the weights, then the tensors of the call."""

    file: str
    sha256: str
    name: str
    key: str
    num_layers: int
    weights: tuple[str, ...]
    inputs: tuple[Input, ...]
    guards: tuple[Tree, ...]
    """What was found true of sizes while the unit was traced, and must be: see `expressions`."""
    outputs: object


class Manifest(_Frozen):
    """`manifest.json`."""

    archspec: str
    code: str
    """Digest of the runtime's sources: what was compiled must be what would be compiled."""
    torch: str
    machine: str
    capabilities: tuple[str, ...]
    """Of the processor that the functions were compiled for."""
    dtype: str
    backend: str
    plan: str
    kernels: str | None
    """Digest of the library of row kernels that lies in the package; None without them."""
    units: tuple[Unit, ...]


def read_manifest(folder: Path) -> Manifest:
    """Errors: PackageError."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PackageError(f"{path} cannot be read ({error.strerror}): {MEND}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise PackageError(f"{path} is no manifest of this version ({place}: {first['msg']}): {MEND}") from error


def check_machine(manifest: Manifest, folder: Path) -> None:
    """Errors: PackageError if it was made with other versions, or for a processor that can do more than this one."""
    here = [("archspec", archspec_version()), ("torch", torch.__version__), ("machine", platform.machine())]
    for what, found in here:
        made = getattr(manifest, what)
        if made != found:
            raise PackageError(f"the package in {folder} was made for {what} {made}, this is {found}: {MEND}")
    if manifest.code != code_digest():
        raise PackageError(f"the package in {folder} was made from other sources of archspec's runtime: {MEND}")
    lacking = sorted(set(manifest.capabilities) - set(capabilities()))
    if lacking:
        raise PackageError(
            f"the package in {folder} was made for a processor with {', '.join(lacking)}, which this one lacks: {MEND}"
        )


def archspec_version() -> str:
    try:
        return version("archspec-lm")
    except PackageNotFoundError:  # run from its sources
        return "unknown"


def code_digest() -> str:
    """Of the sources of the runtime."""
    root = Path(__file__).parents[1]
    paths = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".cpp"))
    return digest(b"\0".join(path.read_bytes() for path in paths))


def capabilities() -> tuple[str, ...]:
    """What the processor can do, by torch's names."""
    found = [name for name, there in torch.cpu.get_capabilities().items() if there is True]
    return (*sorted(found), torch.backends.cpu.get_cpu_capability())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def plan_digest(plan: object) -> str:
    """The same for equal plans."""
    return digest(repr(plan).encode())
