"""The quality table: models of equal size, a corpus that is what it says, jobs that go on where they were, pages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import archspec
from archspec.bench.report import Left, Line, Machine, Measured, Report, Section
from archspec.bench.rounds import Spread
from archspec.bench.workloads import Workload
from archspec.quality import corpus, running
from archspec.quality.page import SPEED_FILE, page
from archspec.quality.plot import save_plot
from archspec.quality.results import Bin, Recall, Result, read_results, result_file, write_result
from archspec.quality.variants import CONTEXT, FORMS, REFERENCE, SPECS_FOLDER, VARIANTS, Form, Job, jobs

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "specs"
TINY = Form("tiny", steps=3, seeds=1, held_out_bytes=1500, recall_examples=1, batch=1, compile=False, specs=("small",))
SMALL = "model small { layers 2, width 16, vocab 256, heads 2 x 8, ffn gelu(16), rope 10000\nlayers 1-2 attend }"


def _plan(name: str):
    return archspec.plan(archspec.parse(SPECS / SPECS_FOLDER / f"{name}.arch"))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_model_has_the_size_of_the_dense_one_and_a_smaller_cache(variant):
    plan, dense = _plan(variant.name), _plan(REFERENCE)
    assert plan.name == variant.name
    assert 2e6 < plan.num_parameters() < 5e6
    assert abs(plan.num_parameters() / dense.num_parameters() - 1) < 0.01
    assert variant.name == REFERENCE or plan.cache_bytes(1, CONTEXT) < 0.7 * dense.cache_bytes(1, CONTEXT)


def test_jobs_are_in_an_order_in_which_a_part_is_a_table():
    wanted = jobs(FORMS["full"])
    assert len(wanted) == 3 * len(VARIANTS)
    assert [job.variant for job in wanted[: len(VARIANTS)]] == [variant.name for variant in VARIANTS]
    assert len({job.name for job in wanted}) == len(wanted)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Some files in place of the whole library, and a smaller model."""
    files = [path for path in corpus.library_files() if path.name in ("ast.py", "bisect.py", "csv.py", "heapq.py")]
    monkeypatch.setattr(corpus, "library_files", lambda: files)
    monkeypatch.setattr(corpus, "HELD_OUT", 0.1)
    (tmp_path / SPECS_FOLDER).mkdir()
    (tmp_path / SPECS_FOLDER / "small.arch").write_text(SMALL)
    return running.Places(tmp_path, tmp_path / "results", tmp_path / "work")


def test_the_library_has_sources_and_no_tests():
    files = corpus.library_files()
    assert len(files) > 100
    assert files == sorted(files, key=lambda path: path.parts)
    assert not any({"test", "tests", "site-packages", "idlelib"} & set(path.parts[-4:]) for path in files)


def test_an_eighth_of_all_rows_are_recall_and_the_rest_is_the_text_in_order(places):
    text, mixed = places.corpus()
    blocks = np.asarray(mixed.train).reshape(-1, 8, CONTEXT)
    assert (blocks[:, :7].reshape(-1) == np.asarray(text.train)[: blocks[:, :7].size]).all()
    assert (np.asarray(mixed.held_out) == np.asarray(text.held_out)).all()
    for number, row in enumerate(blocks[:, 7]):
        pairs = corpus.TRAINED_PAIRS[number % 4]
        keys, values = row[: 2 * pairs : 2], row[1 : 2 * pairs : 2]
        known = dict(zip(keys.tolist(), values.tolist(), strict=True))
        asked = [
            (int(a), int(b)) for a, b in zip(row[2 * pairs :], row[2 * pairs + 1 :], strict=False) if 0 < a < 128 <= b
        ]
        assert len(known) == len(asked) == pairs
        assert all(known[key] == value for key, value in asked)
    documents = list(corpus.held_out_documents(text, 1500))
    assert sum(len(document.ids) for document in documents) == 1500


def test_a_job_that_is_cut_off_goes_on_and_ends_as_one_that_is_not(places, monkeypatch):
    job = jobs(TINY)[0]
    whole = running.run(job, replace(places, work=places.work / "whole"), "cpu")

    with monkeypatch.context() as broken:
        broken.setattr(running, "text_loss", _killed)
        with pytest.raises(KeyboardInterrupt):
            running.work_off([job], places, "cpu")
    assert not result_file(places.results, job).exists()
    running.work_off([job], places, "cpu")
    (found,) = read_results(places.results, TINY.name)
    assert found.loss == pytest.approx(whole.loss, abs=1e-6)
    assert found.curve == whole.curve
    assert found.recall == whole.recall

    monkeypatch.setattr(running, "run", _killed)
    running.work_off([job], places, "cpu")  # nothing is left to do


def test_a_job_that_another_process_does_is_left_to_it(places, monkeypatch):
    job = jobs(TINY)[0]
    folder = places.run_folder(job)
    folder.parent.mkdir(parents=True)
    monkeypatch.setattr(running, "run", _killed)
    with running._held(folder.with_suffix(".lock"), wait=False) as mine:
        assert mine
        running.work_off([job], places, "cpu")
    assert not result_file(places.results, job).exists()


def _killed(*args, **kwargs):
    raise KeyboardInterrupt


def test_the_page_is_what_the_results_make():
    name, text = page(ROOT / "docs/benchmarks/quality")
    assert (ROOT / "docs/benchmarks" / name).read_text("utf-8") == text
    assert sorted(path.name for path in (ROOT / "docs/benchmarks").glob("quality_*.md")) == [name]


def test_results_are_of_specs_as_they_are():
    """A spec that is changed makes its results those of another model."""
    for form in FORMS:
        for result in read_results(ROOT / "docs/benchmarks/quality", form):
            plan = _plan(result.variant)
            assert result.parameters == plan.num_parameters()
            assert result.cache_bytes == plan.cache_bytes(1, CONTEXT, "bfloat16")
            assert Job(FORMS[form], result.variant, result.seed) in jobs(FORMS[form])


def _result(variant: str, seed: int, loss: float) -> Result:
    plan = _plan(variant)
    return Result(
        form="full", variant=variant, seed=seed, spec="", parameters=plan.num_parameters(),
        cache_bytes=plan.cache_bytes(1, CONTEXT, "bfloat16"), context=CONTEXT, steps=1600, tokens=1600 * 8 * CONTEXT,
        corpus="c" * 64, text_bytes=1000, loss=loss, bits_per_byte=loss / 0.6931, predictions=10,
        bins=(Bin(first=1, last=1, loss=loss + 1, predictions=2), Bin(first=2, last=2, loss=loss, predictions=8)),
        recall=(Recall(pairs=8, asked=8, right=2, loss=3.0), Recall(pairs=16, asked=16, right=4, loss=3.0)),
        curve=(), date=f"2026-11-2{seed}T00:00:00+00:00", hardware="A Processor", hardware_slug="a-processor", versions={"torch": "2"},
    )  # fmt: skip


def test_a_page_of_some_jobs_shows_medians_their_spread_and_what_is_missing(tmp_path):
    full = FORMS["full"]
    for seed, loss in enumerate((1.4, 1.5, 1.9)):
        write_result(tmp_path, Job(full, "dense", seed), _result("dense", seed, loss))
    write_result(tmp_path, Job(full, "cla2", 1), _result("cla2", 1, 1.53))
    name, text = page(tmp_path)
    assert name == "quality_a-processor_202611.md"
    assert "| dense | 3,198,144 | 3 | 1.500 (1.400 to 1.900) | - |" in text
    assert "| CLA2 | 3,173,568 | 1 | 1.530 | +0.030 |" in text  # beside dense of the same seed
    assert "| 512 KiB | 1/2.0 |" in text
    assert "(arXiv 2405.12981) | loss +0.030 against dense, 1/2.0 of its caches |" in text
    assert "Jobs that are in: 4 of 21. Not yet: `yoco_window` with seed 0" in text
    assert "8 and 16 pairs; guessing among the values of a sequence\ngives 0.09" in text
    save_plot(tmp_path / "figure.svg", read_results(tmp_path, "full"))
    drawn = (tmp_path / "figure.svg").read_text()
    assert "CLA2" in drawn
    assert "Block Transformer" not in drawn


def test_positions_that_a_model_does_not_predict_are_told_apart(tmp_path):
    dense, block = _result("dense", 0, 1.0), _result("block4", 0, 2.0)
    write_result(tmp_path, Job(FORMS["full"], "dense", 0), dense)
    write_result(tmp_path, Job(FORMS["full"], "block4", 0), block.model_copy(update={"bins": block.bins[1:]}))
    text = page(tmp_path)[1]
    assert "| dense | 2.00 | 1.00 |" in text
    assert "| Block Transformer, blocks of 4 | - | 2.00 |" in text
    save_plot(tmp_path / "figure.svg", read_results(tmp_path, "full"))


def test_a_page_needs_a_result(tmp_path):
    with pytest.raises(ValueError, match="there are no results"):
        page(tmp_path)


def test_speeds_are_ratios(tmp_path):
    workload = Workload("decode", batch=1, context=CONTEXT)
    ratios = {"dense": 1.0, "cla2": 1.25}
    lines = tuple(
        Line(
            workload=workload, what=str(workload), model=name, batch=1, rates=(100 * ratio,),
            tokens_per_second=Spread(100 * ratio, 0, 0), speed=Spread(ratio, ratio, ratio),
        )
        for name, ratio in ratios.items()
    )  # fmt: skip
    models = tuple(Measured(name=name, role="spec", parameters=1) for name in (*ratios, "block4"))
    left = Left(workload=workload, model="block4", why="no room")
    section = Section(title="quality", reference="dense", models=models, lines=lines, left=(left,))
    machine = Machine(
        processor="A", cores=2, threads=1, memory_bytes=None, accelerator=None, system="Linux", versions={}
    )
    report = Report(
        theme="quality", command="measure", date="2026-11-22", seconds=1, machine=machine, read_bandwidth={}, rounds=5,
        sections=(section,),
    )  # fmt: skip
    write_result(tmp_path, Job(FORMS["full"], "dense", 0), _result("dense", 0, 1.0))
    (tmp_path / SPEED_FILE).write_text(report.model_dump_json())
    text = page(tmp_path)[1]
    assert f"| model | {workload} |" in text
    assert "| CLA2 | 1.25 |" in text
    assert "| Block Transformer, blocks of 4 | - |" in text
    assert f"Not measured: block4, {workload}: no room." in text
