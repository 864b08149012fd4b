"""Model -> package: each unit traced once with sizes as symbols, and compiled; no weight is in what comes out."""

import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from archspec.runtime import kernels
from archspec.runtime.build import AnyModel
from archspec.runtime.network import Network
from archspec.runtime.package.calls import put_together, taken_apart
from archspec.runtime.package.expressions import Tree, symbols_of, tree_of
from archspec.runtime.package.fitting import fits
from archspec.runtime.package.manifest import (
    FOLDER,
    KERNELS,
    MANIFEST,
    Input,
    Manifest,
    PackageError,
    Unit,
    archspec_version,
    capabilities,
    code_digest,
    digest,
    plan_digest,
)
from archspec.runtime.package.recording import Recorded, record

OPTIONS = {"aot_inductor.compile_wrapper_opt_level": "O1"}
Report = Callable[[int, int, str], None]
"""Told before each unit: its number from 1 on, how many there are, its name."""


class _Unit(nn.Module):
    """A unit as a module, with those that it is called with as its children."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__()
        self.unit, self.args = recorded.unit, recorded.args
        self.given = nn.ModuleList(taken_apart(recorded.args).modules)

    def forward(self, tensors: list[Tensor]) -> Any:
        return self.unit(*put_together(self.args, tensors, list(self.given)))


class _Lifted(nn.Module):
    """The same as a function of weights and tensors. The unit is no child of it: its weights are no state to export."""

    def __init__(self, unit: _Unit, names: list[str]) -> None:
        super().__init__()
        self.held, self.names = (unit,), [f"given.{name}" for name in names]

    def forward(self, weights: list[Tensor], tensors: list[Tensor]) -> Any:
        return torch.func.functional_call(self.held[0], dict(zip(self.names, weights, strict=True)), (tensors,))


def traced(recorded: Recorded) -> ExportedProgram:
    """The graph of a unit, in which every size that changed between calls is a symbol."""
    unit, names = _Unit(recorded), list(recorded.weights)
    state = {**dict(unit.named_parameters()), **dict(unit.named_buffers())}
    weights = [state[f"given.{name}"].detach() for name in names]
    tensors = taken_apart(recorded.args).tensors
    changing = [dict.fromkeys(recorded.changing(i), Dim.DYNAMIC) for i in range(len(tensors))]
    with torch.no_grad(), _shapes():
        program = torch.export.export(
            _Lifted(unit, names), (weights, tensors), dynamic_shapes=([None] * len(weights), changing), strict=False
        )
    if program.state_dict:
        raise PackageError(f"unit {recorded.unit.__name__} kept weights: {', '.join(program.state_dict)}")
    return program


def compile_unit(program: ExportedProgram, path: Path) -> None:
    """Effects: writes the file."""
    with _shapes():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=OPTIONS)


def _shapes() -> AbstractContextManager[None]:
    """While graphs are made and compiled: equal sizes are not taken for the same, nor sizes above 1 for granted."""
    settings = {"use_duck_shape": False, "backed_size_oblivious": True}
    patched: AbstractContextManager[None] = torch.fx.experimental._config.patch(settings)  # type: ignore[attr-defined]
    return patched


def described(recorded: Recorded, program: ExportedProgram, path: Path) -> Unit:
    """What a reader has to know of a compiled unit."""
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"]
    inputs = [
        Input(
            dtype=str(value.dtype).removeprefix("torch."),
            sizes=tuple(size if isinstance(size, int) else _text(size) for size in value.shape),
            strides=tuple(_text(stride) for stride in value.stride()),
        )
        for value in values[len(recorded.weights) :]
    ]
    return Unit(
        file=path.name,
        sha256=digest(path.read_bytes()),
        name=recorded.unit.__name__,
        key=recorded.key,
        num_layers=len(recorded.served),
        weights=tuple(recorded.weights),
        inputs=tuple(inputs),
        guards=tuple(_guards(program, values)),
        outputs=recorded.outputs,
    )


def _guards(program: ExportedProgram, values: list[Any]) -> Iterator[Tree]:
    """What the graph takes for true of its sizes."""
    for symbol, interval in program.range_constraints.items():
        low, high = interval.lower, interval.upper
        yield ["LessThan", int(low), str(symbol)]
        if high.is_Integer:
            yield ["LessThan", str(symbol), int(high)]
    shapes = values[0].fake_mode.shape_env
    for guard in shapes.guards:
        try:
            tree = tree_of(guard.expr.xreplace(shapes.replacements))
        except ValueError as error:
            raise PackageError(str(error)) from error
        if symbols_of(tree):
            yield tree


def _text(size: Any) -> str:
    """A size or stride: a number, or a product of numbers and symbols."""
    if isinstance(size, int):
        return str(size)
    factors = size.node.expr.as_ordered_factors()
    if not all(factor.is_Symbol or factor.is_Integer for factor in factors):
        raise PackageError(f"a stride that is no product: {size.node.expr}")
    return "*".join(map(str, factors))


@contextmanager
def write(model: AnyModel, folder: Path, report: Report = lambda *_: None) -> Iterator[Manifest]:
    """Compile a package for the folder of a model; it takes its place there when the context ends without an error.

    Effects: as of a short prefill and decode. Errors: PackageError, and those of the compilers as RuntimeError.
    """
    if model.device.type != "cpu":
        raise PackageError(f"packages are made for the CPU, and this model is on {model.device}")
    folder.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", suffix=".tmp", dir=folder))
    try:
        with warnings.catch_warnings():
            # Torch's own, about how its exporter copies what it has.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec", FutureWarning)
            manifest = _compiled(model, beside, report)
        (beside / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        yield manifest
        _put(beside, folder / FOLDER)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _compiled(model: AnyModel, folder: Path, report: Report) -> Manifest:
    units: list[Unit] = []
    found = record(model)
    for number, recorded in enumerate(found, start=1):
        report(number, len(found), recorded.unit.__name__)
        alike = [unit for unit in units if unit.key == recorded.key]
        if all(any(fits(unit, tensors) for unit in alike) for tensors in recorded.met.values()):
            continue
        program = traced(recorded)
        path = folder / f"{number:02}_{recorded.unit.__name__}.pt2"
        compile_unit(program, path)
        units.append(described(recorded, program, path))
    library = kernels.library()
    if library is not None:
        shutil.copyfile(library, folder / KERNELS)
    return Manifest(
        archspec=archspec_version(),
        code=code_digest(),
        torch=torch.__version__,
        machine=platform.machine(),
        capabilities=capabilities(),
        dtype=str(model.dtype).removeprefix("torch."),
        backend=backend_of(model),
        plan=plan_digest(model.plan),
        kernels=None if library is None else digest((folder / KERNELS).read_bytes()),
        units=tuple(units),
    )


def backend_of(model: AnyModel) -> str:
    """The name of a model's attention."""
    (name,) = {module.attend.__name__ for module in model.modules() if isinstance(module, Network)}
    return name


def _put(made: Path, target: Path) -> None:
    """Let a folder take the place of another, which goes: at worst there is none in between."""
    made.chmod(0o755)
    old = made.with_name(f"{made.name}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(made, target)
    shutil.rmtree(old, ignore_errors=True)
