"""Whole runs on one process: curves, what is left behind, and what is refused."""

import json
import math

import pytest
import torch
from runs import SMALL, SPECS, small_run, written_text
from typer.testing import CliRunner

import archspec
from archspec.cli.main import app
from archspec.training import Packed, Settings, pack, train
from archspec.training.curve import read_curve
from archspec.training.data import Rows
from archspec.training.trainer import _rows


@pytest.fixture
def text(tmp_path):
    return written_text(tmp_path / "text")


@pytest.mark.parametrize("name", SPECS)
def test_every_kind_of_model_learns(name, text, tmp_path):
    made = small_run(name, text, tmp_path / "out", steps=10)
    assert made.losses[-1] < made.losses[0] - 0.5
    lines = read_curve(tmp_path / "out")
    assert [line["step"] for line in lines if line["loss"] is not None] == list(range(1, 11))
    assert [line["step"] for line in lines if line["eval_loss"] is not None] == [3, 6, 9, 10]
    assert all(line["tokens"] == line["step"] * 4 * 16 for line in lines)
    saved = archspec.load(tmp_path / "out", compile=False)
    held = _rows(Packed.open(tmp_path / "out" / "tokens"), saved.plan, Settings(**SMALL), 1)[1]
    rows = torch.stack([held[i]["input_ids"] for i in range(len(held))])
    assert made.eval_loss == pytest.approx(saved.loss(rows).item(), rel=1e-4)


def reference_losses(name, text, tmp_path, steps):
    """The same steps, written out."""
    chosen = Settings(**{**SMALL, "steps": steps, "weight_decay": 0.1})
    model = archspec.compile(archspec.parse_spec_text(SPECS[name]), seed=0, compile=False)
    rows, _ = _rows(pack([text], tmp_path / "packed"), model.plan, chosen, 1)
    assert isinstance(rows, Rows)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(steps):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 1) / (steps - 1)))
        for group in optimizer.param_groups:
            group["lr"] = chosen.lr * (0.0 if step == 0 else 0.1 + 0.9 * cosine)
        loss = model.loss(torch.stack([rows[step * 4 + i]["input_ids"] for i in range(4)]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), chosen.clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ["yoco", "block"])
def test_steps_are_those_of_the_book(name, text, tmp_path):
    """AdamW over matrices with decay, clipping, warmup, cosine, rows in the order of the seed."""
    assert small_run(name, text, tmp_path / "out").losses == pytest.approx(
        reference_losses(name, text, tmp_path, 6), rel=1e-4
    )


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"checkpointing": True}, {"bf16": True}, {"log_every": 2}])
def test_ways_to_compute_the_same_curve(changes, text, tmp_path):
    plain, other = (small_run("lckv", text, tmp_path / f"out{i}", **more) for i, more in enumerate(({}, changes)))
    expected = plain.losses
    if "log_every" in changes:
        expected = [sum(pair) / 2 for pair in zip(expected[::2], expected[1::2], strict=True)]
        assert [line["step"] for line in read_curve(tmp_path / "out1") if line["loss"] is not None] == [2, 3, 4, 6]
        return
    assert other.losses == pytest.approx(expected, rel=2e-2 if "bf16" in changes else 1e-5)
    assert other.model.dtype == torch.float32
    assert (other.losses != expected) == ("checkpointing" not in changes)


def test_a_run_ends_as_a_model_folder_that_other_commands_take(text, tmp_path):
    folder = tmp_path / "spec.arch"
    folder.write_text(SPECS["yoco"])
    arguments = ["train", str(folder), "--data", str(text), "--steps", "3", "--batch", "2", "--context", "16"]
    arguments += ["--no-compile", "--device", "cpu", "-o", str(tmp_path / "out")]
    runner = CliRunner()
    first = runner.invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert "3 steps, loss" in first.output
    again = runner.invoke(app, arguments)
    assert "all 3 steps were done before" in again.output
    assert runner.invoke(app, ["export", str(tmp_path / "out"), "-o", str(tmp_path / "hf")]).exit_code == 0
    assert json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())["eos_token"] == "\0"
    made = runner.invoke(
        app, ["generate", str(tmp_path / "out"), "--tokens", "1,2", "--max-new-tokens", "2", "--no-compile"]
    )
    assert made.exit_code == 0, made.output
    on = runner.invoke(app, [*arguments[:1], str(tmp_path / "out"), *arguments[2:-1], str(tmp_path / "more")])
    assert on.exit_code == 0, on.output
    assert read_curve(tmp_path / "more")[0]["loss"] < read_curve(tmp_path / "out")[0]["loss"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 1 << 20}, "fewer than the 1,048,577 of one row"),
        ({"batch": 3, "accumulate": 2}, "cannot be cut into 2 equal parts"),
        ({"held_out": 0.001}, "held-out tokens are fewer"),
        ({"held_out": 1.5}, "fraction from 0 on and below 1"),
        ({"lr": -1.0}, "`lr` is a number above 0"),
        ({"warmup": 9}, "`warmup` is from 0 on"),
        ({"steps": 0}, "`steps` is a number from 1 on"),
        ({"tokenizer": "no/such/folder/x"}, "is no tokenizer"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(changes, message, text, tmp_path):
    with pytest.raises(ValueError, match=message):
        small_run("dense", text, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_folders_of_others_are_left_alone(text, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds something else"):
        small_run("dense", text, other)
    with pytest.raises(ValueError, match="is a file"):
        small_run("dense", text, other / "thesis.tex")
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_another_run_is_not_gone_on_with(text, tmp_path):
    small_run("dense", text, tmp_path / "out", steps=2)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for name, changes, message in (
        ("dense", {"steps": 3}, "steps was 2 and is 3"),
        ("yoco", {"steps": 2}, "the spec is another"),
        ("dense", {"steps": 2, "seed": 1}, "the start of the weights is another"),
        ("dense", {"steps": 2, "held_out": 0.2}, "holds a run over"),
    ):
        with pytest.raises(ValueError, match=message):
            small_run(name, text, tmp_path / "out", **changes)
    (text / "more.py").write_text("import this\n")
    with pytest.warns(UserWarning, match="the text has changed since"):
        assert small_run("dense", text, tmp_path / "out", steps=2).resumed_at == 2  # with the text that it began with
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_vocabularies_must_hold_all_tokens(text, tmp_path):
    spec = archspec.parse_spec_text(SPECS["dense"].replace("vocab 256", "vocab 200"))
    with pytest.raises(ValueError, match="has 256 ids, and dense a vocabulary of 200: write `vocab 256`"):
        train(spec, [text], tmp_path / "out", Settings(**SMALL), device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_ends_a_run(text, tmp_path):
    with pytest.raises(ValueError, match="the loss is nan at step"):
        small_run("dense", text, tmp_path / "out", lr=1e30, clip=1e30, steps=20)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--steps", "x"], 2), (["--device", "cuda:9"], 2), (["--lr", "0"], 1)]
)
def test_the_command_tells_what_is_wrong(arguments, code, text, tmp_path):
    (tmp_path / "spec.arch").write_text(SPECS["dense"])
    given = ["train", str(tmp_path / "spec.arch"), "--data", str(text), "-o", str(tmp_path / "out"), *arguments]
    assert CliRunner().invoke(app, given).exit_code in (code, 1)
    assert not (tmp_path / "out").exists()
