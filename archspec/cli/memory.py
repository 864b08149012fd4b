"""`archspec memory`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archspec.cli.common import CliError, Dtype, Set, counts, torch_needed

if TYPE_CHECKING:
    from archspec.levels_plan import AnyPlan
    from archspec.memory.account import Terms
    from archspec.memory.report import Row, Subject


class CacheDtype(StrEnum):
    """Element types of caches; the runtime has no caches of the types of one byte."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"
    float8 = "float8"
    int8 = "int8"


def memory(
    files: Annotated[list[Path], typer.Argument(help="Specs; ratios are to the first.", metavar="FILE...")],
    batch: Annotated[str, typer.Option(help="Sequences; several with commas.")] = "1",
    context: Annotated[
        str, typer.Option(help="Tokens a sequence; several with commas, K and M are 1024-based.")
    ] = "4K,32K,128K,1M",
    dtype: Annotated[Dtype, typer.Option(help="Element type of weights, and of caches.")] = Dtype.bfloat16,
    cache_dtype: Annotated[CacheDtype | None, typer.Option(help="Element type of caches, if another.")] = None,
    allocator: Annotated[
        str, typer.Option(help="Who allocates caches: exact, hf-dynamic, hf-static, paged:N (blocks of N).")
    ] = "exact",
    prefill_chunk: Annotated[
        str | None,
        typer.Option(
            help="Tokens of a prompt that are prefilled at a time, rounded down to whole blocks of a level.",
            show_default="as the model does: 2K tokens or blocks; all where layers iterate",
        ),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Memory, as 80GB or 24GiB: the largest batch and the longest context in it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print the formula and the table for a paper.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw bytes against context: .png, .svg or .pdf.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Allocate the caches and report their real bytes.")
    ] = False,
    measure_passes: Annotated[
        bool, typer.Option("--measure-passes", help="Run prefill and decode as well, and report their real peaks.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where to measure.")] = "cpu",
    set_: Set = None,
) -> None:
    """What models cost in memory: closed form, exact bytes, and beside them the same model without sharing.

    Example: archspec memory specs/yoco/yoco_3b_window.arch --batch 1,8 --context 4K,128K,1M --gpu 80GB
    """
    from archspec.cli import memory_tables as tables
    from archspec.memory.account import Terms
    from archspec.memory.allocators import parse_allocator
    from archspec.memory.report import add_fits, add_ratios, make_rows
    from archspec.units import parse_bytes

    if as_json + as_csv + as_latex > 1:
        raise typer.BadParameter("choose one of --json, --csv and --latex")
    batches, contexts = counts(batch, "--batch"), counts(context, "--context")
    chunk = None if prefill_chunk is None else _chunk(prefill_chunk)
    try:
        budget = None if gpu is None else parse_bytes(gpu)
        who = parse_allocator(allocator)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    terms = Terms(dtype.value, None if cache_dtype is None else cache_dtype.value, who, chunk)
    subjects = [_subject(path, set_) for path in files]
    contexts = _within([subject.plan for subject in subjects], contexts)
    rows_of_models = [make_rows(subject, batches, contexts, terms) for subject in subjects]
    if len(subjects) > 1:
        add_ratios(rows_of_models)
    for subject, rows in zip(subjects, rows_of_models, strict=True):
        if budget is not None:
            add_fits(rows, subject.plan, budget, terms)
        if measure or measure_passes:
            _measure(subject, rows, terms, measure_passes, device)
    if plot is not None:
        _plot(plot, subjects, batches, contexts, terms)
    report = tables.Report([subject.plan for subject in subjects], rows_of_models, terms, budget)
    show = tables.print_json if as_json else tables.print_csv if as_csv else tables.print_latex if as_latex else None
    (show or tables.print_text)(report)


def _chunk(text: str) -> int:
    chunk, *more = counts(text, "--prefill-chunk")
    if more:
        raise typer.BadParameter(f"one number, not {1 + len(more)}", param_hint="--prefill-chunk")
    return chunk


def _subject(path: Path, pairs: list[str] | None) -> "Subject":
    from archspec.cli.common import analysed
    from archspec.driver import plan as make_plan
    from archspec.graph.unshare import without_sharing
    from archspec.memory.report import Subject

    analysis = analysed(path, pairs)
    assert analysis.elaborated is not None
    assert analysis.graph is not None
    return Subject(analysis.plan(), make_plan(without_sharing(analysis.elaborated.spec, analysis.graph)))


def _within(plans: "list[AnyPlan]", contexts: tuple[int, ...]) -> tuple[int, ...]:
    """The contexts that all models have positions for; the longest one if they have them for none of these."""
    limits = [plan.max_context for plan in plans if plan.max_context is not None]
    if not limits or max(contexts) <= min(limits):
        return contexts
    short = next(plan for plan in plans if plan.max_context == min(limits))
    typer.echo(f"{short.name} has learned positions for {min(limits):,} tokens: longer contexts are left out", err=True)
    return tuple(context for context in contexts if context <= min(limits)) or (min(limits),)


def _measure(subject: "Subject", rows: "list[Row]", terms: "Terms", passes: bool, device: str) -> None:
    """Add what the runtime allocates to every row."""
    cache_dtype = terms.cache_dtype or terms.dtype
    if cache_dtype not in list(Dtype):
        raise CliError(f"the runtime has no caches of {cache_dtype}: measure another --cache-dtype")
    if passes and cache_dtype != terms.dtype:
        raise CliError("passes can be measured only where caches have the type of the weights: leave out --cache-dtype")
    for row in rows:
        exact = subject.plan.cache_bytes(row["batch"], row["context"], cache_dtype)
        needed = row["total_bytes"] if passes else exact
        _check_memory(needed, device)
        with torch_needed():
            from archspec.runtime.measuring import measure_cache, measure_passes

            where = (subject.plan, row["batch"], row["context"])
            try:
                found = measure_cache(*where, cache_dtype, device)
                row["measured_bytes"] = found.buffers
                if found.allocator is not None:
                    row["measured_allocator_bytes"] = found.allocator
                if passes:
                    _add_peaks(row, measure_passes(*where, terms.dtype, terms.chunk_of(subject.plan), device))
            except ValueError as error:
                raise CliError(str(error)) from error
            except (RuntimeError, MemoryError) as error:
                raise CliError(_refusal(needed)) from error


def _add_peaks(row: "Row", peaks: tuple[Any, Any]) -> None:
    for name, peak in zip(("prefill", "decode"), peaks, strict=True):
        row[f"measured_{name}_peak_bytes"] = peak.tensors
        row[f"measured_{name}_peak_bytes_with_scratch"] = peak.with_scratch


def _check_memory(needed: int, device: str) -> None:
    """Refuse before the system starts to kill processes."""
    from archspec.cli.common import available_memory

    available = available_memory() if device == "cpu" else None
    if available is not None and needed > available:
        raise CliError(_refusal(needed))


def _refusal(needed: int) -> str:
    return f"{needed:,} bytes cannot be allocated here: measure a smaller --context"


def _plot(
    path: Path, subjects: "list[Subject]", batches: tuple[int, ...], contexts: tuple[int, ...], terms: "Terms"
) -> None:
    """One model beside itself without sharing, if it shares, or several models."""
    from archspec.memory.plot import Line, save_plot

    plans = [(subject.plan.name, subject.plan) for subject in subjects]
    if len(subjects) == 1 and list(subjects[0].unshared.cache_terms()) != list(subjects[0].plan.cache_terms()):
        plans.append((f"{subjects[0].plan.name} without sharing", subjects[0].unshared))
    lines = [
        Line(name + (f", batch {batch}" if len(batches) > 1 else ""), plan, batch, terms)
        for batch in batches
        for name, plan in plans
    ]
    try:
        save_plot(path, lines, min(contexts), max(contexts))
    except ModuleNotFoundError as error:
        raise CliError(f"plots need {error.name}: install `archspec-lm[plot]`") from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--plot") from error
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from error
