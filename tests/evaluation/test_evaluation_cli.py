"""`archspec eval`: tables, JSON, CSV, a figure, and errors that say where they come from."""

import csv
import io
import json

import eval_models
import pytest
from typer.testing import CliRunner

from archspec.cli.common import CliError
from archspec.cli.main import app

TEXT = "def f(x):\n    return x + 1\n" * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for name in ("dense", "levels"):
        model = eval_models.model(name)
        model.arch_text = eval_models.text_of(name)
        model.save(path / name)
    (path / "text.py").write_text(TEXT)
    return path


def run(*args):
    return CliRunner().invoke(app, ["eval", "--no-compile", *map(str, args)], catch_exceptions=True)


def test_models_beside_each_other(folder, tmp_path):
    plot = tmp_path / "out.png"
    models = (folder / "dense", folder / "levels")
    done = run(
        *models, "--data", folder / "text.py", "--context", 32, "--recall", "mqar", "--length", 40, "--plot", plot
    )
    assert done.exit_code == 0, done.output
    for shown in ("bits per byte", "tokens of context", "mqar"):
        assert shown in done.stdout
    assert f"wrote {plot}" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_json_says_the_same_as_python(folder):
    from archspec.evaluation import ByteEncoder, Needle, read_documents, recall, text_loss

    options = ("--recall", "needle", "--length", "100,128", "--examples", 4, "--cached", "--seed", 3)
    done = run(folder / "dense", "--data", folder / "text.py", "--context", 32, "--json", *options)
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    model = eval_models.model("dense")
    expected = text_loss(model, read_documents([folder / "text.py"], ByteEncoder()), context=32)
    assert found["text"]["loss"] == pytest.approx(expected.loss)
    assert found["text"]["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert found["text"]["tokens"] == expected.tokens == len(TEXT) - 1
    assert found["text"]["by_position"][-1]["last"] == 32
    for mapping, length in zip(found["recall"], (100, 128), strict=True):
        again = recall(model, Needle(length), examples=4, seed=3, cached=True)
        assert (mapping["length"], mapping["cached"]) == (length, True)
        assert mapping["loss"] == pytest.approx(again.nats)
        assert [row["asked"] for row in mapping["by_depth"]] == [1, 1, 1, 1]


def test_csv_has_every_position(folder):
    done = run(folder / "dense", "--data", folder / "text.py", "--context", 32, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [int(row["position"]) for row in rows] == list(range(1, 33))
    assert sum(int(row["predictions"]) for row in rows) == len(TEXT) - 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "--data"),
        (("--data", "text.py", "--recall", "mqar", "--csv"), "one table"),
        (("--data", "text.py", "--plot", "out.txt"), "end it in"),
        (("--data", "text.py", "--context", "many"), "no number of tokens"),
        (("--recall", "needle", "--depths", "half"), "write depths"),
    ],
)
def test_wrong_usage(folder, args, said, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    done = run("dense", *args)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("text.py", "--recall", "mqar"), "text.py: is no model folder"),
        (("absent", "--recall", "mqar"), "absent: holds no model.arch"),
        (("dense", "--data", "absent.txt"), "no file or folder at absent.txt"),
        (("dense", "--recall", "mqar", "--length", 16), "dense: 8 pairs and 8 questions take 32 tokens"),
        (("dense", "--recall", "needle", "--filler", "absent.txt"), "absent.txt"),
        (("levels", "--data", "text.py", "--context", 2), "levels: a context of 2 predicts nothing"),
        (("dense", "--data", "text.py", "--tokenizer", "absent"), "no tokenizer at absent"),
    ],
)
def test_what_cannot_be_worked_with(folder, args, said, monkeypatch):
    monkeypatch.chdir(folder)
    done = run(*args)
    assert isinstance(done.exception, CliError), done.exception
    assert said in str(done.exception)
