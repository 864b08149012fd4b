"""What the docs show of figures is what the commands beside it make."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from drawn_specs import ROOT
from typer.testing import CliRunner

from archspec.cli.main import app

PAGE = ROOT / "docs" / "figures.md"
FENCED = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2]) for match in FENCED.finditer(PAGE.read_text())]
SHOWN = [
    (command, text) for (kind, command), (next_kind, text) in pairwise(BLOCKS) if (kind, next_kind) == ("sh", "text")
]
DRAWN = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if " -o docs/" in line]


def archspec_(command: str, output: Path | None = None) -> str:
    args = shlex.split(command)[1:]
    if output is not None:
        args[args.index("-o") + 1] = str(output)
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(("command", "text"), SHOWN, ids=[command.strip() for command, _ in SHOWN])
def test_texts(command, text, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert archspec_(command) == text


@pytest.mark.parametrize("command", DRAWN)
def test_drawings(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    drawn = Path(shlex.split(command)[-1])
    archspec_(command, tmp_path / drawn.name)
    assert (tmp_path / drawn.name).read_text() == drawn.read_text(), f"make it again: {command}"


def test_every_drawing_is_made_and_shown():
    drawn = {Path(shlex.split(command)[-1]) for command in DRAWN}
    figures = [path for path in (ROOT / "docs" / "figures").glob("*.svg") if 'class="archspec"' in path.read_text()]
    assert drawn == {path.relative_to(ROOT) for path in figures}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    linked = {match for page in pages for match in re.findall(r"figures/(\w+\.svg)\)", page.read_text())}
    assert {path.name for path in drawn} <= linked
