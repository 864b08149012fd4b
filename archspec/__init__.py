"""archspec: a language and compiler for decoder language models whose layers share KV caches.

Importing it does not import torch; `compile` and `load` do when they are called.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.diagnostics import Diagnostic
from archspec.driver import SpecError, check, parse, parse_spec_text, plan
from archspec.levels_plan import LevelsPlan
from archspec.notebook import use_renderer
from archspec.plan import Plan
from archspec.spec.format import format_spec
from archspec.spec.levels import LevelsSpec
from archspec.spec.model import ModelSpec

if TYPE_CHECKING:
    from archspec.builder import Builder
    from archspec.runtime.build import AnyModel

__all__ = [
    "Builder",
    "Diagnostic",
    "LevelsPlan",
    "LevelsSpec",
    "ModelSpec",
    "Plan",
    "SpecError",
    "check",
    "compile",
    "format_spec",
    "load",
    "parse",
    "parse_spec_text",
    "plan",
]


def __getattr__(name: str) -> Any:
    """`archspec.Builder`, imported when it is first asked for."""
    if name == "Builder":
        from archspec.builder import Builder

        return Builder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def compile(
    spec: ModelSpec,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    backend: str = "auto",
    compile: bool = True,
) -> "AnyModel":
    """A runnable model of a spec, with random weights drawn from `seed`. Raises SpecError for a bad spec."""
    from archspec.runtime.build import build_model

    model = build_model(plan(spec), device=device, dtype=dtype, seed=seed, backend=backend, compile=compile)
    model.arch_text = format_spec(spec)
    return model


def load(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    backend: str = "auto",
    compile: bool = True,
    package: bool = True,
) -> "AnyModel":
    """The model in a folder that `Model.save` or `archspec import` wrote. `dtype=None` keeps that of the weights.

    A folder with a checkpoint that `archspec import` reads, one that `archspec export` wrote say, does as well.

    If the folder holds a package (`archspec compile --aot`), the model runs by it and compiles nothing, unless
    `compile` or `package` say otherwise.

    Errors: SpecError for a bad spec, ValueError for weights or a package that do not fit it, FileNotFoundError.
    """
    from archspec.runtime.build import load_model
    from archspec.runtime.package import package_in
    from archspec.runtime.weights import ARCH_FILE, WEIGHTS_FILE

    arch, weights = Path(path) / ARCH_FILE, Path(path) / WEIGHTS_FILE
    if not arch.is_file() and (Path(path) / "config.json").is_file():
        from archspec.convert import load_checkpoint

        return load_checkpoint(path, device=device, dtype=dtype, backend=backend, compile=compile)
    made = package_in(Path(path)) if compile and package else None
    model = load_model(plan(parse(arch)), weights, device=device, dtype=dtype, backend=backend, compile=compile)
    model.arch_text = arch.read_text("utf-8")
    if made is not None:
        made.install(model)
    return model


def _shown(value: Any) -> dict[str, str]:
    """What a notebook shows of a spec or a plan."""
    from archspec.figures.bundle import bundle_of

    return bundle_of(value)


use_renderer(_shown)
