"""`archspec sweep`: every combination, refused ones by their error, and the front of those that no other beats."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import archspec
from archspec.cli.main import app
from archspec.sweep.grid import Point, beats, pareto

SPEC = Path(__file__).parents[2] / "specs" / "sweep" / "yoco_split.arch"


def run(*options: object):
    return CliRunner().invoke(app, ["sweep", str(SPEC), *map(str, options)])


def test_numbers_are_those_of_the_plans():
    rows = json.loads(run("--set", "S=4-6", "--set", "W=256,512", "--context", "8K", "--json").stdout)
    assert [(row["S"], row["W"]) for row in rows] == [(s, w) for s in (4, 5, 6) for w in (256, 512)]
    for row in rows:
        plan = archspec.plan(archspec.parse(SPEC, settings={"S": row["S"], "W": row["W"]}))
        assert row["cache_bytes"] == plan.cache_bytes(1, 8192)
        assert row["parameters"] == plan.num_parameters()


def test_refused_combinations_say_why():
    result = run("--set", "S=8,40", "--csv")
    good, bad = csv.DictReader(io.StringIO(result.stdout))
    assert result.exit_code == 0
    assert (good["pareto"], good["error"]) == ("True", "")
    assert bad["error"].startswith("E0101")
    assert run("--set", "S=40").exit_code == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--set", "X=4"),
        ("--set", "S"),
        ("--set", "S=9-8"),
        ("--set", "S=1", "--set", "S=2"),
        ("--set", "S=1-999999999"),
    ],
)
def test_wrong_usage(options):
    assert run(*options).exit_code == 2
    assert run("--set", "S=4", "--metric", "beauty").exit_code == 2


def test_plot(tmp_path):
    for metrics, name in (("cache_bytes,parameters", "two.svg"), ("cache_bytes", "one.png")):
        result = run("--set", "S=4-8", "--set", "W=256,512", "--metric", metrics, "--plot", tmp_path / name)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "two.svg").read_text().count("<svg") == 1
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert run("--set", "S=4", "--plot", tmp_path / "a.xyz").exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.svg"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_front(metrics):
    found = [Point((("S", idx),), values) for idx, values in enumerate(metrics)]
    front = pareto(found)
    assert front == {i for i, one in enumerate(metrics) if not any(beats(other, one) for other in metrics)}
