"""`archspec show`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Emit(StrEnum):
    spec = "spec"
    graph = "graph"
    plan = "plan"


class Format(StrEnum):
    text = "text"
    json = "json"


def show(
    file: Annotated[Path, typer.Argument(help="A spec.", metavar="FILE")],
    emit: Annotated[
        Emit | None, typer.Option(help="Which form; the plan as text and the spec as JSON if nothing is said.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Text for people, JSON for programs.")] = Format.text,
) -> None:
    """Print a spec as the compiler sees it: canonical text, layer graph or plan. Works without torch.

    `--format json` alone prints the spec's JSON form, which every command takes in place of text (`archspec schema`).

    Example: archspec show specs/yoco/yoco_3b_window.arch --emit plan
    """
    import json

    from archspec.cli.common import analysed
    from archspec.describe import plan_json, plan_text
    from archspec.graph.dump import graph_json, graph_text
    from archspec.spec.format import format_spec

    analysis = analysed(file)
    assert analysis.elaborated is not None
    assert analysis.graph is not None
    spec, graph = analysis.elaborated.spec, analysis.graph
    as_json = format is Format.json
    match emit or (Emit.spec if as_json else Emit.plan):
        case Emit.spec:
            print(f"{spec.model_dump_json(indent=2)}\n" if as_json else format_spec(spec), end="")
        case Emit.graph:
            print(json.dumps(graph_json(graph), indent=2) if as_json else graph_text(graph))
        case Emit.plan:
            plan = analysis.plan()
            print(json.dumps(plan_json(plan), indent=2) if as_json else plan_text(plan))
