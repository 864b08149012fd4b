"""What is compiled, by dynamo's account: as many graphs for a deep model as for a shallow one, none of them in vain."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import archspec
from archspec.cli.account import print_account, served_text
from archspec.runtime import compiling
from archspec.runtime.account import Compiled, account, noted

ROOT = Path(__file__).parents[2]
NANO = ROOT / "specs" / "nano"
DEEPER = {
    "nano_yoco": (("layers 8", "layers 16"), ("1-4", "1-8"), ("5-8", "9-16"), ("cache@4", "cache@8")),
    "nano_lckv": (("layers 8", "layers 16"), ("1, 7-8", "1, 15-16"), ("2-6", "2-14"), ("2-7", "2-15"), ("@7", "@15")),
    "nano_block": (("layers 4", "layers 8"), ("1-4", "1-8")),
}


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs, but no code of them."""
    monkeypatch.setattr(compiling, "COMPILER", "eager")


def accounted(text: str, **options: bool):
    return account(archspec.compile(archspec.parse_spec_text(text)), **options)


@pytest.mark.usefixtures("no_code")
@pytest.mark.parametrize("name", DEEPER)
def test_graphs_do_not_grow_with_depth(name: str) -> None:
    text = deeper = (NANO / f"{name}.arch").read_text().partition("model")[2]
    for old, new in DEEPER[name]:
        assert old in deeper
        deeper = deeper.replace(old, new)
    shallow, deep = accounted("model" + text), accounted("model" + deeper)
    assert 0 < shallow.graphs == deep.graphs
    assert sum(len(row.served) for row in deep.rows) > sum(len(row.served) for row in shallow.rows)
    for made in (shallow, deep):
        assert not any(row.breaks for row in made.rows)
        assert all(row.guards > 0 for row in made.rows if row.graphs)


@pytest.mark.usefixtures("no_code")
def test_account_of_a_training_step(capsys: pytest.CaptureFixture[str]) -> None:
    model = archspec.compile(archspec.parse(NANO / "nano_yoco.arch"))
    print_account(model, as_json=True, training=True)
    made = json.loads(capsys.readouterr().out)
    rows = {(row["phase"], row["unit"]): row for row in made["rows"]}
    assert rows["prefill", "own_layer"]["served"] == ["1", "2", "3", "4"]
    # One layer's rotation is as good as another's: what differs between layers of a kind is not compiled.
    assert rows["prefill", "own_layer"]["graphs"] == 1
    assert rows["decode", "own_row"]["graphs"] == 1
    assert rows["decode", "write_row"]["served"] == ["cache@4"]
    assert rows["training", "own_layer"]["graphs"] == 1
    assert ("training", "all, backward") in rows
    assert ("decode", *range(1, 9)) in {(found["phase"], *found["layers"]) for found in made["backends"]}
    assert all(found["reason"] for found in made["backends"])


@pytest.mark.usefixtures("no_code")
def test_account_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_account(archspec.compile(archspec.parse(NANO / "nano_llama.arch")), as_json=False, training=False)
    shown = capsys.readouterr().out
    assert re.search(r"own_layer +layers 1-7 \(7\) +1 +0 +\d+ +0 ", shown)
    assert re.search(r"^decode, layers 1-8 \(8\): (cpu|sdpa), ", shown, re.MULTILINE)
    assert re.search(r"^prefill, layer 8: (cpu|sdpa), last position only, a single row ", shown, re.MULTILINE)
    assert re.search(r"^decode step: \d+ calls, 0 kernels$", shown, re.MULTILINE)
    # None of these was run, but a long prompt has them.
    assert re.search(r"^prefill, later chunks, layers 1-7 \(7\): (cpu|sdpa), past: ", shown, re.MULTILINE)
    assert "recompiled" not in shown


@pytest.mark.usefixtures("no_code")
def test_levels_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    print_account(archspec.compile(archspec.parse(NANO / "nano_block.arch")), as_json=False, training=False)
    shown = capsys.readouterr().out
    for level in ("blocks", "tokens"):
        assert re.search(rf"^prefill, {level} layers 1-3 \(3\): (cpu|sdpa), ", shown, re.MULTILINE)
        assert re.search(rf"^prefill, {level} layer 4: (cpu|sdpa), last position only, ", shown, re.MULTILINE)
    assert "recompiled" not in shown


def test_recompilations_are_noted_with_their_reasons() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, flag: x + 1 if flag else x - 1, backend="eager")
    row = Compiled("decode", "unit")
    with noted(row):
        compiled(torch.ones(3), True)
    assert (row.graphs, row.breaks, row.recompiles) == (1, 0, [])
    with noted(row):
        compiled(torch.ones(3), False)
    assert (row.graphs, len(row.recompiles)) == (2, 1)
    assert "flag" in row.recompiles[0]


def test_layers_are_shown_as_ranges() -> None:
    assert served_text(["1", "2", "3", "5"]) == "layers 1-3, 5 (4)"
    assert served_text(["blocks 1", "blocks 2"]) == "blocks layers 1-2 (2)"
    assert served_text(["cache@4"]) == "cache@4"
    assert served_text(["8"]) == "layer 8"


WARM = """
import json, torch, archspec
from torch._dynamo.utils import counters
model = archspec.compile(archspec.parse_spec_text('''
model m {
  layers 2, width 32, vocab 61, ffn swiglu(48), norm rms(1e-5), rope 10000
  layers 1-2 attend, heads 4 x 8
}'''))
model.generate(torch.tensor([[1, 2, 3]]), 3)
print(json.dumps(dict(counters["inductor"])))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_second_process_compiles_nothing_anew(tmp_path: Path) -> None:
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", WARM], capture_output=True, text=True, env=env, cwd=ROOT, timeout=300, check=True
        )
        found.append(json.loads(done.stdout))
    cold, warm = found
    assert cold.get("fxgraph_cache_miss", 0) > 0
    assert warm.get("fxgraph_cache_hit", 0) >= cold["fxgraph_cache_miss"]
    assert warm.get("fxgraph_cache_miss", 0) == warm.get("fxgraph_cache_bypass", 0) == 0
