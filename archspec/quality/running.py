"""Jobs: train, evaluate, write the result. Any number of processes may work on one table; each may be killed."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from archspec.bench.machine import this_machine
from archspec.evaluation import LossReport, recall, text_loss
from archspec.quality.corpus import TRAINED_PAIRS, held_out_documents, mixed_corpus, recall_task, text_corpus
from archspec.quality.results import Bin, Point, Recall, Result, result_file, write_result
from archspec.quality.variants import CONTEXT, SPECS_FOLDER, Form, Job
from archspec.runtime.build import AnyModel
from archspec.training import Packed, Settings, Trained, train

CACHE_DTYPE = "bfloat16"
EVAL_SEED = 2
"""Of the examples of recall that are asked for; those that are trained on have another."""


@dataclass(frozen=True)
class Places:
    """Folders. `work` holds what may be deleted: the corpus, runs with their checkpoints, and locks."""

    specs: Path
    results: Path
    work: Path

    def corpus(self) -> tuple[Packed, Packed]:
        """The text, and the mixture that is trained on; made once."""
        self.work.mkdir(parents=True, exist_ok=True)
        with _held(self.work / "corpus.lock", wait=True):
            text = text_corpus(self.work / "text")
            return text, mixed_corpus(self.work / "mixed", text)

    def run_folder(self, job: Job) -> Path:
        return self.work / job.form.name / job.name


def settings(form: Form, seed: int) -> Settings:
    """The same for all models."""
    evals = max(1, form.steps // 8)
    return Settings(
        steps=form.steps, batch=form.batch, context=CONTEXT, lr=form.lr, seed=seed, bf16=True,
        eval_every=evals, eval_rows=32, save_every=max(1, form.steps // 16), log_every=10, keep=1,
        compile=form.compile,
    )  # fmt: skip


def work_off(jobs: list[Job], places: Places, device: str | None, progress: bool = False) -> None:
    """Do, one after the other, the jobs that have no result and that no other process does at the moment.

    Effects: writes results as they come; a job that was cut off goes on from its last checkpoint.
    """
    for job in jobs:
        if result_file(places.results, job).is_file():
            continue
        folder = places.run_folder(job)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _held(folder.with_suffix(".lock"), wait=False) as mine:
            if mine and not result_file(places.results, job).is_file():
                write_result(places.results, job, run(job, places, device, progress))
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def run(job: Job, places: Places, device: str | None, progress: bool = False) -> Result:
    """Train and evaluate a job's model. Effects: writes its run folder, and goes on where that one ends."""
    text, mixed = places.corpus()
    spec = places.specs / SPECS_FOLDER / f"{job.variant}.arch"
    wanted = settings(job.form, job.seed)
    trained = train(spec, mixed, places.run_folder(job), wanted, device=device, progress=progress)
    return _result(job, trained, text, mixed)


def _result(job: Job, trained: Trained, text: Packed, mixed: Packed) -> Result:
    form, model = job.form, trained.model
    model.eval()
    with torch.autocast(model.device.type, torch.bfloat16):  # as in training
        found = text_loss(model, held_out_documents(text, form.held_out_bytes), context=CONTEXT)
        rows = tuple(_recall(model, pairs, form.recall_examples) for pairs in TRAINED_PAIRS)
    machine = this_machine(model.device)
    return Result(
        form=form.name,
        variant=job.variant,
        seed=job.seed,
        spec=model.arch_text or "",
        parameters=model.plan.num_parameters(),
        cache_bytes=model.plan.cache_bytes(1, CONTEXT, CACHE_DTYPE),
        context=CONTEXT,
        steps=form.steps,
        tokens=form.steps * form.batch * CONTEXT,
        corpus=mixed.facts.digest,
        text_bytes=text.facts.num_tokens,
        loss=found.loss,
        bits_per_byte=found.bits_per_byte,
        predictions=found.tokens,
        bins=_bins(found),
        recall=rows,
        curve=_curve(trained),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hardware=machine.hardware,
        hardware_slug=machine.slug,
        versions=machine.versions,
    )


def _bins(found: LossReport) -> tuple[Bin, ...]:
    return tuple(Bin(**bin._asdict()) for bin in found.bins())


def _recall(model: AnyModel, pairs: int, examples: int) -> Recall:
    report = recall(model, recall_task(pairs), examples=examples, batch=8, seed=EVAL_SEED)
    return Recall(pairs=pairs, asked=report.asked, right=report.right, loss=report.nats)


def _curve(trained: Trained) -> tuple[Point, ...]:
    lines = [entry for entry in trained.history if "eval_loss" in entry]
    return tuple(Point(step=int(entry["step"]), loss=float(entry["eval_loss"])) for entry in lines)


@contextmanager
def _held(path: Path, wait: bool) -> Iterator[bool]:
    """Whether this process alone has the lock, which ends with the process at the latest."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
