"""The quality table: trains small models of equal size that share caches in different ways, and writes the page.

    python benchmarks/quality.py --jobs 2         # about four hours on two cores
    python benchmarks/quality.py --short          # about ten minutes
    python benchmarks/quality.py --page           # the page and the figure, from the results that are in
    python benchmarks/quality.py --speed          # measure training and decoding side by side
    python benchmarks/quality.py --demo           # train the model that `make demo` lets write

Kill it whenever you like: the same command goes on where it was. Results come into docs/benchmarks/quality/, everything
else into out/quality/, which may be deleted. Several of these commands at once share the work.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from archspec.files import write_text
from archspec.quality.page import SPEED_FILE, page, read_forms
from archspec.quality.results import result_file
from archspec.quality.variants import FORMS, VARIANTS, Job, jobs

ROOT = Path(__file__).parents[1]
RAW, WORK, SPECS = ROOT / "docs/benchmarks/quality", ROOT / "out/quality", ROOT / "specs"
POLL_SECONDS = 2.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer steps, one seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train at a time")
    parser.add_argument("--only", action="append", choices=[variant.name for variant in VARIANTS], help="a model")
    parser.add_argument("--device", default="cpu", help="`cpu`, or `auto` for the accelerator")
    parser.add_argument("--page", action="store_true", help="only write the page and the figure")
    parser.add_argument("--speed", action="store_true", help="only measure speed, and write the page")
    parser.add_argument("--demo", action="store_true", help="only train the model of the demo")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def work(wanted: list[Job], device: str, progress: bool) -> None:
    """In this process."""
    import torch

    from archspec.quality.running import Places, work_off

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    work_off(wanted, Places(SPECS, RAW, WORK), None if device == "auto" else device, progress)


def in_processes(wanted: list[Job], count: int) -> None:
    """Start workers, and show what they do until all have ended."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    threads = max(1, (os.cpu_count() or 1) // count)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *sys.argv, "--worker"]
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "workers.log").open("a") as log:
        workers = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(count)]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        try:
            with Progress(*columns) as bar:
                whole = bar.add_task("steps of all jobs", total=sum(job.form.steps for job in wanted))
                while any(worker.poll() is None for worker in workers):
                    bar.update(whole, completed=sum(map(steps_done, wanted)))
                    time.sleep(POLL_SECONDS)
                bar.update(whole, completed=sum(map(steps_done, wanted)))
        finally:
            for worker in workers:
                worker.terminate()
    if any(worker.wait() for worker in workers):
        sys.exit(f"a worker failed: {WORK / 'workers.log'}")


def steps_done(job: Job) -> int:
    """By the result, or the curve so far."""
    if result_file(RAW, job).is_file():
        return job.form.steps
    curve = WORK / job.form.name / job.name / "loss.csv"
    last = curve.read_text().splitlines()[-1].split(",")[0] if curve.is_file() else ""
    return int(last) if last.isdigit() else 0


def write_page() -> None:
    """From raw results alone. The figure shows the longest form that has any."""
    from archspec.quality.plot import save_plot

    name, text = page(RAW)
    for old in RAW.parent.glob("quality_*.md"):
        if old.name != name:
            old.unlink()
    write_text(RAW.parent / name, text)
    save_plot(ROOT / "docs/figures/quality.svg", next(iter(read_forms(RAW).values())))
    print(f"docs/benchmarks/{name}")


def main() -> None:
    given = arguments()
    if given.demo:
        from archspec.quality.demo import train_demo

        train_demo(SPECS, WORK, ROOT / "examples" / "yoco_python")
        return
    if given.speed:
        from archspec.quality.speed import measure

        RAW.mkdir(parents=True, exist_ok=True)
        write_text(RAW / SPEED_FILE, measure(SPECS, "python benchmarks/quality.py --speed").model_dump_json() + "\n")
    if not (given.page or given.speed):
        wanted = jobs(FORMS["short" if given.short else "full"])
        wanted = [job for job in wanted if given.only is None or job.variant in given.only]
        if given.worker or given.jobs == 1:
            work(wanted, given.device, progress=not given.worker)
        else:
            in_processes(wanted, given.jobs)
    if not given.worker:
        write_page()


if __name__ == "__main__":
    main()
