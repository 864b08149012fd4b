"""`archspec show`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.common import Set

if TYPE_CHECKING:
    from archspec.driver import Analysis
    from archspec.figures.model import Figure


class Emit(StrEnum):
    spec = "spec"
    graph = "graph"
    plan = "plan"


class Format(StrEnum):
    text = "text"
    json = "json"


def show(
    specs: Annotated[list[Path], typer.Argument(help="A spec; with --html several.", metavar="FILE...")],
    emit: Annotated[Emit | None, typer.Option(help="An intermediate form, in place of the figure.")] = None,
    format: Annotated[Format, typer.Option(help="Text for people, JSON for programs.")] = Format.text,
    svg: Annotated[bool, typer.Option("--svg", help="The figure as SVG, for papers and pages.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="The figure as a mermaid flowchart.")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="The figure in the language of graphviz.")] = False,
    html: Annotated[bool, typer.Option("--html", help="One self-contained page, of several specs if given.")] = False,
    prefill: Annotated[bool, typer.Option("--prefill", help="What prefill runs, for which positions.")] = False,
    decode: Annotated[bool, typer.Option("--decode", help="What decoding one token runs.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file to write to, in place of the screen.", metavar="OUT")
    ] = None,
    set_: Set = None,
) -> None:
    """Draw a spec: layers, caches and who reads what; or print it as the compiler sees it. Works without torch.

    `--format json` alone prints the spec's JSON form, which every command takes in place of text (`archspec schema`).

    Example: archspec show specs/yoco/yoco_3b_window.arch
    """
    forms = {"--svg": svg, "--mermaid": mermaid, "--dot": dot, "--html": html}
    form = _only("forms", [name for name, chosen in forms.items() if chosen])
    phase = _only("phases", [name for name, chosen in {"prefill": prefill, "decode": decode}.items() if chosen])
    if emit is None and format is Format.json:
        emit = Emit.spec
    if emit is not None and (form or phase):
        raise typer.BadParameter(f"--emit prints no figure: leave out {form or '--' + phase}", param_hint="--emit")
    if len(specs) > 1 and not html:
        raise typer.BadParameter("several specs side by side need --html", param_hint="FILE...")
    from archspec.cli.common import analysed

    analyses = [analysed(path, set_) for path in specs]
    if emit is not None:
        _deliver(_intermediate(analyses[0], emit, format is Format.json), output)
    elif html:
        _deliver(_page(analyses, phase), output)
    elif form:
        _deliver(_drawn(_figure(analyses[0], phase), form), output)
    else:
        _print(_figure(analyses[0], phase), output)


def _only(what: str, chosen: list[str]) -> str:
    """The one option that was chosen of some that exclude one another; nothing if none was."""
    if len(chosen) > 1:
        raise typer.BadParameter(f"choose one of these {what}", param_hint=" / ".join(chosen))
    return chosen[0] if chosen else ""


def _intermediate(analysis: "Analysis", emit: Emit, as_json: bool) -> str:
    import json

    from archspec.describe import plan_json, plan_text
    from archspec.graph.dump import graph_json, graph_text
    from archspec.spec.format import format_spec

    assert analysis.elaborated is not None
    assert analysis.graph is not None
    spec, graph = analysis.elaborated.spec, analysis.graph
    match emit:
        case Emit.spec:
            return f"{spec.model_dump_json(indent=2)}\n" if as_json else format_spec(spec)
        case Emit.graph:
            return (json.dumps(graph_json(graph), indent=2) if as_json else graph_text(graph)) + "\n"
        case Emit.plan:
            plan = analysis.plan()
            return (json.dumps(plan_json(plan), indent=2) if as_json else plan_text(plan)) + "\n"


def _figure(analysis: "Analysis", phase: str) -> "Figure":
    from archspec.figures.drawing import figure_of
    from archspec.figures.phases import phase_figure

    plan = analysis.plan()
    match phase:
        case "prefill" | "decode":
            return phase_figure(plan, phase)
        case _:
            return figure_of(plan)


def _drawn(figure: "Figure", form: str) -> str:
    """The figure in one of the languages for drawings."""
    match form:
        case "--mermaid":
            from archspec.figures.mermaid import figure_mermaid

            return figure_mermaid(figure)
        case "--dot":
            from archspec.figures.dot import figure_dot

            return figure_dot(figure)
        case _:
            from archspec.figures.svg import figure_svg

            return figure_svg(figure)


def _page(analyses: list["Analysis"], phase: str) -> str:
    from archspec.driver import plan as make_plan
    from archspec.figures.page import Entry, page_html
    from archspec.graph.unshare import without_sharing

    entries = []
    for analysis in analyses:
        assert analysis.elaborated is not None
        assert analysis.graph is not None
        unshared = make_plan(without_sharing(analysis.elaborated.spec, analysis.graph))
        entries.append(Entry(analysis.plan(), unshared))
    match phase:
        case "prefill" | "decode":
            return page_html(entries, phase)
        case _:
            return page_html(entries)


def _print(figure: "Figure", output: Path | None) -> None:
    """The figure as text, coloured on a terminal."""
    from archspec.cli.common import use_colour
    from archspec.figures.terminal import print_figure
    from archspec.figures.text import figure_text

    if output is not None:
        _deliver(figure_text(figure) + "\n", output)
    else:
        print_figure(figure, sys.stdout, colour=use_colour(sys.stdout))


def _deliver(text: str, output: Path | None) -> None:
    """To the screen, or into a file; the file is whole or as it was."""
    from archspec.cli.common import CliError
    from archspec.files import write_text

    if output is None:
        sys.stdout.write(text)
        return
    try:
        write_text(output, text)
    except OSError as error:
        raise CliError(f"{output} cannot be written: {error.strerror or error}") from error
