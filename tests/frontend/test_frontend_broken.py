"""Specs as careless people write them: each mistake is one finding, on the line that a person would point at.

Every file of `broken/` says in comments (`# expect: error E0102 at line 4`) all that is to be found in it, and nothing
else may be. To add one, write it, run `archspec check` on it, and judge the message before the comment.
"""

from pathlib import Path

import pytest

from archspec.driver import analyse
from archspec.fixes import fix
from archspec.render import render_text
from archspec.testing.expectations import check_expectation, check_findings, expectations

FOLDER = Path(__file__).parent / "broken"
FILES = sorted(FOLDER.glob("*.arch"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@each_file
def test_each_mistake_is_one_finding_at_its_line(path):
    analysis = analyse(path)
    wanted = list(expectations(analysis.source.text))
    assert wanted
    for expectation in wanted:
        check_expectation(expectation, analysis)
    check_findings(analysis)


@each_file
def test_every_finding_says_what_to_do(path):
    """A help or a note, besides the page."""
    for found in analyse(path).diagnostics:
        assert found.helps() or found.notes() or found.remark(), render_text([found])


MENDED_WHOLLY = [
    "iterate_order",
    "range_as_slice",
    "range_in_brackets",
    "range_open",
    "range_tilde",
    "range_to_end",
    "range_with_and",
    "range_with_through",
    "source_chain",
    "source_in_brackets",
    "source_layer_for_cache",
    "source_misspelt_name",
    "syntax_are",
    "syntax_bare_heads",
    "syntax_brace_below",
    "syntax_cache_equals",
    "syntax_capitals",
    "syntax_colons",
    "syntax_comma_continues",
    "syntax_equals",
    "syntax_glued",
    "syntax_kind_alone",
    "syntax_minus_sign",
    "syntax_name_alone",
    "syntax_name_and_layer",
    "syntax_name_behind",
    "syntax_no_commas",
    "syntax_semicolons",
    "syntax_slashes",
    "syntax_thousands",
    "window_none",
]


@pytest.mark.parametrize("name", MENDED_WHOLLY)
def test_safe_fixes_mend_it_wholly(name):
    fixed = fix(FOLDER / f"{name}.arch")
    assert fixed.analysis.diagnostics == (), render_text(fixed.analysis.diagnostics)
    assert fixed.analysis.plan().num_parameters() > 0


@pytest.mark.parametrize("path", [path for path in FILES if path.stem not in MENDED_WHOLLY], ids=lambda path: path.stem)
def test_safe_fixes_never_make_it_worse(path):
    before, fixed = analyse(path).diagnostics, fix(path)
    assert len(fixed.analysis.diagnostics) <= len(before), render_text(fixed.analysis.diagnostics)
