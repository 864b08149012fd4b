"""`archspec fmt` as its users meet it."""

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from archspec.cli.main import app

ROOT = Path(__file__).parents[2]
CLEAN = "model m {\n  layers 1 attend\n}\n"
MESSY = "model  m {\n  layers 1   attend }"


def run(*args: object, stdin: bytes | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["fmt", *map(str, args)], input=stdin)
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {}
    for name, text in {"clean": CLEAN, "messy": MESSY, "broken": "model m {\n  layers layers\n}"}.items():
        paths[name] = tmp_path / f"{name}.arch"
        paths[name].write_text(text)
    return paths


def test_rewrites_what_needs_it_and_says_so(files: dict[str, Path]) -> None:
    files["messy"].chmod(0o640)
    before = files["clean"].stat().st_mtime_ns
    code, out, err = run(files["clean"], files["messy"])
    assert (code, err) == (0, "")
    assert out == f"reformatted {files['messy']}\n1 file reformatted, 1 file left in canonical layout\n"
    assert files["messy"].read_text() == CLEAN
    assert files["messy"].stat().st_mode & 0o777 == 0o640
    assert files["clean"].stat().st_mtime_ns == before
    assert sorted(path.name for path in files["messy"].parent.iterdir()) == ["broken.arch", "clean.arch", "messy.arch"]


def test_a_link_stays_a_link(files: dict[str, Path], tmp_path: Path) -> None:
    link = tmp_path / "link.arch"
    link.symlink_to(files["messy"])
    assert run(link)[0] == 0
    assert link.is_symlink()
    assert files["messy"].read_text() == CLEAN


def test_check_lists_and_writes_nothing(files: dict[str, Path]) -> None:
    code, out, _ = run("--check", files["clean"], files["messy"])
    assert code == 1
    assert f"would reformat {files['messy']}" in out
    assert files["messy"].read_text() == MESSY
    assert run("--check", files["clean"])[:2] == (0, "1 file in canonical layout\n")


def test_diff_shows_and_writes_nothing(files: dict[str, Path]) -> None:
    code, out, _ = run("--diff", files["clean"], files["messy"])
    assert code == 1
    assert "-model  m {\n" in out
    assert "+  layers 1 attend\n" in out
    assert "\x1b[" not in out
    assert files["messy"].read_text() == MESSY
    assert run("--diff", files["clean"])[0] == 0


def test_diff_is_coloured_on_a_terminal(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from archspec.cli import fmt

    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(fmt, "sys", SimpleNamespace(stdout=terminal, stderr=sys.stderr))
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(typer.Exit):
        fmt.fmt([files["messy"]], diff=True)
    assert "\x1b[31m-model  m {\x1b[0m\n" in terminal.getvalue()


def test_syntax_errors_are_located_and_the_others_are_still_written(files: dict[str, Path]) -> None:
    text = files["broken"].read_bytes()
    code, out, err = run(files["broken"], files["messy"])
    assert code == 1
    assert f"{files['broken']}:2:" in err
    assert "1 file left alone" in out
    assert files["broken"].read_bytes() == text
    assert files["messy"].read_text() == CLEAN


def test_a_spec_that_does_not_check_is_formatted_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "odd.arch"
    path.write_text("model m { layers 3 cross-atend to cache@7 }")
    assert run(path)[0] == 0
    assert path.read_text() == "model m {\n  layers 3 cross-atend to cache@7\n}\n"


def test_standard_input(files: dict[str, Path]) -> None:
    assert run("-", stdin=MESSY.encode()) == (0, CLEAN, "")
    assert run("--check", "-", stdin=MESSY.encode())[0] == 1
    code, out, err = run("-", stdin=b"model m {\n  layers layers\n}")
    assert (code, out) == (1, "")
    assert "<stdin>:2:" in err
    assert run("-", stdin=b"\xff\xfe")[0] == 1


def test_what_is_no_text_of_a_spec(tmp_path: Path) -> None:
    spec = tmp_path / "m.json"
    spec.write_text("{}")
    for path in (spec, tmp_path, tmp_path / "none.arch"):
        code, _, err = run(path)
        assert code == 1
        assert "error[E0020]" in err
    assert spec.read_text() == "{}"
    assert run()[0] == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_cannot_be_written(files: dict[str, Path]) -> None:
    files["messy"].parent.chmod(0o500)
    assert run(files["messy"])[0] == 1
    files["messy"].parent.chmod(0o700)
    assert files["messy"].read_text() == MESSY
