"""`archspec compile`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.common import Dtype, Set


def compile_(
    file: Annotated[Path, typer.Argument(help="A spec.", metavar="FILE")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for model.arch and model.safetensors.", metavar="DIR"),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights under archspec's names (safetensors); random ones without it."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    dtype: Annotated[Dtype | None, typer.Option(help="Element type; that of --weights, else float32.")] = None,
    set_: Set = None,
) -> None:
    """Make a model folder of a spec: model.arch and model.safetensors, both written whole or not at all.

    Example: archspec compile specs/nano/nano_yoco.arch -o out/nano --seed 1
    """
    from archspec.cli.common import CliError, analysed, print_diagnostics, torch_needed

    analysis = analysed(file, set_)
    print_diagnostics(analysis.diagnostics, sys.stderr)
    with torch_needed():
        from archspec.runtime.build import build_model, load_model
        from archspec.runtime.weights import save_model

        try:
            plan = analysis.plan()
            if weights is None:
                model = build_model(plan, dtype=dtype or "float32", seed=seed, compile=False)
            else:
                model = load_model(plan, weights, dtype=dtype, compile=False)
            save_model(model, output, analysis.text)
        except (ValueError, OSError) as error:
            raise CliError(str(error)) from error
    origin = f"weights from {weights}" if weights else f"random weights, seed {seed}"
    print(f"{output}: model.arch and model.safetensors, {plan.num_parameters():,} parameters, {origin}")
