"""Packages: what is traced serves every layer and size and holds no weight; a process with a package compiles nothing."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from marks import slowly

import archspec
from archspec.runtime import units
from archspec.runtime.package import FOLDER, PackageError, UncompiledWarning, reading, write, writing
from archspec.runtime.package.calls import put_together, taken_apart
from archspec.runtime.package.expressions import symbols_of, value_of
from archspec.runtime.package.recording import record

ROOT = Path(__file__).parents[2]
NANO = ROOT / "specs" / "nano"
DENSE = """
model m {
  layers 3, width 32, vocab 61, ffn swiglu(48), norm rms(1e-5), rope 10000
  layers 1-3 attend, heads 4 x 8, kv heads 2
}
"""
YOCO = """
model m {
  layers 4, width 32, vocab 61, ffn swiglu(48), norm rms(1e-5), rope 10000
  layers 1-2 attend, heads 4 x 8, window 20
  cache@2: kv heads 2 x 8, norm rms
  layers 3-4 cross-attend to cache@2, heads 4 x 8
}
"""
RETAINED = YOCO.replace("attend, heads 4 x 8, window 20", "retention, heads 4 x 8")


def built(text: str, **options: object):
    return archspec.compile(archspec.parse_spec_text(text), **options)


def same_tokens(left, right, *shapes: tuple[int, int]) -> None:
    for shape in shapes:
        ids = torch.randint(left.plan.vocab_size, shape, generator=torch.Generator().manual_seed(1))
        assert torch.equal(left.generate(ids, 9), right.generate(ids, 9)), shape
        drawn = {"temperature": 0.8, "top_k": 7, "top_p": 0.9, "seed": 3}
        assert torch.equal(left.generate(ids, 5, **drawn), right.generate(ids, 5, **drawn)), shape


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.export.ExportedProgram]:
    """Packages of graphs that torch runs as they are: all but the C++ compiler takes part."""
    programs = {}

    def compile_unit(program: torch.export.ExportedProgram, path: Path) -> None:
        programs[path.name] = program
        path.write_text(path.name)

    def load_unit(path: Path):
        program = programs[path.name]
        num_weights = len(program.example_inputs[0][0])
        run = program.module(check_guards=False)
        return lambda flat: torch.utils._pytree.tree_leaves(run(flat[:num_weights], flat[num_weights:]))

    monkeypatch.setattr(writing, "compile_unit", compile_unit)
    monkeypatch.setattr(reading, "load_unit", load_unit)
    return programs


def written(model, folder: Path):
    with write(model, folder) as manifest:
        model.save(folder)
    return manifest


@pytest.mark.parametrize("name", ["nano_yoco", "nano_block", *slowly("nano_llama", "nano_lckv")])
def test_traced_units_serve_all_layers_and_sizes(name: str, traced_only, tmp_path: Path) -> None:
    spec = archspec.parse(NANO / f"{name}.arch")
    manifest = written(archspec.compile(spec), tmp_path)
    constants = [tensor for program in traced_only.values() for tensor in program.constants.values()]
    assert sum(tensor.numel() for tensor in constants if isinstance(tensor, torch.Tensor)) < 100
    assert all(not program.state_dict for program in traced_only.values())
    assert max(unit.num_layers for unit in manifest.units) >= 4
    with warnings.catch_warnings():
        warnings.simplefilter("error", UncompiledWarning)
        packaged, eager = archspec.load(tmp_path), archspec.load(tmp_path, compile=False)
        same_tokens(packaged, eager, (1, 5), (2, 90), (3, 17), (1, 200), (4, 2))


@pytest.mark.filterwarnings("error::archspec.runtime.package.UncompiledWarning")
@pytest.mark.parametrize("text", [YOCO, RETAINED], ids=["windows", "retention"])
def test_slots_and_states_are_written_through_a_package(text: str, traced_only, tmp_path: Path) -> None:
    written(built(text, dtype="bfloat16"), tmp_path)
    packaged, eager = archspec.load(tmp_path), archspec.load(tmp_path, compile=False)
    ids = torch.randint(61, (2, 30), generator=torch.Generator().manual_seed(1))
    caches = [model.new_cache(2, 50) for model in (packaged, eager)]
    for model, cache in zip((packaged, eager), caches, strict=True):
        model.prefill(ids[:, :20], cache)
        for t in range(20, 30):
            model.decode(ids[:, t], cache)
    left, right = (cache.storage for cache in caches)
    for a, b in zip((*left.slots, *left.states), (*right.slots, *right.states), strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, atol=2e-2, rtol=2e-2)


def test_other_weights_take_the_place_of_those_at_hand(traced_only, tmp_path: Path) -> None:
    written(built(DENSE), tmp_path)
    packaged, other = archspec.load(tmp_path), built(DENSE, seed=7, compile=False)
    same_tokens(packaged, archspec.load(tmp_path, compile=False), (1, 5))
    packaged.load_state_dict(other.state_dict(), assign=True)
    same_tokens(packaged, other, (1, 5))


def test_what_a_package_lacks_runs_uncompiled_with_one_warning(traced_only, tmp_path: Path) -> None:
    written(built(DENSE), tmp_path)
    packaged, eager = archspec.load(tmp_path), archspec.load(tmp_path, compile=False)
    ids = torch.randint(61, (2, 12))
    cache = packaged.new_cache(2, 20)
    packaged.prefill(ids[:, :6], cache)
    with pytest.warns(UncompiledWarning, match=r"has no unit `layer`.*runs uncompiled"):
        last = packaged.prefill(ids[:, 6:], cache)  # a second chunk
    torch.testing.assert_close(last, eager(ids)[:, -1], atol=1e-5, rtol=0)
    with pytest.warns(UncompiledWarning, match="with gradients"):
        packaged.loss(ids).backward()
    assert packaged.layers[0].mixer.q_proj.weight.grad is not None


@pytest.fixture
def unitless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model's folder with a package of no units."""
    monkeypatch.setattr(writing, "record", lambda model: [])
    written(built(DENSE), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"torch": "1.0"}, "made for torch 1.0, this is"),
        ({"archspec": "0.0.0"}, "made for archspec 0.0.0, this is"),
        ({"machine": "pdp11"}, "made for machine pdp11, this is"),
        ({"code": "x"}, "other sources of archspec's runtime"),
        ({"capabilities": ["teleport"]}, "processor with teleport, which this one lacks"),
        ({"dtype": "bfloat16"}, "is for bfloat16, the model is float32"),
        ({"plan": "x"}, "made for another spec"),
        ({"backend": "attend_abacus"}, "computes attention by attend_abacus"),
        ({"kernels": "x"}, "rows.so is not the file"),
        ({"units": 3}, r"no manifest of this version \(units"),
        ({"extra": 3}, r"no manifest of this version \(extra"),
    ],
)
def test_packages_that_do_not_fit_are_refused(unitless: Path, changes: dict[str, object], message: str) -> None:
    path = unitless / FOLDER / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    if "kernels" in changes:
        (unitless / FOLDER / "rows.so").write_bytes(b"no library")
    with pytest.raises(PackageError, match=message) as caught:
        archspec.load(unitless)
    assert "archspec compile --aot" in str(caught.value)
    archspec.load(unitless, package=False)
    archspec.load(unitless, compile=False)


def test_a_package_is_for_its_dtype(unitless: Path) -> None:
    with pytest.raises(PackageError, match="is for float32, the model is bfloat16"):
        archspec.load(unitless, dtype="bfloat16")
    (unitless / FOLDER / "manifest.json").unlink()
    with pytest.raises(PackageError, match="cannot be read"):
        archspec.load(unitless)


def test_a_package_that_fails_leaves_the_old_one(unitless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(unitless.rglob("*"))

    def fail(model: object) -> None:
        raise RuntimeError("no compiler")

    with pytest.raises(RuntimeError), write(built(DENSE), unitless):
        raise RuntimeError("disk full")
    monkeypatch.setattr(writing, "record", fail)
    with pytest.raises(RuntimeError), write(built(DENSE), unitless):
        pytest.fail("nothing to put in place")
    assert sorted(unitless.rglob("*")) == before


def test_a_call_comes_apart_and_together() -> None:
    model = built(YOCO, compile=False)
    for recorded in record(model):
        tensors, modules, form = taken_apart(recorded.args)
        again = put_together(recorded.args, tensors, modules)
        assert taken_apart(again).form == form
        assert len(recorded.met) == 2 or not any(recorded.changing(i) for i in range(len(tensors)))
        if recorded.unit is units.own_row:
            assert again[4] == recorded.args[4]  # the number of places that are looked at


def test_expressions() -> None:
    tree = ["LessThan", ["Add", "s0", ["Mul", -1, "s1"], ["FloorDiv", 7, 2]], ["Max", 3, "s1"]]
    assert symbols_of(tree) == {"s0", "s1"}
    assert value_of(tree, {"s0": 5, "s1": 4})
    assert not value_of(tree, {"s0": 50, "s1": 4})


NEVER_COMPILES = """
import subprocess, sys, warnings
import torch
def never(*args, **kwargs):
    raise AssertionError("something was compiled")
torch.compile = subprocess.run = subprocess.check_call = subprocess.check_output = never
subprocess.Popen.__init__ = never
import torch._inductor.compile_fx
torch._inductor.compile_fx.compile_fx = torch._dynamo.optimize = never
from archspec.runtime.package import UncompiledWarning
warnings.simplefilter("error", UncompiledWarning)
from torch._dynamo.utils import counters
from archspec.cli.main import main
try:
    main()
finally:
    assert not counters["frames"] and not counters["stats"], "dynamo looked at something"
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("text", [DENSE, YOCO], ids=["dense", "yoco"])
def test_a_package_generates_in_a_process_that_cannot_compile(text: str, tmp_path: Path) -> None:
    spec, folder, caches = tmp_path / "m.arch", tmp_path / "out", tmp_path / "caches"
    spec.write_text(text)
    caches.mkdir()
    command = [sys.executable, "-m", "archspec.cli.main", "compile", str(spec), "-o", str(folder), "--aot"]
    made = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=800)
    assert made.returncode == 0, made.stderr
    assert "compiled units" in made.stdout
    eager = archspec.load(folder, compile=False)
    some = bytes(eager.layers[0].mixer.q_proj.weight.detach().view(torch.uint8).flatten().tolist())[:64]
    assert sum(path.stat().st_size for path in (folder / FOLDER).glob("*.so")) > 0
    for file in (folder / FOLDER).glob("*.pt2"):
        assert some not in file.read_bytes()
    env = {**os.environ, "PATH": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(caches), "CXX": "none"}
    for prompt in ([5], [1, 2, 3], [n % 61 for n in range(50)]):
        ids = ",".join(map(str, prompt))
        command = [sys.executable, "-c", NEVER_COMPILES, "generate", str(folder), "--tokens", ids]
        done = subprocess.run(
            [*command, "--max-new-tokens", "12"], capture_output=True, text=True, env=env, cwd=ROOT, timeout=120
        )
        assert done.returncode == 0, done.stderr
        expected = eager.generate(torch.tensor([prompt]), 12)[0].tolist()
        assert [int(token) for token in done.stdout.split(",")] == expected
