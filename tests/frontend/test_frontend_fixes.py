"""Safe fixes: each does away with its finding and brings no other, and nothing else in the file changes."""

from collections import Counter
from pathlib import Path

import pytest

from archspec.driver import analyse, analyse_text
from archspec.fixes import apply, apply_safe, fix, safe_edits
from archspec.render import render_text

FOLDER = Path(__file__).parent / "errors"
PROGRAMS = sorted(FOLDER.glob("*.arch"))
HEADER = "  layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000\n"


def spec(*lines: str) -> str:
    return "model m {\n" + HEADER + "".join(f"  {line}\n" for line in lines) + "}\n"


def safe_ones():
    for path in PROGRAMS:
        analysis = analyse(path)
        for idx, diagnostic in enumerate(analysis.diagnostics):
            if safe_edits(diagnostic, analysis.source):
                yield pytest.param(path, idx, id=f"{path.stem}-{idx}")


@pytest.mark.parametrize(("path", "idx"), safe_ones())
def test_safe_fix_ends_its_finding_and_starts_no_other(path, idx):
    analysis = analyse(path)
    before = Counter(diagnostic.code for diagnostic in analysis.diagnostics)
    edits = safe_edits(analysis.diagnostics[idx], analysis.source)
    found = analyse_text(apply(analysis.source, edits)).diagnostics
    after = Counter(diagnostic.code for diagnostic in found)
    before[analysis.diagnostics[idx].code] -= 1
    assert after <= before, render_text(found)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_fixing_ends(path):
    fixed = fix(path)
    assert not apply_safe(fixed.analysis)[1]
    assert fixed.changed == bool(fixed.count)
