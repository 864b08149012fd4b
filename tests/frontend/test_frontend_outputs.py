"""The same findings as JSON, SARIF, GitHub commands and coloured text."""

import json
import re
from pathlib import Path

import pytest
from pages import told
from sarif_model import Log

from archspec.driver import analyse, analyse_text
from archspec.render import render_text, to_json
from archspec.render.github import render_github
from archspec.render.sarif import to_sarif
from archspec.source import Span

FOLDER = Path(__file__).parent
PROGRAMS = sorted([*(FOLDER / "errors").glob("*.arch"), *(FOLDER / "broken").glob("*.arch")])
each_program = pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
HEADER = "layers 2, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000"


def found_in(*lines: str, name: str = "m.arch"):
    text = "".join(f"  {line}\n" for line in (HEADER, *lines))
    return analyse_text(f"model m {{\n{text}}}\n", name).diagnostics


@each_program
def test_sarif_is_valid(path):
    found = analyse(path).diagnostics
    log = Log.model_validate_json(json.dumps(to_sarif(found, "0.1.0")))
    (run,) = log.runs
    assert [(result.rule_id, result.level) for result in run.results] == [(d.code, d.severity) for d in found]


def test_sarif_shows_places_labels_and_fixes():
    (found,) = found_in("layers 1 attend", "layers 2 cross-attend to cache 1", name="a folder/m.arch")
    (run,) = Log.model_validate_json(json.dumps(to_sarif([found], "0"))).runs
    (result,) = run.results
    place = result.locations[0].physical_location
    assert place.artifact_location.uri == "a%20folder/m.arch"
    region = place.region
    assert (region.start_line, region.start_column, region.end_line, region.end_column) == (4, 28, 4, 35)
    (fix,) = result.fixes
    assert fix.properties == {"applicability": "safe"}
    assert fix.artifact_changes[0].replacements[0].inserted_content.text == "cache@1"
    assert run.tool.driver.rules[0].id == "E0004"
    assert "What: " in run.tool.driver.rules[0].help.text
    (found,) = found_in("layers 1-2 attend", "layers 2 attend")
    (run,) = Log.model_validate_json(json.dumps(to_sarif([found], "0"))).runs
    assert run.results[0].related_locations[0].message.text == "layer 2 declared first here"


def test_sarif_columns_count_utf16():
    """A wide face is two UTF-16 code units and one character."""
    (first,) = [found for found in found_in("layers 1-2 attend 😀") if found.code == "E0007"]
    (run,) = Log.model_validate_json(json.dumps(to_sarif([first], "0"))).runs
    region = run.results[0].locations[0].physical_location.region
    assert first.span.text == "😀"
    assert (region.start_column, region.end_column) == (first.span.column, first.span.column + 2)
    after = type(first)(**vars(first) | {"span": Span(first.span.source, first.span.end, first.span.end)})
    (run,) = Log.model_validate_json(json.dumps(to_sarif([after], "0"))).runs
    assert run.results[0].locations[0].physical_location.region.start_column == after.span.column + 1


def test_sarif_of_a_clean_file_and_of_one_that_cannot_be_read(tmp_path):
    (run,) = Log.model_validate_json(json.dumps(to_sarif([], "0"))).runs
    assert run.results == []
    (run,) = Log.model_validate_json(json.dumps(to_sarif(analyse(tmp_path / "no.arch").diagnostics, "0"))).runs
    location = run.results[0].locations[0].physical_location
    assert location.region is None
    assert location.artifact_location.uri.startswith("file:///")


def unescaped(text: str) -> str:
    return re.sub("%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text)


@each_program
def test_github_commands_read_back(path):
    found = analyse(path).diagnostics
    lines = render_github(found).splitlines()
    assert len(lines) == len(found)
    for line, diagnostic in zip(lines, found, strict=True):
        command = re.fullmatch(r"::(error|warning) ([^:]*)::(.*)", line)
        properties = dict(pair.split("=", 1) for pair in command[2].split(","))
        assert command[1] == diagnostic.severity
        assert unescaped(properties["file"]) == diagnostic.span.source.name
        assert properties["title"] == f"archspec {diagnostic.code}"
        if diagnostic.span.source.text:
            assert int(properties["line"]) == diagnostic.span.line
        assert unescaped(command[3]).startswith(diagnostic.message())


def test_github_escapes():
    (found,) = found_in("layers 1-2 attend, rope 10000 on 125%", name="a,b:c%.arch")
    line = render_github([found])
    assert "file=a%2Cb%3Ac%25.arch," in line
    assert "`rope on ...%25` is at most 100%25" in line


@each_program
def test_json_has_every_field(path):
    for item, diagnostic in zip(to_json(analyse(path).diagnostics), analyse(path).diagnostics, strict=True):
        assert (item["code"], item["severity"], item["message"]) == (
            diagnostic.code,
            diagnostic.severity,
            diagnostic.message(),
        )
        assert item["span"]["file"] == diagnostic.span.source.name
        assert item["page"] == f"docs/diagnostics.md#{diagnostic.code.lower()}"
        assert len(item["labels"]) == len(diagnostic.labels())
        for shown, help_ in zip(item["helps"], diagnostic.helps(), strict=True):
            assert len(shown.get("edits", ())) == len(help_.edits)
            assert shown.get("applicability", "unsafe") == (help_.applicability if help_.edits else "unsafe")
    json.dumps(to_json(analyse(path).diagnostics))


@each_program
def test_colours_change_no_letter(path):
    found = told(analyse(path)).diagnostics
    coloured = render_text(found, colour=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_text(found)
    assert coloured.count("\x1b[0m") == len(re.findall(r"\x1b\[[1-9]", coloured)) > 0
