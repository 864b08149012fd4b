"""`archspec compile`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from archspec.cli.common import Dtype, Set


class Format(StrEnum):
    """Of what --explain shows."""

    text = "text"
    json = "json"


def compile_(
    file: Annotated[Path, typer.Argument(help="A spec.", metavar="FILE")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for model.arch and model.safetensors.", metavar="DIR"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights under archspec's names (safetensors); random ones without it."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    dtype: Annotated[Dtype | None, typer.Option(help="Element type; that of --weights, else float32.")] = None,
    aot: Annotated[
        bool, typer.Option("--aot", help="Compile now: a package of prefill and decode beside them, without weights.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Compile in memory and show what torch.compile made; writes nothing.")
    ] = False,
    training: Annotated[bool, typer.Option("--training", help="With --explain: a training step as well.")] = False,
    format: Annotated[Format, typer.Option(help="Output of --explain.")] = Format.text,
    set_: Set = None,
) -> None:
    """Make a model folder of a spec: model.arch and model.safetensors, both written whole or not at all.

    Example: archspec compile specs/nano/nano_yoco.arch -o out/nano --seed 1
    """
    from archspec.cli.common import CliError, analysed, print_diagnostics, torch_needed

    if explain == (output is not None):
        raise typer.BadParameter("give either --output DIR or --explain", param_hint="--output")
    analysis = analysed(file, set_)
    print_diagnostics(analysis.diagnostics, sys.stderr)
    with torch_needed():
        from archspec.runtime.build import build_model, load_model
        from archspec.runtime.weights import save_model

        compiles = aot or explain
        try:
            plan = analysis.plan()
            if weights is None:
                model = build_model(plan, dtype=dtype or "float32", seed=seed, compile=compiles)
            else:
                model = load_model(plan, weights, dtype=dtype, compile=compiles)
            if output is None:
                from archspec.cli.account import print_account

                print_account(model, format is Format.json, training)
                return
            with _package(model, output) if aot else nullcontext() as packed:
                save_model(model, output, analysis.text)
        except (ValueError, OSError) as error:
            raise CliError(str(error)) from error
    origin = f"weights from {weights}" if weights else f"random weights, seed {seed}"
    print(f"{output}: model.arch and model.safetensors, {plan.num_parameters():,} parameters, {origin}")
    if packed:
        print(packed)


@contextmanager
def _package(model: Any, output: Path) -> Iterator[str]:
    """A package of the model, and what to say of it; it takes its place if all goes well."""
    from archspec.cli.common import CliError
    from archspec.runtime.package import FOLDER, write

    def report(number: int, total: int, name: str) -> None:
        print(f"compiling {number} of {total}: {name}", file=sys.stderr)

    try:
        with write(model, output, report) as made:
            fits = f"{made.capabilities[-1]}, {made.dtype}, torch {made.torch}"
            yield f"{output / FOLDER}: {len(made.units)} compiled units for {fits}"
    except RuntimeError as error:  # compilers' own, and those of torch
        raise CliError(f"the package could not be compiled: {str(error).strip().splitlines()[0]}") from error
