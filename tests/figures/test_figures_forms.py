"""Every spec in every form: text that fits a terminal, graphs that their programs read."""

import io
import re
import shutil
import subprocess

import pytest
from drawn_specs import HARD, SPECS, hard, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

import archspec
from archspec.figures.dot import figure_dot
from archspec.figures.drawing import figure_of
from archspec.figures.mermaid import figure_mermaid
from archspec.figures.model import Figure
from archspec.figures.phases import phase_figure
from archspec.figures.terminal import print_figure
from archspec.figures.text import WIDTH, figure_text
from archspec.levels_plan import AnyPlan
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import iterated_specs, specs

NODE = re.compile(r'^ *(\w+)(?:\[|\(\[)"[^"]*"(?:\]|\]\)):::(\w+)$')
EDGE = re.compile(r'^ *(\w+) (?:-->|==>|<-->|-\.->)(?:\|"[^"]*"\|)? (\w+)$')
OTHER = re.compile(r'^(?:flowchart BT| *direction BT| *subgraph \w+\["[^"]*"\]| *end| *classDef \w+ [\w:#,]+)$')


def figures(plan: AnyPlan) -> list[Figure]:
    return [figure_of(plan), phase_figure(plan, "prefill"), phase_figure(plan, "decode")]


def check_text(figure: Figure) -> None:
    text, plain = figure_text(figure), figure_text(figure, ascii_only=True)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert plain.isascii()
    assert [len(line) for line in text.splitlines()] == [len(line) for line in plain.splitlines()]
    for tower in figure.towers:
        for item in tower.items:
            assert re.search(rf"^\W*{item.layers[0]}\b.* {re.escape(item.word)}\b", text, re.MULTILINE)
    for store in (store for tower in figure.towers for store in tower.stores if store.shared):
        assert f"reads {store.name}"[:20] in text


def check_mermaid(figure: Figure) -> None:
    """Each line is a node, an edge between nodes or one of few others: mermaid 11 reads all that these allow."""
    nodes, edges, open_graphs = set(), [], 0
    for line in figure_mermaid(figure).splitlines():
        if match := NODE.match(line):
            assert match[1] not in nodes
            nodes.add(match[1])
        elif match := EDGE.match(line):
            edges.append((match[1], match[2]))
        else:
            assert OTHER.match(line), line
            open_graphs += line.strip().startswith("subgraph") - (line.strip() == "end")
    assert open_graphs == 0
    assert {node for edge in edges for node in edge} == nodes


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_shipped_specs(path):
    for figure in figures(plan_of(path)):
        check_text(figure)
        check_mermaid(figure)


@pytest.mark.parametrize("name", HARD)
def test_hard_specs(name):
    for figure in figures(hard(name)):
        check_text(figure)
        check_mermaid(figure)


@settings(max_examples=60, deadline=None)
@given(st.one_of(specs(max_layers=9), iterated_specs(max_layers=8), level_specs(iterate=True)))
def test_generated_specs(spec):
    for figure in figures(archspec.plan(spec)):
        check_text(figure)
        check_mermaid(figure)


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_graphviz_reads_all_of_them():
    plans = [*(plan_of(path) for path in SPECS), *(hard(name) for name in HARD)]
    text = "".join(figure_dot(figure) for plan in plans for figure in figures(plan))
    done = subprocess.run(["dot", "-Tcanon"], input=text, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("digraph") == 3 * len(plans)


def test_the_picture_of_a_sharing_stack():
    lines = figure_text(figure_of(hard("crossing"))).splitlines()
    assert [line[39:] for line in lines[6:16]] == [
        "      ●─cache@1: 4 x 16, all",
        "    ●─┼─cache@2: 4 x 16, all",
        "●───┼─┼─cache@3: 4 x 16, all",
        "│ ●─┼─┼─cache@4: 4 x 16, all",
        "last position only ".ljust(41, "─"),
        "│ ├─┼─┼─reads cache@4",
        "│ │ │ ├─reads cache@1",
        "╰─┼─┼─┼─reads cache@3",
        "  │ ╰─┼─reads cache@2",
        "  ╰───┼─reads cache@4",
    ]


def test_the_picture_of_brackets():
    assert figure_text(figure_of(hard("iterated_pairs"))).splitlines()[4:12] == [
        "    layers  mixer         heads   window  cache",
        "            embedding",
        "╭─ x 6: layers 1-12",
        "│ ╭─ iterate: 3 forward + 1 backward passes",
        "│ │ 1       cross-attend  4 x 16  all     ╭─reads cache@2, earlier tokens",
        "│ ╰ 2       K/V                           ●─cache@2: 4 x 16, all",
        "│   ── prefill exit after cache@12 (the last of x 6); below, last position only",
        "╰   2       attend        4 x 16  all     ╰─reads cache@2",
    ]


def test_a_terminal_without_lines_gets_ascii():
    figure = figure_of(plan_of(next(path for path in SPECS if path.stem == "tinyllama_lckv_w2")))
    for encoding, plain in (("utf-8", False), ("ascii", True), ("latin-1", True), ("cp437", True)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        print_figure(figure, stream, colour=False)
        stream.seek(0)
        assert stream.read().isascii() == plain
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_figure(figure, stream, colour=True)
    stream.seek(0)
    assert re.sub(r"\x1b\[[0-9;]*m", "", stream.read()).split() == figure_text(figure).split()
