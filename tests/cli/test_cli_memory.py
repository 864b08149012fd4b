"""`archspec memory` as its users meet it."""

import csv
import io
import json
import re
import struct
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from test_cli import NANO, ROOT, TORCH, YOCO_3B, run

from archspec.cli.main import main

LLAMA = ROOT / "specs" / "nano" / "nano_llama.arch"
BLOCK = ROOT / "specs" / "nano" / "nano_block.arch"
TRANSFORMER = ROOT / "specs" / "yoco" / "transformer_3b_gqa.arch"


def memory(*args: object) -> SimpleNamespace:
    """The command in this process, which is faster than one of its own."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["archspec", "memory", *map(str, args)]):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def facts(*args: object) -> dict:
    done = memory(*args, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_one_row_for_each_batch_and_context() -> None:
    found = facts(YOCO_3B, "--batch", "1,8", "--context", "4K,1M")
    assert [(row["batch"], row["context"]) for row in found["rows"]] == [
        (b, c) for b in (1, 8) for c in (4096, 1 << 20)
    ]
    for row in found["rows"]:
        assert row["cache_bytes"] == row["slot_bytes"] + row["state_bytes"]
        peak = max(row["prefill_peak_bytes"], row["decode_peak_bytes"])
        assert row["total_bytes"] == row["weight_bytes"] + row["cache_bytes"] + peak
        assert row["weight_bytes"] == found["weight_bytes"] == 2 * found["num_parameters"]
    assert found["cache_formula"] == "B*e*(2048*T + 79872*min(T, 1024))"
    assert found["cache_formula_latex"] == r"B e \left(2048 T + 79872 \min\left(T, 1024\right)\right)"


def test_cache_types_and_allocators() -> None:
    def bytes_of(*options: str) -> int:
        return facts(YOCO_3B, "--context", "5000", *options)["rows"][0]["cache_bytes"]

    exact = 2048 * 5000 + 79872 * 1024
    assert bytes_of("--dtype", "float32") == 4 * exact
    assert bytes_of("--cache-dtype", "int8") == bytes_of("--cache-dtype", "float8") == exact
    assert bytes_of("--allocator", "hf-static") == 2 * exact
    assert bytes_of("--allocator", "hf-dynamic") == 2 * (exact - 79872)
    assert bytes_of("--allocator", "paged:16") == 2 * (2048 * 5008 + 79872 * 65 * 16)


def test_several_models_side_by_side() -> None:
    found = facts(TRANSFORMER, YOCO_3B, "--context", "1M")["models"]
    assert [model["model"] for model in found] == ["transformer_3b_gqa", "yoco_3b_window"]
    ratios = [model["rows"][0]["ratio_to_first"] for model in found]
    assert ratios[0] == 1
    assert 1 / ratios[1] == pytest.approx(53248 / (2048 + 79872 / 1024))
    done = memory(TRANSFORMER, YOCO_3B, "--context", "1M")
    assert re.search(r"1M\s+104 GiB\s+4\.15 GiB\s+1/25\.0", done.stdout)


def test_works_without_torch_and_matplotlib() -> None:
    done = run("memory", TRANSFORMER, YOCO_3B, "--gpu", "80GB", blocked=(*TORCH, "matplotlib"))
    assert (done.returncode, done.stderr) == (0, "")


def test_csv_has_the_rows_of_json() -> None:
    args = (TRANSFORMER, NANO, "--context", "100,4K", "--gpu", "80GB")
    lines = list(csv.DictReader(io.StringIO(memory(*args, "--csv").stdout)))
    rows = [{"model": model["model"]} | row for model in facts(*args)["models"] for row in model["rows"]]
    assert [{key: str(value) for key, value in row.items()} for row in rows] == lines


def test_what_fits_a_gpu() -> None:
    found = facts(YOCO_3B, "--context", "1M", "--gpu", "80GB")
    (row,) = found["rows"]
    assert found["budget_bytes"] == 80 * 10**9
    assert row["longest_context_limit"] in ("caches", "activations")
    more = facts(YOCO_3B, "--batch", f"{row['largest_batch']},{row['largest_batch'] + 1}", "--context", "1M")["rows"]
    assert more[0]["total_bytes"] <= 80 * 10**9 < more[1]["total_bytes"]
    assert facts(YOCO_3B, "--gpu", "1GB")["rows"][0]["largest_batch_limit"] == "weights"
    shown = memory(YOCO_3B, "--context", "1M", "--gpu", "80GB").stdout
    assert f"batch {row['largest_batch']}" in shown
    assert f"context {row['longest_context']:,}" in shown


@pytest.mark.parametrize("path", [NANO, YOCO_3B, BLOCK], ids=lambda path: path.stem)
def test_tables_are_80_columns_wide(path: Path) -> None:
    shown = memory(path, "--gpu", "80GB", "--batch", "1,64").stdout
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_latex() -> None:
    shown = memory(NANO, "--context", "4K", "--latex").stdout
    assert r"\[ B e \left(128 T + 1024 \min\left(T, 64\right)\right) \]" in shown
    assert r"nano\_yoco & without sharing \\" in shown
    assert "1 & 4K & 1.12 MiB & 4.12 MiB \\\\" in shown


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_plots(tmp_path: Path, kind: str) -> None:
    picture = tmp_path / f"memory.{kind}"
    args = (TRANSFORMER, YOCO_3B, "--context", "32K,1M", "--plot", picture)
    assert memory(*args).returncode == 0
    first = picture.read_bytes()
    assert memory(*args).returncode == 0
    assert picture.read_bytes() == first  # no date in it
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]
    if kind == "png":
        width, height = struct.unpack(">II", first[16:24])
        assert width == 990  # 3.3 inches of 300 dots
        assert 600 < height < 1000


def test_plots_need_matplotlib_and_a_place(tmp_path: Path) -> None:
    done = run("memory", NANO, "--plot", tmp_path / "a.png", blocked=("matplotlib",))
    assert (done.returncode, "install `archspec-lm[plot]`" in done.stderr) == (1, True)
    done = memory(NANO, "--plot", tmp_path / "no" / "a.png")
    assert (done.returncode, "cannot write" in done.stderr) == (1, True)
    assert memory(NANO, "--plot", tmp_path / "a.gif").returncode == 2
    assert not list(tmp_path.iterdir())


def test_measured_beside_planned() -> None:
    done = run("memory", LLAMA, "--batch", "2", "--context", "100", "--dtype", "float32", "--measure-passes", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)["rows"]
    assert row["measured_bytes"] == row["cache_bytes"] == 819_200
    for name in ("prefill", "decode"):
        assert row[f"measured_{name}_peak_bytes"] == pytest.approx(row[f"{name}_peak_bytes"], rel=0.05)
        assert row[f"measured_{name}_peak_bytes_with_scratch"] >= row[f"measured_{name}_peak_bytes"]


def test_prompts_are_counted_as_they_are_taken_up() -> None:
    paths = [f"specs/nano/nano_{name}.arch" for name in ("yoco", "block", "lckv")]

    def chunks(*options: str) -> list[int | None]:
        shown = json.loads(memory(*paths, "--context", "16K", "--json", *options).stdout)
        return [model["prefill_chunk"] for model in shown["models"]]

    assert chunks() == [2048, 8192, None]
    assert chunks("--prefill-chunk", "1023") == [1023, 1020, 1023]  # whole blocks of 4
    assert chunks("--prefill-chunk", "1") == [1, 4, 1]
    assert "peaks of activations, prefill of whole prompts;" in memory(paths[2], "--context", "4K").stdout
    fits = " ".join(memory(*paths, "--context", "4K", "--gpu", "1GiB").stdout.split())
    assert "nano_yoco prefill of 2K tokens at a time, nano_block prefill of 8K tokens at a time" in fits


def test_measured_in_a_table() -> None:
    shown = memory(LLAMA, "--batch", "2", "--context", "100", "--measure").stdout
    assert re.search(r"2 +100 +caches +409,600 +409,600 +none", shown)


def test_what_the_machine_cannot_hold_is_refused() -> None:
    done = memory(NANO, "--batch", "1000000", "--context", "1M", "--measure")
    assert done.returncode == 1
    assert "bytes cannot be allocated here: measure a smaller --context" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--gpu", "80"), 2, "80GB or 24GiB"),
        (("--allocator", "paged:0"), 2, "is no allocator"),
        (("--batch", "0"), 2, "--batch"),
        (("--prefill-chunk", "x"), 2, "--prefill-chunk"),
        (("--prefill-chunk", "0"), 2, "--prefill-chunk"),
        (("--prefill-chunk", "1K,2K"), 2, "one number, not 2"),
        (("--dtype", "int4"), 2, "int4"),
        (("--json", "--csv"), 2, "choose one"),
        (("--measure", "--cache-dtype", "int8"), 1, "no caches of int8"),
        (("--measure-passes", "--cache-dtype", "float32"), 1, "leave out --cache-dtype"),
        (("--measure", "--device", "warp"), 1, "warp"),
    ],
)
def test_bad_options(args: tuple[str, ...], code: int, said: str) -> None:
    done = memory(NANO, *args)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
