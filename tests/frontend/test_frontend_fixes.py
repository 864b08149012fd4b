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


@pytest.mark.parametrize(("path", "idx"), list(safe_ones()))
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


TWO_SLIPS = spec("Layers 1-2 attend", "layers 3-4 cross-attend to cache 2  # a comment stays")
MENDED = spec("layers 1-2 attend", "layers 3-4 cross-attend to cache@2  # a comment stays")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "mark"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_only_what_is_wrong_changes(tmp_path, mark, newline):
    path = tmp_path / "m.arch"
    path.write_bytes(mark + TWO_SLIPS.replace("\n", newline).encode())
    path.chmod(0o640)
    fixed = fix(path)
    assert (fixed.count, fixed.analysis.diagnostics) == (2, ())
    fixed.write()
    assert path.read_bytes() == mark + MENDED.replace("\n", newline).encode()
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_new_lines_end_as_the_others_do(tmp_path):
    path = tmp_path / "m.arch"
    path.write_bytes(spec("layers 1-2 attend; layers 3-4 attend").replace("\n", "\r\n").encode())
    fixed = fix(path)
    assert fixed.after == spec("layers 1-2 attend", "layers 3-4 attend").replace("\n", "\r\n")


def test_a_file_without_safe_fixes_is_not_touched(tmp_path):
    path = tmp_path / "m.arch"
    path.write_text(spec("layers 0-3 attend"))
    path.chmod(0o444)
    before = path.stat()
    fixed = fix(path)
    fixed.write()
    assert not fixed.changed
    assert fixed.diff() == ""
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_json_and_unreadable_files_are_left_alone(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"name": "m", "num_layers": 2, "hidden_size": 4, "vocab_size": 4, "statements": []}')
    assert not fix(path).changed
    assert not fix(tmp_path / "no.arch").changed
    (tmp_path / "empty.arch").write_text("")
    assert not fix(tmp_path / "empty.arch").changed


def test_one_mistake_behind_another_takes_more_rounds(tmp_path):
    path = tmp_path / "m.arch"
    path.write_text(spec("layers 1-2 attend", "layers 3-4 reuse cache 2"))
    assert [found.code for found in fix(path).analysis.diagnostics] == ["E0010"]  # `reuse` may mean something else
    path.write_text(spec("layers 1-2 atend", "layers 3-4 crossattend cache 2"))
    assert fix(path).after == spec("layers 1-2 attend", "layers 3-4 cross-attend to cache@2")


def test_every_place_of_a_character_at_once(tmp_path):
    path = tmp_path / "m.arch"
    path.write_text(spec("layers 1-4 attend").replace(" 4,", " = 4,").replace(" 64", "=64"))
    fixed = fix(path)
    assert (fixed.count, fixed.after) == (1, spec("layers 1-4 attend"))


def test_diff_is_a_patch(tmp_path):
    path = tmp_path / "m.arch"
    path.write_text(TWO_SLIPS.rstrip("\n"))
    diff = fix(path).diff().splitlines()
    assert diff[0] == f"--- {path}"
    assert [line for line in diff if line.startswith(("+ ", "- "))] == [
        "-  Layers 1-2 attend",
        "-  layers 3-4 cross-attend to cache 2  # a comment stays",
        "+  layers 1-2 attend",
        "+  layers 3-4 cross-attend to cache@2  # a comment stays",
    ]
