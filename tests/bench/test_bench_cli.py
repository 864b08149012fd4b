"""`archspec bench`: what it prints and writes, and what it refuses before anything is measured."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from typer.testing import CliRunner

from archspec.bench import machine, rounds, suites
from archspec.bench.page import COLUMNS
from archspec.bench.report import Report
from archspec.cli.main import app

SPECS = Path(__file__).parents[2] / "specs"

YOCO, BLOCK, LLAMA = (str(SPECS / "nano" / f"nano_{name}.arch") for name in ("yoco", "block", "llama"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Not compiled, one run a sample, no 512 MB to read: what is tested is never a time."""
    monkeypatch.setattr(rounds, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(machine, "READ_BYTES", 1 << 16)
    with torch.compiler.set_stance("force_eager"):
        yield


def run(*options: object) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, options)])


def measured(tmp_path: Path, *options: object) -> tuple[Any, dict[str, Any]]:
    path = tmp_path / "found.json"
    result = run(*options, "--json", path)
    assert result.exit_code == 0, result.output
    return result, json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_packages_stand_beside_what_they_were_made_of(tmp_path: Path) -> None:
    options = ("--packages", "--workload", "decode,train", "--context", "24", "--rounds", "2")
    _, found = measured(tmp_path, LLAMA, *options)
    (section,) = found["sections"]
    assert [(model["name"], model["role"]) for model in section["models"]] == [
        ("nano_llama", "spec"),
        ("nano_llama, package", "package"),
    ]
    assert section["left"] == []
    own, package, trained = section["lines"]
    assert (package["model"], trained["workload"]["kind"]) == ("nano_llama, package", "train")
    assert all(package[size] == own[size] for size in ("bytes_per_step", "cache_bytes"))


def test_every_model_at_every_workload(tmp_path: Path) -> None:
    options = ("--workload", "prefill,decode,train", "--context", "24", "--batch", "1,2", "--rounds", "3")
    result, found = measured(tmp_path, YOCO, BLOCK, *options)
    (section,) = found["sections"]
    names = ["nano_yoco", "nano_block", "nano_yoco-dense", "nano_block-dense"]
    assert [model["name"] for model in section["models"]] == names
    assert [model["role"] for model in section["models"]] == ["spec", "spec", "dense", "dense"]
    assert section["reference"] == "nano_yoco-dense"
    assert section["left"] == []
    cells = [
        (line["workload"]["kind"], line["workload"]["context"], line["workload"]["batch"]) for line in section["lines"]
    ]
    kinds = [(kind, context, batch) for kind in ("prefill", "decode", "train") for context in (24,) for batch in (1, 2)]
    assert cells == [cell for cell in kinds for _ in names]
    for line in section["lines"]:
        assert len(line["rates"]) == 3
        assert line["speed"]["low"] <= line["speed"]["median"] <= line["speed"]["high"]
        assert (line["model"] == "nano_yoco-dense") <= (line["speed"]["median"] == 1.0)
        assert (line["bandwidth_share"] is not None) == (line["workload"]["kind"] == "decode")
    shown = [
        row for row in result.stdout.splitlines() if row.strip().startswith(("prefill at", "decode at", "train at"))
    ]
    assert len(shown) == len(section["lines"])
    assert "1.00 is nano_yoco-dense" in result.stdout


def test_the_json_fits_its_schema(tmp_path: Path) -> None:
    _, found = measured(tmp_path, LLAMA, "--context", "24", "--rounds", "1")
    jsonschema.validate(found, Report.model_json_schema())
    assert Report.model_validate(found).model_dump(mode="json") == found
    (section,) = found["sections"]
    assert [model["name"] for model in section["models"]] == ["nano_llama"]  # it is its own dense model
    assert found["machine"]["versions"]["torch"] == torch.__version__
    assert found["read_bandwidth"]


def test_shares_are_bytes_by_time_by_bandwidth(tmp_path: Path) -> None:
    _, found = measured(tmp_path, LLAMA, "--context", "24", "--workload", "decode", "--rounds", "1", "--batch", "2")
    (line,) = found["sections"][0]["lines"]
    steps_per_second = line["tokens_per_second"]["median"] / 2
    best = max(found["read_bandwidth"].values())
    assert line["bandwidth_share"] == pytest.approx(line["bytes_per_step"] * steps_per_second / best)


def test_budgets_give_each_model_a_batch_of_its_own(tmp_path: Path) -> None:
    options = ("--workload", "budget", "--budget", "1MiB", "--context", "64", "--rounds", "1")
    _, found = measured(tmp_path, LLAMA, BLOCK, "--no-baseline", *options)
    lines = found["sections"][0]["lines"]
    assert [line["model"] for line in lines] == ["nano_llama", "nano_block"]
    assert [line["cache_bytes"] <= 1 << 20 for line in lines] == [True, True]
    assert lines[0]["batch"] < lines[1]["batch"]
    _, found = measured(tmp_path, LLAMA, BLOCK, "--no-baseline", *options[:3], "100KiB", *options[4:])
    section = found["sections"][0]
    assert [line["model"] for line in section["lines"]] == ["nano_block"]
    assert section["lines"][0]["speed"] is None  # nothing to refer to
    assert [(left["model"], left["why"]) for left in section["left"]] == [
        ("nano_llama", "one sequence has caches of 256 KiB")
    ]


def test_models_of_one_name_stay_apart(tmp_path: Path) -> None:
    other = tmp_path / "other.arch"
    other.write_text(Path(YOCO).read_text().replace("window 64", "window 32"))
    _, found = measured(tmp_path, YOCO, other, "--context", "24", "--workload", "prefill", "--rounds", "1")
    names = [model["name"] for model in found["sections"][0]["models"]]
    assert names == ["nano_yoco", "nano_yoco-2", "nano_yoco-dense"]


def test_what_one_model_cannot_do_stops_no_other(tmp_path: Path) -> None:
    _, found = measured(
        tmp_path, LLAMA, BLOCK, "--no-baseline", "--context", "6", "--workload", "decode", "--rounds", "1"
    )
    section = found["sections"][0]
    assert [line["model"] for line in section["lines"]] == ["nano_llama"]
    assert [(left["model"], "from a context of 8" in left["why"]) for left in section["left"]] == [("nano_block", True)]


def test_exit_code_where_nothing_was_measured() -> None:
    result = run(BLOCK, "--no-baseline", "--context", "6", "--workload", "decode")
    assert result.exit_code == 1
    assert "not measured: nano_block" in result.stdout


def test_the_page_shows_every_line(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    options = ("--context", "24", "--rounds", "2", "--page", folder, "--plot", tmp_path / "speeds.svg")
    result, found = measured(tmp_path, YOCO, *options)
    (path,) = folder.iterdir()
    assert re.fullmatch(r"nano_yoco_[a-z0-9-]+_\d{6}\.md", path.name)
    text = path.read_text()
    rows = [row for row in text.splitlines() if row.startswith("| ")]
    assert rows[0] == "| " + " | ".join(COLUMNS) + " |"
    assert len(rows) == 1 + len(found["sections"][0]["lines"])
    assert found["command"] in text
    assert f"torch {torch.__version__}" in text
    assert not re.search(r"\d (ms|milliseconds)\b", text)
    assert (tmp_path / "speeds.svg").read_text().count("nano_yoco-dense") >= 1
    for name in ("found.json", "speeds.svg", path.name):
        assert f"{name}\n" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give specs"),
        ((LLAMA, "--suite", "cpu"), "give specs"),
        (("--suite", "abacus"), "unknown suite `abacus`; known: cpu, gpu"),
        ((LLAMA, "--workload", "decode,swim"), "unknown workload `swim`"),
        ((LLAMA, "--dtype", "float12"), "unknown dtype `float12`"),
        ((LLAMA, "--context", "4X"), "`4X` is no number of tokens"),
        ((LLAMA, "--workload", "budget"), "go together"),
        ((LLAMA, "--budget", "1GB"), "go together"),
        ((LLAMA, "--workload", "budget", "--budget", "many"), "`many` is no amount of memory"),
        ((LLAMA, "--device", "warp"), "unknown device 'warp'"),
        ((LLAMA, "--rounds", "0"), "greater than or equal to 1"),
        ((LLAMA, "--plot", "speeds.txt"), "no picture that can be written"),
        ((LLAMA, "--json", "nowhere/found.json"), "cannot be written"),
        ((LLAMA, "--page", LLAMA), "is no folder"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], message: str) -> None:
    result = run(*options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_broken_spec_is_located_and_nothing_is_written(tmp_path: Path) -> None:
    broken = tmp_path / "broken.arch"
    broken.write_text(Path(YOCO).read_text().replace("cache@4", "cache@7"))
    result = run(broken, "--json", tmp_path / "found.json", "--page", tmp_path / "pages")
    assert result.exit_code == 1
    assert "broken.arch:" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.arch"]


@pytest.mark.parametrize("name", suites.SUITES)
def test_suites_run(tmp_path: Path, name: str) -> None:
    """In sizes that end in seconds: every section has its reference, and every model its lines."""
    _, found = measured(tmp_path, "--suite", name, "--tiny", "--rounds", "1")
    assert found["theme"] == name
    assert [section["left"] for section in found["sections"]] == [[] for _ in found["sections"]]
    for section in found["sections"]:
        seen = {line["model"] for line in section["lines"]}
        assert section["reference"] in seen
        assert {model["name"] for model in section["models"] if model["role"] != "peer"} <= seen
        assert all(line["speed"] is not None for line in section["lines"])


@pytest.mark.parametrize(
    "part", [part for name in suites.SUITES for part in suites.SUITES[name]], ids=lambda part: part.title
)
def test_suites_name_what_there_is(part: suites.Part) -> None:
    assert all((SPECS / f"{name}.arch").is_file() for name in part.specs)
    assert len(set(part.workloads)) == len(part.workloads) > 0
    assert {load.dtype for load in part.workloads} <= {"float32", "bfloat16"}
