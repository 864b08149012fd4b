"""`use`: what a file may use, where its errors stand, and how they are shown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import archspec
from archspec.compose.library import MAX_FILES
from archspec.driver import analyse, analyse_text
from archspec.files import MAX_BYTES
from archspec.fixes import fix
from archspec.render import render_text, to_json

HEADER = "layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000"
MODEL = f"model m {{\n  {HEADER}\n  layers 1-4 local\n}}\n"
LOCAL = "define local { attend, window 8 }\n"


def written(folder: Path, **texts: str) -> Path:
    """Files `a.arch`, `sub/b.arch` from names such as `a` and `sub__b`; the path of `m.arch`."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.arch"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "m.arch"


def codes(path: Path) -> list[str]:
    return [diagnostic.code for diagnostic in archspec.check(path)]


def test_definitions_and_bases_come_from_files_below(tmp_path):
    path = written(
        tmp_path,
        m='use "lib/one.arch"\nuse "base.arch"\nmodel m extends base {\n  layers 3-4 local\n}\n',
        lib__one='use "../lib/deep/two.arch"\ndefine local { attend, window (2 * W) }\n',
        lib__deep__two='use "../../base.arch"\nlet W = 4\n',
        base=f"model base {{\n  {HEADER}\n  layers 1-4 attend\n}}\n",
    )
    plain = f"model m {{\n  {HEADER}\n  layers 1-2 attend\n  layers 3-4 attend, window 8\n}}\n"
    assert archspec.parse(path) == archspec.parse_spec_text(plain)
    assert archspec.parse(path, settings={"W": 1}).statements[1].settings.window.size == 2


def test_paths_start_at_the_file_that_says_them(tmp_path):
    path = written(tmp_path, m=f'use "sub/a.arch"\n{MODEL}', sub__a='use "b.arch"\n', sub__b=LOCAL, b="let X = \n")
    assert codes(path) == []


def outside(folder: Path) -> dict[str, str]:
    secret = folder / "secret.arch"
    secret.write_text(LOCAL)
    inside = folder / "specs"
    inside.mkdir()
    (inside / "link.arch").symlink_to(secret)
    (inside / "up").symlink_to(folder)
    (inside / "loop.arch").symlink_to("loop.arch")
    (inside / "nowhere.arch").symlink_to("gone.arch")
    (inside / "folder.arch").mkdir()
    os.mkfifo(inside / "pipe.arch")
    (inside / "big.arch").write_text(LOCAL + "#" * MAX_BYTES)
    (inside / "binary.arch").write_bytes(b"\0\1")
    (inside / "empty.arch").write_text("")
    (inside / "spec.json").write_text("{}")
    return {
        "../secret.arch": "outside",
        "sub/../../secret.arch": "outside",
        "link.arch": "outside",
        "up/secret.arch": "outside",
        str(secret): "absolute",
        "~/secret.arch": "absolute",
        "loop.arch": "link|level|no such",
        "nowhere.arch": "no such file",
        "missing.arch": "no such file",
        "folder.arch": "a folder",
        ".": "a folder",
        "pipe.arch": "no regular file",
        "big.arch": "larger than 1 MiB",
        "binary.arch": "a binary file",
        "empty.arch": "empty",
        "spec.json": "JSON",
        "": "no file is named",
        "   ": "no file is named",
        "x" * 5000: "too long|cannot be read",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_no_other_file_is_read(tmp_path):
    for name, problem in outside(tmp_path).items():
        path = tmp_path / "specs" / "m.arch"
        path.write_text(f'use "{name}"\n{MODEL}')
        (found,) = analyse(path).diagnostics
        assert found.code == "E0039", name
        assert any(part in found.message() for part in problem.split("|")), found.message()
        assert (found.span.line, found.span.text) == (1, f'"{name}"')


def test_a_spec_that_is_itself_a_link_uses_files_beside_the_link(tmp_path):
    written(tmp_path, real__m=f'use "a.arch"\n{MODEL}', real__a="let X = \n", a=LOCAL)
    (tmp_path / "m.arch").symlink_to(tmp_path / "real" / "m.arch")
    assert codes(tmp_path / "m.arch") == []


def test_a_folder_may_be_reached_through_a_link(tmp_path):
    written(tmp_path, real__m=f'use "a.arch"\n{MODEL}', real__a=LOCAL)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert codes(tmp_path / "link" / "m.arch") == []


def test_text_has_no_folder():
    (found,) = analyse_text(f'use "a.arch"\n{MODEL}').diagnostics
    assert found.code == "E0039"
    assert "no folder" in found.message()


def test_every_file_is_read_once(tmp_path):
    texts = {f"d{level}": f'use "d{level + 1}.arch"\nuse "./d{level + 1}.arch"\n' for level in range(50)}
    path = written(tmp_path, m=f'use "d0.arch"\n{MODEL}', **texts, d50=LOCAL)
    assert codes(path) == []


def test_too_many_files(tmp_path):
    texts = {f"d{level}": f'use "d{level + 1}.arch"\n' for level in range(MAX_FILES + 10)}
    path = written(tmp_path, m=f'use "d0.arch"\n{MODEL}', **texts, d110=LOCAL)
    assert codes(path) == ["E0030"]


def test_too_many_words_in_all(tmp_path):
    texts = {f"d{level}": "".join(f"let A{level}_{n} = {n}\n" for n in range(6000)) for level in range(4)}
    uses = "".join(f'use "d{level}.arch"\n' for level in range(4))
    assert codes(written(tmp_path, m=uses + MODEL, **texts)) == ["E0030"]


def test_cycles_name_the_files(tmp_path):
    path = written(tmp_path, m=f'use "a.arch"\n{MODEL}', a=f'use "b.arch"\n{LOCAL}', b='use "a.arch"\n')
    (found,) = analyse(path).diagnostics
    assert found.code == "E0035"
    assert [Path(part.strip("`")).name for part in found.message().split(": ")[1].split(" -> ")] == [
        "a.arch",
        "b.arch",
        "a.arch",
    ]
    path.write_text(f'use "m.arch"\n{LOCAL}{MODEL}')
    assert codes(path) == ["E0035"]


def test_errors_stand_in_their_own_file_and_the_way_to_them_is_labelled(tmp_path):
    path = written(
        tmp_path, m=f'use "a.arch"\n{MODEL}', a='# a\nuse "b.arch"\n', b=f"{LOCAL.replace('8', 'W')}let W = 7 / 2\n"
    )
    (found,) = analyse(path).diagnostics
    assert (found.code, Path(found.span.source.name).name, found.span.line) == ("E0033", "b.arch", 2)
    places = [(Path(label.span.source.name).name, label.span.line, label.text) for label in found.labels()]
    assert places == [("a.arch", 2, "used here"), ("m.arch", 1, "used here")]
    (item,) = to_json([found])
    assert [Path(label["span"]["file"]).name for label in item["labels"]] == ["a.arch", "m.arch"]
    text = render_text([found])
    assert text.index("--> ") < text.index("::: ") < text.rindex("::: ")
    assert [Path(line.split(" ")[-1].split(":")[0]).name for line in text.splitlines() if ":::" in line] == [
        "a.arch",
        "m.arch",
    ]


def test_a_clash_shows_both_ends_in_both_files(tmp_path):
    path = written(
        tmp_path,
        m='use "base.arch"\nmodel m extends base {\n  layers 2 attend, window 8\n}\n',
        base=f"model base {{\n  {HEADER}\n  layers 1-2 attend\n  layers 3-4 cross-attend to cache@2\n}}\n",
    )
    (found,) = analyse(path).diagnostics
    assert found.code == "E0501"
    assert Path(found.span.source.name).name == "base.arch"
    shown = render_text([found])
    assert "layers 2 attend, window 8" in shown
    assert "model m extends base {" in shown
    assert "takes it over here" in shown


def test_a_file_that_is_lost_has_no_followers(tmp_path):
    path = written(
        tmp_path,
        m=f'use "gone.arch"\nlet A = B\n{MODEL.replace("layers 1-4 local", "layers 1-4 local, like x, window C")}',
    )
    assert codes(path) == ["E0039"]
    path.write_text('use "gone.arch"\nmodel m extends base {\n  layers 1 attend\n  cache@9: kv heads 2\n}\n')
    assert codes(path) == ["E0039"]


def test_broken_definitions_of_a_used_file_have_no_followers(tmp_path):
    path = written(tmp_path, m=f'use "a.arch"\n{MODEL}', a="define local { attend, windwo 8 }\nlet = 3\n")
    assert codes(path) == ["E0002", "E0001"]


def test_the_last_model_counts_and_others_are_bases(tmp_path):
    two = f"model a {{\n  {HEADER}\n  layers 1-4 attend\n}}\nmodel b extends a {{\n}}\n"
    path = written(tmp_path, m=two, n='use "m.arch"\nmodel c extends a {\n}\n')
    assert archspec.parse(path).name == "b"
    assert archspec.parse(tmp_path / "n.arch").name == "c"
    path.write_text(two + "model c extends a {\n}\n")
    assert codes(path) == ["E0009"]
    assert codes(tmp_path / "n.arch") == ["E0034"]


def test_fixes_are_applied_to_a_file_that_uses_others(tmp_path):
    path = written(tmp_path, m=f'use "a.arch"\n{MODEL.replace("rope", "Rope")}', a=LOCAL)
    fixed = fix(path)
    assert fixed.after == f'use "a.arch"\n{MODEL}'
    assert fixed.analysis.ok


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess:
    program = [sys.executable, "-m", "archspec.cli.main", *map(str, arguments)]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_command_line(tmp_path):
    written(tmp_path, m=f'use "a.arch"\n{MODEL}', a="let W = 8\ndefine local { attend, window W }\n")
    done = run("check", "m.arch", "a.arch", "--set", "W=4", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a.arch: definitions for other files to use, no model" in done.stdout
    assert "2 files checked: 0 errors, 0 warnings" in done.stdout
    shown = run("show", "m.arch", "--emit", "spec", "--format", "json", "--set", "W = 2 * 2", folder=tmp_path)
    assert json.loads(shown.stdout)["statements"][0]["settings"]["window"]["size"] == 4
    assert run("memory", "m.arch", "--set", "W=4", folder=tmp_path).returncode == 0
    for arguments in (
        ["--set", "V=4"],
        ["--set", "W"],
        ["--set", "=4"],
        ["--set", "W=4", "--set", "W=5"],
        ["--set", "W=x y"],
    ):
        done = run("check", "m.arch", *arguments, folder=tmp_path)
        assert done.returncode == 2, arguments
        assert "--set" in done.stderr
        assert "Traceback" not in done.stderr
    for command in ("show", "memory"):
        done = run(command, "a.arch", folder=tmp_path)
        assert (done.returncode, "has no model" in done.stderr) == (1, True)
    assert run("show", "m.arch", "--set", "W=0", folder=tmp_path).returncode == 1


def test_what_is_compiled_needs_no_other_file(tmp_path):
    pytest.importorskip("torch")
    written(tmp_path, m=f'use "a.arch"\n{MODEL}', a="let W = 8\ndefine local { attend, window W }\n")
    done = run("compile", "m.arch", "-o", "out", "--set", "W=4", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "model.arch").read_text()
    assert "use" not in text
    assert archspec.parse_spec_text(text) == archspec.parse(tmp_path / "m.arch", settings={"W": 4})
