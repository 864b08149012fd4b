"""The JSON form: it loses nothing, its schema says what pydantic says, and findings name the place in the file."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from made import specs as any_specs
from pydantic import ValidationError

import archspec
from archspec.driver import analyse
from archspec.render import render_text, to_json
from archspec.source import Source
from archspec.spec.format import format_spec
from archspec.spec.json_places import Places
from archspec.spec.levels import spec_from_json
from archspec.spec.read_json import _paths, as_text
from archspec.spec.schema import json_schema
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import iterated_specs, specs

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.arch"))
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def test_published_schema_is_up_to_date() -> None:
    """`archspec schema > docs/archspec.schema.json` brings it up to date."""
    assert json.loads((ROOT / "docs" / "archspec.schema.json").read_text()) == SCHEMA


def test_schema_is_one_and_describes_itself() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"]
    assert SCHEMA["title"]
    assert SCHEMA["description"]
    for name, definition in SCHEMA["$defs"].items():
        assert definition["title"] == name
        assert definition["description"]
    assert "a token does not see itself" in SCHEMA["$defs"]["Settings"]["properties"]["diagonal"]["description"]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_shipped_specs_fit_the_schema(path: Path) -> None:
    VALIDATOR.validate(json.loads(archspec.parse(path).model_dump_json()))


@settings(max_examples=80, deadline=None)
@given(specs() | iterated_specs() | level_specs())
def test_text_json_and_python_say_the_same(spec) -> None:
    """text -> JSON -> pydantic -> text, for every spec that the checker accepts."""
    text = format_spec(spec)
    dumped = archspec.parse_spec_text(text).model_dump_json()
    VALIDATOR.validate(json.loads(dumped))
    assert spec_from_json(dumped) == spec
    assert format_spec(spec_from_json(dumped)) == text


def _inner(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, child in children for each in _inner(child, (*path, key)))]


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


WRONG = st.sampled_from([None, True, "x", "last", -1, 0, 7, 0.5, [], {}, [1], {"kind": "rms"}, "attend", "none"])


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """The JSON form of a spec with one value replaced, taken out or added."""
    data = json.loads(draw(any_specs | specs() | level_specs()).model_dump_json(exclude_none=draw(st.booleans())))
    path = draw(st.sampled_from(_inner(data)[1:]))
    place = _at(data, path[:-1])
    match draw(st.integers(0, 2)):
        case 0:
            place[path[-1]] = draw(WRONG)
        case 1:
            del place[path[-1]]
        case _ if isinstance(place, dict):
            place[draw(st.sampled_from(["extra", "kind", "layer", "size"]))] = draw(WRONG)
    return data


@settings(max_examples=250, deadline=None)
@given(mutated())
def test_schema_and_pydantic_agree_on_mutated_specs(data) -> None:
    try:
        spec_from_json(json.dumps(data))
        accepted = True
    except ValidationError:
        accepted = False
    assert VALIDATOR.is_valid(data) == accepted


@settings(max_examples=120, deadline=None)
@given(mutated(), st.sampled_from([None, 1]))
def test_findings_of_mutated_specs_are_located(tmp_path_factory, data, indent) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.json"
    path.write_text(json.dumps(data, indent=indent))
    analysis = analyse(path)
    for item in to_json(analysis.diagnostics):
        if item["code"] == "E0018":
            assert item["span"]["file"] == str(path)
            assert item["span"]["start"]["offset"] < item["span"]["end"]["offset"]
        else:
            assert "line" in item["notes"][-1]
    assert render_text(analysis.diagnostics) or analysis.ok


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_places_of_json_values(value, indent, ascii) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    places = Places(Source("t.json", text))
    for path in _inner(value):
        place = places.find(path)
        assert place.path == path
        assert json.loads(place.span.text) == _at(value, path)
        if path and isinstance(path[-1], str):
            assert json.loads(place.key_span.text) == path[-1]


BASE = json.loads(archspec.parse(ROOT / "specs" / "nano" / "nano_yoco.arch").model_dump_json())


def findings(tmp_path: Path, data: Any, text: str | None = None) -> list[dict[str, Any]]:
    path = tmp_path / "m.json"
    path.write_text(json.dumps(data, indent=2) if text is None else text)
    return to_json(analyse(path).diagnostics)


def shown(tmp_path: Path, item: dict[str, Any]) -> str:
    text = (tmp_path / "m.json").read_text()
    return text[item["span"]["start"]["offset"] : item["span"]["end"]["offset"]]


@pytest.mark.parametrize(
    ("path", "value", "message", "marked"),
    [
        (("num_layers",), "8", "`num_layers` must be a valid integer", '"8"'),
        (("statements", 0, "mixer"), "atend", "`statements[0].mixer` must be 'attend',", '"atend"'),
        (("statements", 2, "ranges", 0, "last"), 2.5, "`statements[2].ranges[0].last` must be", "2.5"),
        (("statements", 1, "kind"), "cash", "`statements[1].kind` must be one of", '"cash"'),
        (("defaults", "wdith"), 3, "`defaults.wdith` is no field of a spec", '"wdith"'),
        (("embedding", "scale"), -1, "`embedding.scale` must be greater than 0 or 'sqrt(width)'", "-1"),
    ],
)
def test_wrong_values_are_marked_in_the_file(tmp_path: Path, path, value, message, marked) -> None:
    data = deepcopy(BASE)
    _at(data, path[:-1])[path[-1]] = value
    (item,) = findings(tmp_path, data)
    assert item["message"].startswith(message)
    assert shown(tmp_path, item) == marked


def test_missing_values_are_marked_where_they_belong(tmp_path: Path) -> None:
    data = deepcopy(BASE)
    del data["statements"][1]["layer"]
    del data["statements"][2]["kind"]
    one, other = findings(tmp_path, data)
    assert one["message"] == "`statements[1].layer` is missing"
    assert other["message"] == "`statements[2].kind` is missing"
    assert (tmp_path / "m.json").read_text()[one["span"]["start"]["offset"] :].startswith('{\n      "kind": "cache"')


def test_text_that_is_no_json(tmp_path: Path) -> None:
    (item,) = findings(tmp_path, None, '{\n  "name": "ü", "x" 3}')
    assert item["message"] == "invalid JSON: expected `:`"
    assert item["span"]["start"] == {"line": 2, "column": 20, "offset": 21}


def test_findings_of_the_checker_say_where_in_the_file(tmp_path: Path) -> None:
    data = deepcopy(BASE)
    data["statements"][2]["source"]["layer"] = 40
    (item,) = findings(tmp_path, data)
    assert item["code"] == "E0201"
    lines = (tmp_path / "m.json").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if '"source": {' in text)
    assert f"`statements[2].source`, line {line}, column" in item["notes"][-1]
    assert item["span"]["file"].endswith("m.json (as text)")


@settings(max_examples=60, deadline=None)
@given(specs() | level_specs())
def test_every_part_of_the_text_form_leads_to_its_place(spec) -> None:
    """The path of a part is there in the JSON form, as far as it goes, and numbers in both are the same."""
    dumped = spec.model_dump_json()
    data = json.loads(dumped)
    for span, path in _paths(as_text(Source("m.json", dumped), spec)):
        value = _at(data, path)
        if isinstance(value, int) and not isinstance(value, bool):
            assert str(value) in span.text
        if isinstance(value, str) and path[-1] in ("name", "mixer", "emit"):
            assert value in span.text
