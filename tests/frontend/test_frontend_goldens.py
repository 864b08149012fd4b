"""One minimal program a code, with the exact text of its messages beside it.

`UPDATE_GOLDENS=1 pytest tests/frontend/test_frontend_goldens.py` writes the `.err` files anew, and for a code without
any program the example on its page; read the diff. A code that is new takes two runs.
"""

import os
import re
from pathlib import Path

import pytest
from pages import program, told

import archspec.driver  # noqa: F401  (registers every code)
from archspec.diagnostics import REGISTRY, Edit
from archspec.driver import Analysis, analyse, analyse_text
from archspec.render import render_text

FOLDER = Path(__file__).parent / "errors"
PROGRAMS = sorted([*FOLDER.glob("*.arch"), *FOLDER.glob("*.json")])
UPDATE = bool(os.environ.get("UPDATE_GOLDENS"))


def rendered(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Analysis, str]:
    monkeypatch.chdir(FOLDER)
    analysis = told(analyse(path.name))
    return analysis, render_text(analysis.diagnostics) + "\n"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_messages(path, monkeypatch):
    analysis, text = rendered(path, monkeypatch)
    golden = path.with_name(path.name + ".err")
    if UPDATE:
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")
    if path.name[:5] in REGISTRY:
        assert {diagnostic.code for diagnostic in analysis.diagnostics} == {path.name[:5]}


def test_no_golden_without_program():
    assert sorted(FOLDER.glob("*.err")) == sorted(path.with_name(path.name + ".err") for path in PROGRAMS)


def test_every_code_has_a_golden():
    missing = sorted(set(REGISTRY) - {path.name.split("_")[0] for path in PROGRAMS})
    for code in missing if UPDATE else ():
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", REGISTRY[code].__name__).lower()
        (FOLDER / f"{code}_{name}.arch").write_text(program(REGISTRY[code], "Example") or "", "utf-8")
    assert missing == []


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_house_style_of_messages(path, monkeypatch):
    for diagnostic in rendered(path, monkeypatch)[0].diagnostics:
        texts = [diagnostic.message(), diagnostic.remark(), *diagnostic.notes()]
        texts += [label.text for label in diagnostic.labels()] + [help_.text for help_ in diagnostic.helps()]
        for text in filter(None, texts):
            assert "\n" not in text
            assert not text.endswith(".") or text.endswith("..."), text
            assert not re.match(r"[A-Z][a-z]", text), text
            assert text.count("`") % 2 == 0, text


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_spans_are_inside_the_text(path, monkeypatch):
    for diagnostic in rendered(path, monkeypatch)[0].diagnostics:
        for span in [diagnostic.span, *(label.span for label in diagnostic.labels())]:
            assert 0 <= span.start <= span.end <= len(span.source.text)


def edits(path: Path) -> list[tuple[str, int]]:
    """Every help that says exactly what to replace: the code, and the number of the help."""
    found = told(analyse(path)).diagnostics
    return [
        (found[idx].code, idx, nth)
        for idx in range(len(found))
        for nth, help_ in enumerate(found[idx].helps())
        if help_.edit
    ]


def applied(text: str, edit: Edit) -> str:
    return text[: edit.span.start] + edit.text + text[edit.span.end :]


FIXES = [(path, *fix) for path in PROGRAMS if path.suffix == ".arch" for fix in edits(path)]


@pytest.mark.parametrize(("path", "code", "idx", "nth"), FIXES, ids=lambda value: getattr(value, "name", str(value)))
def test_edit_mends_what_it_is_offered_for(path, code, idx, nth):
    """After the edit the finding is gone, unless the program has several of its kind: then there is one less."""
    analysis = told(analyse(path))
    help_ = analysis.diagnostics[idx].helps()[nth]
    after = told(analyse_text(applied(analysis.source.text, help_.edit))).diagnostics
    before = [diagnostic.code for diagnostic in analysis.diagnostics].count(code)
    if any("of them in this file" in note for note in analysis.diagnostics[idx].notes()):
        return  # one message for many places, and the edit is for the first
    assert [diagnostic.code for diagnostic in after].count(code) < before, render_text(after)
