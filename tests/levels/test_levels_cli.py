"""The command line on specs of two levels: real processes, torch only where it is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import archspec
from archspec.describe import cache_rows, exit_text, plan_json, plan_text

ROOT = Path(__file__).parents[2]
NANO = ROOT / "specs" / "nano" / "nano_block.arch"


def run(*args: object, torch: bool = True) -> subprocess.CompletedProcess[str]:
    block = "" if torch else "".join(f"sys.modules[{name!r}] = None\n" for name in ("torch", "safetensors", "numpy"))
    program = f"import sys\n{block}from archspec.cli.main import main\nmain()"
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"}, cwd=ROOT, timeout=170
    )


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (("check", NANO), "blocks.cache@1-4"),
        (("show", NANO), "blocks of 4 tokens, vocab 256"),
        (("show", NANO, "--emit", "spec"), "prefix 2 from blocks.context"),
        (("show", NANO, "--emit", "graph"), "tokens\nlayer 1: attend"),
        (("memory", NANO), "B*e*(1024*ceil(T/4) + 5120)"),
    ],
)
def test_works_without_torch(args, shown):
    done = run(*args, torch=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout


def test_json_is_read_back(tmp_path):
    done = run("show", NANO, "--emit", "spec", "--format", "json", torch=False)
    copy = tmp_path / "nano.json"
    copy.write_text(done.stdout)
    written = json.loads(done.stdout)
    assert {"name", "vocab_size", "defaults", "blocks", "tokens"} <= set(written)
    assert not {"num_layers", "layers", "levels"} & set(written)
    assert archspec.parse(copy) == archspec.parse(NANO)
    assert archspec.plan(archspec.parse(copy)) == archspec.plan(archspec.parse(NANO))


def test_json_that_is_no_spec(tmp_path):
    value = json.loads(archspec.parse(NANO).model_dump_json())
    broken = tmp_path / "broken.json"
    for change, said in (
        ({"num_layers": 3}, "belong into its levels"),
        ({"tokens": {**value["tokens"], "num_layers": "4"}}, "`tokens.num_layers` must be a valid integer"),
        ({"blocks": None}, "`blocks` must be an object"),
    ):
        broken.write_text(json.dumps({**value, **change}))
        (finding,) = archspec.check(broken)
        assert said in finding.message()


def test_compile_and_generate(tmp_path):
    assert run("compile", NANO, "-o", tmp_path / "out", "--seed", 3).returncode == 0
    done = run("generate", tmp_path / "out", "--tokens", "1,2,3,4,5", "--max-new-tokens", 6, "--no-compile")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split(",")) == 11
    measured = run("memory", NANO, "--context", "1K", "--measure", "--json")
    (row,) = json.loads(measured.stdout)["rows"]
    assert row["cache_bytes"] == row["measured_bytes"] == 2 * (1024 * 256 + 1024 * 5)


def test_descriptions():
    plan = archspec.plan(archspec.parse(NANO))
    rows = cache_rows(plan, "bfloat16")
    assert [(row.cache, row.keeps, row.token_bytes) for row in rows] == [
        ("blocks.cache@1-4", "all blocks", 512),
        ("tokens.cache@1-4", "all, for one block", 0),
    ]
    first, second = exit_text(plan).split("\n")
    assert first.startswith("prefill starts the token level for the next block only")
    assert second == "in the block level, prefill exits after cache@4: layer 4 of 4 runs for the last position only"
    assert plan_text(plan) == plan_text(archspec.plan(archspec.parse(NANO)))
    value = json.loads(json.dumps(plan_json(plan)))
    assert value["cache_formula"] == plan.cache_formula()
    assert value["tokens"]["inputs"] == "vectors"
    assert value["blocks"]["outputs"] == "vectors"


def test_the_same_without_sharing():
    """What `archspec memory` compares with: readers in either level get keys and values of their own."""
    from archspec.driver import analyse_text
    from archspec.graph.unshare import without_sharing

    analysis = analyse_text("""model m {
      vocab 37, heads 2 x 8, ffn gelu(24), rope 10000
      blocks of 3 tokens {
        layers 4, width 24, embed lookup 8 concat
        layers 1 attend, kv heads 1
        layers rest cross-attend to cache@1
        emit context
      }
      tokens in block {
        layers 2, width 16
        prefix 2 from blocks.context
        layers 1 attend
        layers 2 cross-attend to cache@1
      }
    }""")
    assert not analysis.diagnostics
    unshared = archspec.plan(without_sharing(analysis.elaborated.spec, analysis.graph))
    assert analysis.plan().cache_formula() == "B*e*(16*ceil(T/3) + 128)"
    assert unshared.cache_formula() == "B*e*(64*ceil(T/3) + 256)"
