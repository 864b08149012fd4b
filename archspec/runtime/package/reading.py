"""Package -> calls of its functions. Nothing is compiled here: what the package lacks runs as it is."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from archspec.runtime import kernels
from archspec.runtime.build import AnyModel
from archspec.runtime.compiling import Caller
from archspec.runtime.decode_tapes import DecodeTapes
from archspec.runtime.network import Network
from archspec.runtime.package.calls import Fingerprints, key_of, results, taken_apart
from archspec.runtime.package.fitting import fits
from archspec.runtime.package.manifest import (
    FOLDER,
    KERNELS,
    MEND,
    Manifest,
    PackageError,
    Unit,
    check_machine,
    digest,
    plan_digest,
    read_manifest,
)
from archspec.runtime.package.writing import backend_of
from archspec.runtime.tapes import compiled_call, noted

MOST_SIGNATURES = 1 << 14
"""Calls of known sizes that are remembered; then all are forgotten."""


class UncompiledWarning(UserWarning):
    """A unit is called in a way that its package has no function for."""


class Package:
    """A package on disk that fits this machine."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._functions: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {}

    def install(self, model: AnyModel) -> None:
        """Let the units of a model run by this package. Errors: PackageError if it was made for another model."""
        manifest, dtype = self.manifest, str(model.dtype).removeprefix("torch.")
        if model.device.type != "cpu":
            raise PackageError(f"the package in {self.folder} is for the CPU, not for {model.device}: {MEND}")
        if manifest.dtype != dtype:
            raise PackageError(f"the package in {self.folder} is for {manifest.dtype}, the model is {dtype}: {MEND}")
        if manifest.plan != plan_digest(model.plan):
            raise PackageError(f"the package in {self.folder} was made for another spec: {MEND}")
        if manifest.backend != backend_of(model):
            raise PackageError(
                f"the package in {self.folder} computes attention by {manifest.backend}, the model was to use "
                f"{backend_of(model)}: {MEND}"
            )
        caller = PackageCaller(self, model)
        model.prefill_chunk = None  # its functions serve prompts from their first token on
        for module in model.modules():
            if isinstance(module, Network):
                module.call, module.kept_steps = caller, DecodeTapes(module)

    def function(self, unit: Unit) -> Callable[[list[Tensor]], list[Tensor]]:
        """A compiled unit, loaded when it is first asked for."""
        if unit.file not in self._functions:
            path = self.folder / unit.file
            _check_file(path, unit.sha256)
            self._functions[unit.file] = load_unit(path)
        return self._functions[unit.file]


def load_unit(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    """A compiled unit, from flat weights and tensors to flat tensors."""
    # Not `aoti_load_package`: it asks a compiler what the processor can do, where the manifest has said it. Called from
    # one thread at a time, as a model is; one runner; no device to choose.
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", True, 1, -1)  # type: ignore[attr-defined]
    run: Callable[[list[Tensor]], list[Tensor]] = loader.boxed_run
    return run


def package_in(folder: Path) -> Package | None:
    """The package in the folder of a model; None if there is none.

    Effects: loads its row kernels. Errors: PackageError if it does not fit this machine or these versions.
    """
    folder = folder / FOLDER
    if not folder.is_dir():
        return None
    manifest = read_manifest(folder)
    check_machine(manifest, folder)
    if manifest.kernels is not None:
        _check_file(folder / KERNELS, manifest.kernels)
        kernels.use_library(folder / KERNELS)
    return Package(folder, manifest)


def _check_file(path: Path, sha256: str) -> None:
    """Errors: PackageError if a file is not the one that was written."""
    try:
        found = digest(path.read_bytes())
    except OSError as error:
        raise PackageError(f"{path} cannot be read ({error.strerror}): {MEND}") from error
    if found != sha256:
        raise PackageError(f"{path} is not the file that the package was written with: {MEND}")


class _Ready(NamedTuple):
    """A function that serves calls of one signature."""

    unit: Unit
    run: Callable[[list[Tensor]], list[Tensor]]


class PackageCaller(Caller):
    """Calls units by the functions of a package."""

    chooses = False  # there are as many ways to choose as there are numbers; none is worth a function

    def __init__(self, package: Package, model: nn.Module) -> None:
        super().__init__(compile=False)
        self.package, self.prints = package, Fingerprints(model)
        self._units: dict[str, list[Unit]] = {}
        for unit in package.manifest.units:
            self._units.setdefault(unit.key, []).append(unit)
        self._ready: dict[object, _Ready | None] = {}
        self._places: dict[object, list[tuple[dict[str, Any], str]]] = {}
        self._told: set[str] = set()

    def __call__(self, unit: Callable[..., Any], kind: object, *args: Any) -> Any:
        if torch.is_grad_enabled():
            self._tell(unit, "with gradients")
            return unit(*args)
        tensors, modules, form = taken_apart(args)
        prints = tuple([self.prints[module] for module in modules])
        met = tuple([(tensor.dtype, tensor.shape, tensor.stride()) for tensor in tensors])
        signature = unit, kind, form, prints, met
        if signature not in self._ready:
            if len(self._ready) >= MOST_SIGNATURES:
                self._ready.clear()
            self._ready[signature] = self._found(unit, key_of(unit, kind, form, prints), tensors)
        ready = self._ready[signature]
        if ready is None:
            return unit(*args)
        weights = [owner[leaf] for owner, leaf in self._weights(ready.unit, modules)]
        with compiled_call():
            out = noted(ready.run, [*weights, *tensors])
        return results(ready.unit.outputs, iter(out))

    def marked(self, inputs: Tensor) -> Tensor:
        """What enters a stack, in the layout that functions are compiled for."""
        return inputs.contiguous()

    def _found(self, unit: Callable[..., Any], key: str, tensors: list[Tensor]) -> _Ready | None:
        for candidate in self._units.get(key, ()):
            if fits(candidate, tensors):
                return _Ready(candidate, self.package.function(candidate))
        sizes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors[:1])
        self._tell(
            unit, f"called in this way ({sizes})" if key in self._units else "of this kind, or called in this way"
        )
        return None

    def _tell(self, unit: Callable[..., Any], how: str) -> None:
        """Effects: a warning, the first time that a unit has to run as it is."""
        if unit.__name__ not in self._told:
            self._told.add(unit.__name__)
            text = f"the package in {self.package.folder} has no unit `{unit.__name__}` {how}: it runs uncompiled"
            warnings.warn(text, UncompiledWarning, stacklevel=3)

    def _weights(self, unit: Unit, modules: list[nn.Module]) -> list[tuple[dict[str, Any], str]]:
        """Where the weights of a call are: not themselves, since others may be put there."""
        place = (unit.file, *modules)
        if place not in self._places:
            self._places[place] = [_place(modules, name) for name in unit.weights]
        return self._places[place]


def _place(modules: list[nn.Module], name: str) -> tuple[dict[str, Any], str]:
    number, _, path = name.partition(".")
    owner, _, leaf = path.rpartition(".")
    module = modules[int(number)].get_submodule(owner)
    return (module._parameters if leaf in module._parameters else module._buffers), leaf
