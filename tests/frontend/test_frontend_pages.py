"""Every code has a page with its parts, and the examples on it do what they say."""

import os
from pathlib import Path

import pytest
from pages import CODES, PARTS, catalogue, program, sections, told

from archspec.diagnostics import REGISTRY
from archspec.driver import analyse_text
from archspec.render import render_text

DOCS = Path(__file__).parents[2] / "docs" / "diagnostics.md"
WITH_PROGRAM = [code for code in CODES if "Mended" in sections(REGISTRY[code])]


@pytest.mark.parametrize("code", CODES)
def test_page_has_its_parts(code):
    found = sections(REGISTRY[code])
    assert [part for part in PARTS if not found.get(part, "").strip()] == []


def test_nearly_all_pages_show_a_program():
    assert sorted(set(CODES) - set(WITH_PROGRAM)) == ["E0018", "E0020"]  # JSON; files that cannot be read


@pytest.mark.parametrize("code", WITH_PROGRAM)
def test_example_is_broken_in_this_way_alone(code):
    found = told(analyse_text(program(REGISTRY[code], "Example"))).diagnostics
    assert {diagnostic.code for diagnostic in found} == {code}, render_text(found)


@pytest.mark.parametrize("code", WITH_PROGRAM)
def test_mended_example_is_clean(code):
    found = told(analyse_text(program(REGISTRY[code], "Mended"))).diagnostics
    assert not found, render_text(found)


def test_page_of_a_file_without_model_shows_a_whole_spec():
    what = sections(REGISTRY["E0008"])["What"]
    start = what.index("model my_model")
    found = analyse_text(what[start:]).diagnostics
    assert not found, render_text(found)


@pytest.mark.parametrize("code", CODES)
def test_title_is_one_sentence(code):
    title = (REGISTRY[code].__doc__ or "").splitlines()[0]
    assert title.endswith(".")
    assert len(title) <= 90


def test_documentation_has_all_pages():
    """docs/diagnostics.md ends with what the code says. `UPDATE_GOLDENS=1` writes it anew."""
    text = DOCS.read_text("utf-8")
    head, mark, written = text.partition("says. -->\n")
    assert mark
    if os.environ.get("UPDATE_GOLDENS"):
        DOCS.write_text(f"{head}{mark}\n{catalogue().rstrip()}\n", "utf-8")
        written = DOCS.read_text("utf-8").partition(mark)[2]
    assert written == f"\n{catalogue().rstrip()}\n"
    assert all(f"### {code}\n" in written for code in CODES)
