"""kill -9 at chosen moments: what is there is whole, and the run goes on as if nothing had been."""

import json
import multiprocessing
import signal
from pathlib import Path

import pytest
import torch
from runs import MOMENTS, SAVES, SPECS, killed_run, killed_save, small_run, written_text

import archspec
import archspec.hf
from archspec.training.checkpoints import checkpoints
from archspec.training.curve import read_curve


@pytest.fixture(scope="module")
def fresh():
    """Starts processes that have all modules and have run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["archspec.training", "archspec.hf", "matplotlib.backends.backend_agg"])
    return context


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbs."""
    root = tmp_path_factory.mktemp("whole")
    written_text(root / "text")
    return small_run("yoco", root / "text", root / "out", keep=1)


def curve_of(folder: Path):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_curve(folder)]


def check_whole(folder: Path) -> None:
    """Whatever there is can be used."""
    kept = []
    for checkpoint in checkpoints(folder / "checkpoints"):
        kept.append(archspec.load(checkpoint.path, compile=False).state_dict())
        assert json.loads((checkpoint.path / "trainer_state.json").read_text())["global_step"] == checkpoint.step
        for name in ("optimizer.pt", "scheduler.pt"):
            assert torch.load(checkpoint.path / name)
    if (folder / "model.arch").exists():  # of the newest or of the one before, which may be gone
        found = archspec.load(folder, compile=False).state_dict()
        assert kept
        assert any(same(found, one) for one in kept) or len(kept) == 1


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_where_it_was(moment, fresh, whole, tmp_path):
    text, output = written_text(tmp_path / "text"), tmp_path / "out"
    process = fresh.Process(target=killed_run, args=(moment, text, output))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    check_whole(output)
    again = small_run("yoco", text, output, keep=1)
    assert again.resumed_at == MOMENTS[moment][0]
    assert curve_of(output) == curve_of(whole.folder)
    assert same(again.model.state_dict(), whole.model.state_dict())
    assert same(archspec.load(output, compile=False).state_dict(), whole.model.state_dict())
    assert not [path for path in output.rglob("*") if path.name.endswith(".tmp") or path.name == ".leaving"]
    assert (output / "loss.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("kind", ["save", "export"])
@pytest.mark.parametrize("moment", SAVES)
def test_a_killed_save_leaves_the_old_model_or_the_new(moment, kind, fresh, tmp_path):
    """Over the model of another spec; what else lies in a model folder stays."""
    models = {
        name: archspec.compile(archspec.parse_spec_text(SPECS[name]), compile=False) for name in ("dense", "yoco")
    }
    for name, model in models.items():
        model.save(tmp_path / name)
    if kind == "save":
        models["dense"].save(tmp_path / "out")
        (tmp_path / "out" / "notes.txt").write_text("kept")
    else:
        archspec.hf.export(tmp_path / "dense", tmp_path / "out")
    process = fresh.Process(target=killed_save, args=(moment, kind, tmp_path / "yoco", tmp_path / "out"))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    found = archspec.load(tmp_path / "out", compile=False)
    assert found.plan.name == SAVES[moment][0]
    assert same(found.state_dict(), models[found.plan.name].state_dict())
    assert kind == "export" or (tmp_path / "out" / "notes.txt").read_text() == "kept"
