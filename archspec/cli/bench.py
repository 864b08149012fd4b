"""`archspec bench`."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.common import CliError, Dtype, Set, analysed, available_memory, counts, plots_needed, torch_needed

if TYPE_CHECKING:
    import torch

    from archspec.bench.report import Report
    from archspec.bench.running import Comparison
    from archspec.bench.workloads import Workload


def bench(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Specs to measure side by side.", metavar="SPEC...")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="A fixed set of specs and workloads instead: cpu, gpu.")] = None,
    workload: Annotated[
        str, typer.Option(help="What to measure, with commas: prefill, decode, budget, compile, train.")
    ] = "prefill,decode",
    batch: Annotated[str, typer.Option(help="Sequences; several with commas.")] = "1",
    context: Annotated[
        str, typer.Option(help="Tokens a sequence; several with commas, K and M are 1024-based.")
    ] = "512",
    dtype: Annotated[str, typer.Option(help="Element types; several with commas.")] = "float32",
    budget: Annotated[
        str | None, typer.Option(help="Of `budget`: bytes that caches may take, as 302MB or 8GiB.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds in which every model runs once.", min=1)] = 5,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; as it chooses unless given.", min=1)] = None,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure transformers too, for specs that are a Llama.")
    ] = False,
    packages: Annotated[
        bool, typer.Option("--packages", help="Measure packages too, as `compile --aot` writes them.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Measure the dense model of each spec too.")
    ] = True,
    device: Annotated[str | None, typer.Option(help="Where to run; cpu, or cuda for `--suite gpu`.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers as JSON.", metavar="FILE")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the speeds: .png, .svg or .pdf.", metavar="FILE")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page into this folder.", metavar="DIR")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", hidden=True)] = False,
    set_: Set = None,
) -> None:
    """Measure models side by side: speed as multiples of the dense model's, and the bytes that they take.

    Exit code 1 if nothing could be measured.

    Example: archspec bench specs/nano/nano_yoco.arch --workload prefill,decode --batch 1,8 --context 512,4K
    """
    if (suite is None) == (not files):
        raise typer.BadParameter("give specs, or --suite cpu or gpu")
    outputs = _checked_outputs(json_file, plot, page)
    with torch_needed(), _usage():
        import torch

        from archspec.bench.session import run
        from archspec.runtime.build import pick_device

        target = pick_device(device or ("cuda" if suite == "gpu" and not tiny else "cpu"))
        if threads is not None:
            torch.set_num_threads(threads)
        if suite is not None:
            theme, comparisons = suite, _suite(suite, tiny)
        else:
            loads = _workloads(workload, batch, context, dtype, budget)
            comparisons = [_comparison(files or [], set_, loads, baseline, peers=peers, packages=packages)]
            theme = comparisons[0].entries[0].name
        if any(comparison.peers for comparison in comparisons):
            _check_peers(comparisons)
        with _progress() as notify:
            report = run(
                theme,
                comparisons,
                device=target,
                rounds=rounds,
                command=f"archspec {shlex.join(sys.argv[1:])}",
                free_memory=lambda: _free_memory(target),
                notify=notify,
            )
    _print(report)
    outputs(report)
    if not any(section.lines for section in report.sections):
        raise typer.Exit(1)


@contextmanager
def _usage() -> Iterator[None]:
    """Names and sizes that do not exist are wrong usage."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error


def _workloads(kinds: str, batch: str, context: str, dtype: str, budget: str | None) -> "tuple[Workload, ...]":
    """Every combination; those of one dtype stand together, so that models are built once for each."""
    from archspec.bench.workloads import KINDS, Workload
    from archspec.units import parse_bytes

    chosen, dtypes = kinds.split(","), dtype.split(",")
    for known, names, what, option in (
        (tuple(KINDS), chosen, "workload", "--workload"),
        (tuple(Dtype), dtypes, "dtype", "--dtype"),
    ):
        for name in names:
            if name not in known:
                raise typer.BadParameter(f"unknown {what} `{name}`; known: {', '.join(known)}", param_hint=option)
    if ("budget" in chosen) != (budget is not None):
        raise typer.BadParameter("`--workload budget` and `--budget BYTES` go together", param_hint="--budget")
    size = None if budget is None else parse_bytes(budget)
    batches, contexts = counts(batch, "--batch"), counts(context, "--context")
    loads: list[Workload] = []
    for name in dtypes:
        for kind in (kind for kind in KINDS if kind in chosen):
            if kind == "compile":
                loads.append(Workload(kind, name, batches[0]))
            elif kind == "budget":
                loads += [Workload(kind, name, 1, tokens, size) for tokens in contexts]
            else:
                loads += [Workload(kind, name, count, tokens) for tokens in contexts for count in batches]
    return tuple(dict.fromkeys(loads))


def _comparison(
    files: list[Path], pairs: list[str] | None, loads: "tuple[Workload, ...]", baseline: bool, **others: bool
) -> "Comparison":
    from archspec.bench.entries import make_entries
    from archspec.bench.running import Comparison

    entries, reference = make_entries([analysed(path, pairs) for path in files], baseline)
    return Comparison("Side by side", entries, loads, reference=reference, **others)


def _suite(name: str, small: bool) -> "list[Comparison]":
    from archspec.bench.session import comparison_of
    from archspec.bench.suites import SUITES, specs_folder, tiny

    if name not in SUITES:
        raise typer.BadParameter(f"unknown suite `{name}`; known: {', '.join(SUITES)}", param_hint="--suite")
    folder = specs_folder()
    parts = [tiny(part) for part in SUITES[name]] if small else SUITES[name]
    return [comparison_of(part, folder, analysed) for part in parts if part.workloads]


def _check_peers(comparisons: "list[Comparison]") -> None:
    """Peers are what the user counts on: says why there are none."""
    from archspec.bench.peers import llama_config

    if not any(llama_config(entry.plan) for comparison in comparisons for entry in comparison.entries):
        typer.echo("no peers: transformers has a Llama, and none of these models is one", err=True)
    if find_spec("transformers") is None:
        raise CliError("peers need transformers: install `archspec-lm[hf]`")


def _checked_outputs(json_file: Path | None, plot: Path | None, page: Path | None) -> "Callable[[Report], None]":
    """Refuses what could not be written before anything is measured; gives what writes it then."""
    if plot is not None:
        with plots_needed():
            from archspec.bench.chart import check_chart

            check_chart(plot)
    for path, option in ((json_file, "--json"), (plot, "--plot")):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise typer.BadParameter(f"{path} cannot be written: no file, or in no folder", param_hint=option)
    if page is not None and page.exists() and not page.is_dir():
        raise typer.BadParameter(f"{page} is no folder", param_hint="--page")
    return lambda report: _write(report, json_file, plot, page)


def _write(report: "Report", json_file: Path | None, plot: Path | None, page: Path | None) -> None:
    from archspec.files import write_text

    try:
        if json_file is not None:
            write_text(json_file, report.model_dump_json(indent=2) + "\n")
        if plot is not None:
            from archspec.bench.chart import save_chart

            save_chart(plot, report)
        if page is not None:
            from archspec.bench.page import page as text_of
            from archspec.bench.page import page_name

            page.mkdir(parents=True, exist_ok=True)
            page = page / page_name(report)
            write_text(page, text_of(report))
    except OSError as error:
        raise CliError(f"cannot write {error.filename}: {error.strerror}") from error
    for path in (json_file, plot, page):
        if path is not None:
            print(f"wrote {path}")


def _free_memory(device: "torch.device") -> int | None:
    if device.type == "cpu":
        return available_memory()
    import torch

    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


@contextmanager
def _progress() -> "Iterator[Callable[[str], object]]":
    """What is going on, on the terminal; silent elsewhere."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)


def _print(report: "Report") -> None:
    from archspec.bench.page import COLUMNS, cells
    from archspec.cli.tables import Table, print_table

    reads = ", ".join(f"{name} {speed / 1e9:.1f} GB/s" for name, speed in report.read_bandwidth.items())
    print(f"{report.machine.hardware}; read bandwidth: {reads}")
    for section in report.sections:
        print(f"\n{section.title}; 1.00 is {section.reference}")
        headings = (*COLUMNS[:2], *(f">{name}" for name in COLUMNS[2:]))
        if section.lines:
            print_table(Table(headings, tuple(cells(line) for line in section.lines)))
        for left in section.left:
            print(f"not measured: {left.model}, {left.workload}: {left.why}")
