"""How fast the models of the table are side by side: by the method of `archspec bench`, with one thread."""

from pathlib import Path

import torch

from archspec.bench.entries import make_entries
from archspec.bench.report import Report
from archspec.bench.running import Comparison
from archspec.bench.session import run
from archspec.bench.workloads import Workload
from archspec.driver import analyse
from archspec.quality.variants import CONTEXT, REFERENCE, SPECS_FOLDER, VARIANTS

ROUNDS = 5
WORKLOADS = (
    Workload("decode", batch=1, context=CONTEXT),
    Workload("decode", batch=8, context=CONTEXT),
    Workload("prefill", batch=1, context=CONTEXT),
    Workload("train", batch=8, context=CONTEXT),
)


def measure(specs: Path, command: str) -> Report:
    """All models, in float32. Effects: sets torch's threads."""
    torch.set_num_threads(1)
    analyses = [analyse(specs / SPECS_FOLDER / f"{variant.name}.arch") for variant in VARIANTS]
    entries, _ = make_entries(analyses, baselines=False)
    comparison = Comparison("quality", entries, WORKLOADS, reference=REFERENCE)
    return run("quality", [comparison], device=torch.device("cpu"), rounds=ROUNDS, command=command)
