"""`archspec eval`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archspec.cli.common import CliError, Dtype, counts, plots_needed, transformers_needed

if TYPE_CHECKING:
    from archspec.cli.eval_tables import Found
    from archspec.evaluation import Encoder, Task


class RecallTask(StrEnum):
    """Tasks whose examples are generated."""

    mqar = "mqar"
    needle = "needle"


def eval_(
    models: Annotated[list[Path], typer.Argument(help="Model folders; several are shown beside each other.")],
    data: Annotated[
        list[Path] | None, typer.Option(help="A text, a folder of texts, or a .jsonl; may be repeated.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Tokens that a prediction sees at most: 4K; 1024 without it.")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens between windows over long texts.", min=1)] = None,
    recall: Annotated[list[RecallTask] | None, typer.Option(help="A task of recall; may be repeated.")] = None,
    length: Annotated[str, typer.Option(help="Tokens of its examples, with commas.")] = "512",
    depths: Annotated[str, typer.Option(help="Where needles stand, from 0 to 1.")] = "0,0.25,0.5,0.75,1",
    pairs: Annotated[int | None, typer.Option(help="Pairs (mqar; 8) or facts (needle; 1).", min=1)] = None,
    examples: Annotated[int, typer.Option(help="Examples of each task and length.", min=1)] = 100,
    filler: Annotated[Path | None, typer.Option(help="A text to hide needles in.")] = None,
    cached: Annotated[bool, typer.Option("--cached", help="Recall by prefill and decode steps.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Token by token where layers iterate.")] = False,
    tokenizer: Annotated[
        str | None, typer.Option(help="`bytes`, a folder or a file; that of the model, or else bytes, without it.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Sequences at once.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the examples.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[Dtype | None, typer.Option(help="Element type; that of the weights without it.")] = None,
    compile: Annotated[bool, typer.Option(help="Use torch.compile: slower to start, faster to run.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: the loss at every position, or recall.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw both into a png, svg or pdf.")] = None,
) -> None:
    """Loss, perplexity, bits per byte and loss by position of texts; accuracy of recall over generated examples.

    Example: archspec eval out/nano --data README.md --context 512 --recall needle --plot out/eval.png
    """
    if not data and not recall:
        raise typer.BadParameter("give texts with --data, a task with --recall, or both")
    if as_csv and (as_json or (data and recall)):
        raise typer.BadParameter("a CSV has one table: --data or --recall, and no --json", param_hint="--csv")
    if plot is not None:
        with transformers_needed(), plots_needed():
            from archspec.evaluation.plot import check_plot

            check_plot(plot)
    options = {"device": device, "dtype": dtype, "compile": compile}
    found = []
    with transformers_needed():
        for folder in dict.fromkeys(models):
            with _located(folder), _progress(str(folder)) as bar:
                model = _loaded(folder, options)
                encoder = _encoder(folder, model, tokenizer, needed=bool(data) or RecallTask.needle in (recall or ()))
                text = None
                if data:
                    assert encoder is not None
                    tokens = None if context is None else counts(context, "--context")[0]
                    text = _text_loss(
                        model, encoder, data, bar, context=tokens, stride=stride, batch=batch, exact=exact
                    )
                tasks = [
                    _task(kind, size, model, encoder, pairs=pairs, depths=depths, filler=filler)
                    for kind in recall or ()
                    for size in counts(length, "--length")
                ]
                run = {"examples": examples, "batch": batch, "seed": seed, "cached": cached}
                found.append(_found(folder, model, text, [_recall(model, task, bar, run) for task in tasks]))
    _show(found, as_json, as_csv)
    if plot is not None:
        _draw(found, plot, quiet=as_json or as_csv)


def _loaded(folder: Path, options: dict[str, Any]) -> Any:
    import archspec

    if not any((folder / name).is_file() for name in ("model.arch", "config.json")):
        what = "is no model folder" if folder.is_file() else "holds no model.arch"
        raise ValueError(f"{what}: `archspec compile` and `archspec import` make such folders")
    return archspec.load(folder, **options)


def _encoder(folder: Path, model: Any, tokenizer: str | None, needed: bool) -> "Encoder | None":
    from archspec.evaluation import encoder_of

    return encoder_of(folder, model.plan.vocab_size, tokenizer) if needed else None


def _task(
    kind: RecallTask,
    length: int,
    model: Any,
    encoder: "Encoder | None",
    *,
    pairs: int | None,
    depths: str,
    filler: Path | None,
) -> "Task":
    from archspec.evaluation import MultiQuery, Needle
    from archspec.evaluation.needle import FILLER

    if kind is RecallTask.mqar:
        return MultiQuery(model.plan.vocab_size, length, pairs or 8)
    assert encoder is not None
    try:
        places = tuple(float(part) for part in depths.split(","))
    except ValueError:
        raise typer.BadParameter(f"`{depths}`: write depths as 0,0.5,1", param_hint="--depths") from None
    text = FILLER if filler is None else filler.read_text("utf-8")
    return Needle(length, encoder.plain, encoder.prefix, needles=pairs or 1, filler=text, depths=places)


def _text_loss(model: Any, encoder: "Encoder", data: list[Path], bar: Any, **settings: Any) -> Any:
    from archspec.evaluation import read_documents, text_loss
    from archspec.evaluation.texts import text_files

    total = sum(file.stat().st_size for file in text_files(data))
    task = bar.add_task("texts", total=total)
    return text_loss(model, read_documents(data, encoder), advance=lambda size: bar.advance(task, size), **settings)


def _recall(model: Any, task: "Task", bar: Any, run: dict[str, Any]) -> Any:
    from archspec.evaluation import recall

    line = bar.add_task(f"{task.name} {task.length}", total=run["examples"])
    return recall(model, task, advance=lambda count: bar.advance(line, count), **run)


def _found(folder: Path, model: Any, text: Any, reports: list[Any]) -> "Found":
    from archspec.cli.eval_tables import Found

    return Found(str(folder), model.plan.num_parameters(), text, tuple(reports))


@contextmanager
def _located(folder: Path) -> Iterator[None]:
    """Errors of one model as one line that begins with its folder."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise CliError(f"{folder}: out of memory: use a smaller --batch or --context") from error
    except (ValueError, OSError) as error:
        text = str(error)
        raise CliError(text if text.startswith(str(folder)) else f"{folder}: {text}") from error


@contextmanager
def _progress(title: str) -> Iterator[Any]:
    """Bars on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(f"{title}: {{task.description}}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def _show(found: "list[Found]", as_json: bool, as_csv: bool) -> None:
    import csv
    import json

    from archspec.cli import eval_tables

    if as_json:
        print(json.dumps([eval_tables.as_mapping(each) for each in found], indent=2))
    elif as_csv:
        rows = eval_tables.csv_rows(found)
        writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        eval_tables.print_found(found)


def _draw(found: "list[Found]", path: Path, quiet: bool) -> None:
    with plots_needed():
        from archspec.evaluation.plot import Line, save_plot

        save_plot(path, [Line(each.folder, each.text, each.recall) for each in found])
    if not quiet:
        print(f"wrote {path}")
