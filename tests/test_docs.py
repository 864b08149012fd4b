"""Every code block of the README and of docs/ is run, and every output that they show is the real one."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from archspec.cli.tables import cache_table
from archspec.diff import diff_plans
from archspec.driver import analyse, analyse_text
from archspec.fmt import format_source
from archspec.render import render_text
from archspec.source import Source
from archspec.testing.expectations import check_expectation, expectations

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```(\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if match[1] in languages:
                found.append(Block(page, text[: match.start()].count("\n") + 1, match[1], match[2]))
    return found


@pytest.mark.parametrize("block", blocks("arch"), ids=str)
def test_examples_are_clean(block: Block) -> None:
    analysis = analyse_text(block.text)
    assert not render_text(analysis.diagnostics)
    for expectation in expectations(block.text):
        check_expectation(expectation, analysis)


@pytest.mark.parametrize("block", blocks("arch-files"), ids=str)
def test_examples_of_several_files_are_clean(block: Block, tmp_path: Path) -> None:
    """A line `# file: NAME` starts each of them."""
    _, *pieces = re.split(r"^# file: (\S+)\n", block.text, flags=re.MULTILINE)
    for name, text in zip(pieces[::2], pieces[1::2], strict=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    analyses = [analyse(path) for path in sorted(tmp_path.rglob("*.arch"))]
    assert len(analyses) > 1
    assert [render_text(analysis.diagnostics) for analysis in analyses] == [""] * len(analyses)


@pytest.mark.parametrize("block", blocks("arch-error"), ids=str)
def test_broken_examples_say_what_the_page_shows(block: Block) -> None:
    shown = next(b.text for b in blocks("text") if b.page == block.page and b.line > block.line)
    assert render_text(analyse_text(block.text).diagnostics).startswith(shown.strip())


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(block.text, str(block), "exec"), {})


def test_readme_shows_the_real_finding_and_table() -> None:
    readme = [block for block in blocks("arch", "text") if block.page.name == "README.md"]
    spec, finding, table = (block.text for block in readme)
    forgotten = [line for line in spec.splitlines() if not line.strip().startswith(("cache@4", "prefill exit"))]
    analysis = analyse_text("\n".join(forgotten) + "\n", "nano_yoco.arch")
    assert render_text(analysis.diagnostics).strip() == finding.strip()
    rows = cache_table(analyse_text(spec).plan(), "float32").rows
    shown = [tuple(re.split(r"\s{2,}", line.strip())) for line in table.splitlines()[2:]]
    assert shown == [tuple(row) for row in rows]


def test_language_page_shows_the_real_layout_and_diff() -> None:
    texts = [block.text for block in blocks("text") if block.page.name == "language.md"]
    messy = next(text for text in texts if "×" in text)
    formatted = format_source(Source("m.arch", messy)).text
    assert formatted in [block.text for block in blocks("arch")]
    table = next(text for text in texts if " what " in text)
    names = ("yoco_3b", "yoco_3b_window")
    plans = [analyse(ROOT / "specs" / "yoco" / f"{name}.arch").plan() for name in names]
    shown = [tuple(re.split(r"\s{2,}", line.strip())) for line in table.splitlines()[2:]]
    assert shown == [(each.place, each.what, each.a or "-", each.b or "-") for each in diff_plans(*plans).changes]


def test_memory_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    """Numbers of memory pages are nobody's memory: the commands are run, and their output is the page's."""
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    page = [block for block in blocks("sh", "text") if block.page.name == "memory.md"]
    assert [block.language for block in page] == ["sh", "text"] * (len(page) // 2)
    for command, shown in zip(page[::2], page[1::2], strict=True):
        program = [sys.executable, "-m", "archspec.cli.main", *shlex.split(command.text)[1:]]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stdout) == (0, shown.text), done.stderr
    assert (tmp_path / "yoco_memory.svg").exists()


@pytest.mark.long
def test_readme_commands_run(tmp_path: Path) -> None:
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    text = next(b.text for b in blocks("sh") if b.page.name == "README.md" and "archspec check" in b.text)
    # Compiling is tested elsewhere; here the commands are.
    env = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}
    for line in text.splitlines():
        command = shlex.split(line, comments=True)
        if command[:1] != ["archspec"] or "path/to" in line:
            continue
        program = [sys.executable, "-m", "archspec.cli.main", *command[1:]]
        done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)
        expected = 1 if command[1] == "diff" else 0  # as of `diff`: the two differ
        assert done.returncode == expected, f"{line}\n{done.stderr}"
        assert done.stdout
