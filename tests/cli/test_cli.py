"""The command line as its users meet it: real processes, exit codes, no tracebacks, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NANO = ROOT / "specs" / "nano" / "nano_yoco.arch"
YOCO_3B = ROOT / "specs" / "yoco" / "yoco_3b_window.arch"
BROKEN = "model m {\n  layers 2, width 16, vocab 300, heads 2 x 8, ffn gelu(8), rope 100\n  layers 1-3 attend\n}\n"


def run(*args: object, blocked: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
    """Run `archspec`; `blocked` modules cannot be imported."""
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    program = f"import sys\n{block}from archspec.cli.main import main\nmain()"
    command = [sys.executable, "-c", program, *map(str, args)]
    environment = {**os.environ, "NO_COLOR": "1", **env}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT, timeout=170)


TORCH = ("torch", "safetensors", "numpy")


@pytest.mark.parametrize(
    "args",
    [
        ("check", NANO),
        ("check", NANO, "--format", "json"),
        ("show", NANO),
        ("show", NANO, "--emit", "spec"),
        ("show", NANO, "--emit", "graph"),
        ("show", NANO, "--emit", "plan", "--format", "json"),
        ("show", NANO, "--format", "json"),
        ("fmt", "--check", NANO),
        ("diff", NANO, NANO),
        ("schema",),
        ("memory", NANO),
        ("explain", "E0204"),
        ("explain",),
    ],
)
def test_works_without_torch(args: tuple[object, ...]) -> None:
    done = run(*args, blocked=TORCH)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(
    "command", ["check", "fmt", "show", "diff", "schema", "memory", "compile", "import", "generate", "explain"]
)
def test_help_shows_an_example(command: str) -> None:
    done = run(command, "--help", blocked=TORCH)
    assert done.returncode == 0
    assert f"Example: archspec {command}" in done.stdout


def test_show_as_json_is_a_spec_that_every_command_takes(tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    copy.write_text(run("show", NANO, "--format", "json").stdout)
    assert run("check", copy).returncode == 0
    assert run("diff", NANO, copy).returncode == 0
    assert run("show", copy, "--emit", "plan").stdout == run("show", NANO).stdout


def test_check_exit_codes(tmp_path: Path) -> None:
    broken = tmp_path / "broken.arch"
    broken.write_text(BROKEN)
    assert run("check", NANO).returncode == 0
    done = run("check", NANO, broken)
    assert done.returncode == 1
    assert f"{broken}:3:10" in done.stdout
    assert "2 files checked: 1 error, 0 warnings" in done.stdout
    assert run("check").returncode == 2
    assert run("check", NANO, "--format", "xml").returncode == 2


def test_check_json_names_code_and_place(tmp_path: Path) -> None:
    broken = tmp_path / "broken.arch"
    broken.write_text(BROKEN)
    found = json.loads(run("check", broken, "--format", "json").stdout)
    assert [(item["code"], item["span"]["start"]["line"]) for item in found] == [("E0101", 3)]


def test_check_says_what_each_reader_got() -> None:
    out = run("check", NANO).stdout
    assert "projection of layer 4's output" in out
    assert "layer 4's own K/V" in out
    assert "prefill exits after cache@4: layers 5-8 of 8 run for the last position only" in out


def test_memory_json_is_exact() -> None:
    facts = json.loads(run("memory", YOCO_3B, "--batch", "2", "--context", "4K,1M", "--json").stdout)
    got = [row["cache_bytes"] for row in facts["rows"]]
    assert got == [2 * 2 * (2048 * t + 79872 * min(t, 1024)) for t in (4096, 1 << 20)]


def test_memory_measures_what_it_plans() -> None:
    facts = json.loads(run("memory", NANO, "--batch", "3", "--context", "100", "--json", "--measure").stdout)
    assert facts["rows"][0]["measured_bytes"] == facts["rows"][0]["cache_bytes"]


@pytest.mark.parametrize("context", ["0", "x", "4K,", "-3", "9" * 40])
def test_memory_refuses_nonsense(context: str) -> None:
    done = run("memory", NANO, "--context", context)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_compile_then_generate(tmp_path: Path) -> None:
    done = run("compile", NANO, "-o", tmp_path / "nano", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "nano").iterdir()) == ["model.arch", "model.safetensors"]
    tokens = ("generate", tmp_path / "nano", "--tokens", "1,2,3", "--max-new-tokens", "5", "--no-compile")
    from_folder, from_spec = run(*tokens), run("generate", NANO, "--seed", "3", *tokens[2:])
    assert from_folder.returncode == 0, from_folder.stderr
    assert from_folder.stdout.startswith("1,2,3,")
    assert len(from_folder.stdout.split(",")) == 8
    assert from_folder.stdout == from_spec.stdout
    again = run("compile", NANO, "-o", tmp_path / "copy", "--weights", tmp_path / "nano" / "model.safetensors")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (
        tmp_path / "nano" / "model.safetensors"
    ).read_bytes()


def test_generate_from_text() -> None:
    done = run("generate", NANO, "--prompt", "abc", "--max-new-tokens", "2", "--no-compile")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("abc")
    assert "random weights" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("check", "no/such.arch"), 1, "no such file"),
        (("show", "specs"), 1, "a folder"),
        (("generate", "specs", "--tokens", "1"), 1, "holds no model.arch"),
        (("generate", NANO, "--tokens", "1,x"), 2, "no list of token ids"),
        (("generate", NANO, "--tokens", "1,999", "--no-compile"), 1, "999"),
        (("generate", NANO), 2, "either --prompt or --tokens"),
        (("generate", NANO, "--tokens", "1", "--device", "warp", "--no-compile"), 1, "warp"),
        (("import", "specs", "-o", "out"), 1, "config.json"),
        (("compile", NANO, "-o", "out", "--weights", "README.md"), 1, "README.md"),
        (("explain", "E9999"), 1, "no code"),
    ],
)
def test_bad_input_is_one_clear_line(args: tuple[object, ...], code: int, said: str) -> None:
    done = run(*args)
    assert done.returncode == code
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_absent_torch_is_one_clear_line(tmp_path: Path) -> None:
    done = run("compile", NANO, "-o", tmp_path / "out", blocked=TORCH)
    assert done.returncode == 1
    assert "install `archspec-lm[torch]`" in done.stderr
    assert not (tmp_path / "out").exists()


def test_failed_compile_leaves_nothing(tmp_path: Path) -> None:
    other = tmp_path / "other.arch"
    other.write_text(BROKEN.replace("1-3", "1-2"))
    assert run("compile", other, "-o", tmp_path / "a").returncode == 0
    done = run("compile", NANO, "-o", tmp_path / "b", "--weights", tmp_path / "a" / "model.safetensors")
    assert done.returncode == 1
    assert "do not fit the model" in done.stderr
    assert not list((tmp_path / "b").glob("*")) if (tmp_path / "b").exists() else True


SLIPS = BROKEN.replace("layers 1-3 attend", "Layers 1-2 attend")
CLEAN = BROKEN.replace("1-3", "1-2")


def test_check_fix_mends_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.arch"
    path.write_text(SLIPS)
    done = run("check", path)
    assert done.returncode == 1
    assert "1 error, 0 warnings (1 can be fixed with `--fix`)" in done.stdout
    done = run("check", "--diff", path)
    assert done.returncode == 1
    assert "-  Layers 1-2 attend\n+  layers 1-2 attend\n" in done.stdout
    assert path.read_text() == SLIPS
    done = run("check", "--fix", path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("1 finding fixed in 1 file\n")
    assert path.read_text() == CLEAN
    done = run("check", "--diff", path)
    assert (done.returncode, done.stdout) == (0, "")
    assert run("check", "--diff", "--fix", path).returncode == 2


def test_check_fix_leaves_what_is_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "m.arch"
    path.write_text(BROKEN)
    done = run("check", "--fix", path)
    assert done.returncode == 1
    assert "error[E0101]" in done.stdout
    assert path.read_text() == BROKEN


def test_check_of_a_folder_and_of_standard_input(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name, text in (("z.arch", CLEAN), ("b/c/a.arch", BROKEN), ("notes.txt", "no spec")):
        (tmp_path / name).write_text(text)
    done = run("check", tmp_path)
    assert done.returncode == 1
    assert done.stdout.index("a.arch:3:10") < done.stdout.index("z.arch: m, 2 layers")
    assert "2 files checked" in done.stdout
    (tmp_path / "empty").mkdir()
    assert run("check", tmp_path / "empty").returncode == 2
    command = [sys.executable, "-m", "archspec.cli.main", "check", "-"]
    piped = subprocess.run(command, input=BROKEN.encode(), capture_output=True, check=False, cwd=ROOT, timeout=60)
    assert piped.returncode == 1
    assert b"<stdin>:3:10" in piped.stdout
    assert run("check", "-", "--fix").returncode == 2


def test_check_formats(tmp_path: Path) -> None:
    path = tmp_path / "m.arch"
    path.write_text(BROKEN)
    done = run("check", path, "--format", "sarif")
    (result,) = json.loads(done.stdout)["runs"][0]["results"]
    assert (done.returncode, result["ruleId"]) == (1, "E0101")
    done = run("check", path, "--format", "github")
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert done.stdout.startswith(
        f"::error file={path},line=3,endLine=3,col=10,endColumn=13,title=archspec E0101::layer"
    )


def test_check_colours(tmp_path: Path) -> None:
    path = tmp_path / "m.arch"
    path.write_text(BROKEN)
    assert "\x1b[" not in run("check", path, NO_COLOR="").stdout
    assert "\x1b[1;31merror[E0101]\x1b[0m" in run("check", path, NO_COLOR="", FORCE_COLOR="1").stdout
    assert "\x1b[" not in run("check", path, NO_COLOR="1", FORCE_COLOR="1").stdout


def test_check_for_a_deployment() -> None:
    done = run("check", NANO, "--tensor-parallel", "4")
    assert done.returncode == 0
    assert "warning[W0310]" in done.stdout
    assert run("check", NANO, "--tensor-parallel", "3").returncode == 1
    done = run("check", NANO, "--pipeline-split", "6")
    assert done.returncode == 1
    assert "`--pipeline-split 4`" in done.stdout
    assert run("check", NANO, "--pipeline-split", "4").returncode == 0
    for wrong in ("0", "8", "x", "3,"):
        assert run("check", NANO, "--pipeline-split", wrong).returncode == 2


def test_check_says_which_of_two_caches_a_name_means() -> None:
    assert "note: `cache@4` is a projection of layer 4's output" in run("check", NANO).stdout


def test_check_loads_neither_tables_nor_formulas() -> None:
    code = "import sys\nfrom archspec.cli.main import app\ntry:\n    app()\nexcept SystemExit:\n    pass\n"
    code += "print([name for name in ('rich.table', 'rich.console', 'sympy', 'torch', 'numpy') if name in sys.modules])"
    command = [sys.executable, "-c", code, "check", str(NANO)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
