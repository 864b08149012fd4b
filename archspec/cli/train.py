"""`archspec train`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from archspec.cli.common import Set

HELD_OUT = 0.05


def train(
    source: Annotated[Path, typer.Argument(help="A spec, or a model folder to train on.", metavar="SPEC_OR_DIR")],
    data: Annotated[
        list[Path],
        typer.Option(help="A text file, a jsonl file (`text` of each line), or a folder; may be repeated."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run, a model folder.", metavar="OUT")],
    steps: Annotated[int, typer.Option(help="Steps of the optimizer.")] = 1000,
    batch: Annotated[int, typer.Option(help="Rows of a step, of all processes together.")] = 16,
    context: Annotated[int, typer.Option(help="Tokens of a row.")] = 256,
    lr: Annotated[float, typer.Option(help="Learning rate after the warmup; a cosine leads to a tenth of it.")] = 1e-3,
    warmup: Annotated[int | None, typer.Option(help="Steps; a twentieth of all without it.")] = None,
    weight_decay: Annotated[float, typer.Option(help="Of matrices, by AdamW.")] = 0.1,
    clip: Annotated[float, typer.Option(help="Largest norm of a gradient.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of a spec's weights, and of the order of rows.")] = 0,
    tokenizer: Annotated[
        str, typer.Option(help="`bytes`, a tokenizer.json, or a folder or name for transformers' AutoTokenizer.")
    ] = "bytes",
    held_out: Annotated[float, typer.Option(help="Part of the text that is only evaluated on; 0 for none.")] = HELD_OUT,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16; weights stay in float32.")] = False,
    accumulate: Annotated[int, typer.Option(help="Parts that a process cuts its rows of a step into.")] = 1,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory: compute activations twice.")
    ] = False,
    eval_every: Annotated[int | None, typer.Option(help="Steps; a tenth of all without it.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps; a tenth of all without it.")] = None,
    keep: Annotated[int, typer.Option(help="Checkpoints to keep.")] = 2,
    device: Annotated[str | None, typer.Option(help="`cpu`; the accelerator, if there is one, without it.")] = None,
    compile: Annotated[bool, typer.Option(help="Use torch.compile: slower to start, faster to run.")] = True,
    set_: Set = None,
) -> None:
    """Train a spec, or go on with a model, on text. The same command goes on where a run was cut off.

    OUT becomes a model folder, with loss.csv, loss.png and checkpoints/. Several processes: `accelerate launch
    --multi_gpu --num_processes 8 -m archspec.cli.main train ...`, and `--use_fsdp --fsdp_version 2` in place of
    `--multi_gpu` to share weights and optimizer out.

    Example: archspec train specs/nano/nano_yoco.arch --data corpus/ -o out/nano --steps 500
    """
    from archspec.cli.common import CliError, plots_needed, transformers_needed

    given = _source(source, set_)
    with _one_voice(), transformers_needed(), plots_needed():
        from archspec.training import Settings
        from archspec.training import train as run

        try:
            if device not in (None, "cpu"):
                raise typer.BadParameter("the only device to choose is `cpu`", param_hint="--device")
            settings = Settings(
                steps=steps, batch=batch, context=context, lr=lr, warmup=warmup, weight_decay=weight_decay, clip=clip,
                seed=seed, bf16=bf16, accumulate=accumulate, checkpointing=gradient_checkpointing,
                eval_every=eval_every, save_every=save_every, keep=keep, compile=compile,
            )  # fmt: skip
            made = run(
                given, data, output, settings, tokenizer=tokenizer, held_out=held_out, device=device, progress=True
            )
        except (ValueError, OSError) as error:
            raise CliError(str(error)) from error
    if _is_first():
        print(_outcome(made, steps))


def _source(source: Path, set_: list[str] | None) -> Any:
    """The spec, or the folder as it is."""
    from archspec.cli.common import analysed, print_diagnostics

    if source.is_dir():
        if set_:
            raise typer.BadParameter("a model folder has its numbers: --set is for specs", param_hint="--set")
        return source
    analysis = analysed(source, set_)
    if _is_first():
        print_diagnostics(analysis.diagnostics, sys.stderr)
    assert analysis.elaborated is not None
    return analysis.elaborated.spec


def _is_first() -> bool:
    """Whether this is the only process, or the first of those that `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _one_voice() -> Iterator[None]:
    """Of several processes that fail alike, one says so."""
    from archspec.cli.common import CliError

    try:
        yield
    except CliError:
        if _is_first():
            raise
        raise typer.Exit(1) from None


def _outcome(made: Any, steps: int) -> str:
    """What a run came to, in a line."""
    told = [f"loss {made.losses[-1]:.4f}"] if made.losses else []
    if made.eval_loss is not None:
        told.append(f"held out {made.eval_loss:.4f}")
    if made.resumed_at == steps:
        state = f"all {steps} steps were done before"
    elif made.resumed_at:
        state = f"steps {made.resumed_at + 1} to {steps}"
    else:
        state = f"{steps} steps"
    return f"{made.folder}: {state}, {', '.join(told)}; model.arch, model.safetensors, loss.csv, loss.png"
