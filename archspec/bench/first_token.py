"""Time to the first token of a process: `python -m archspec.bench.first_token` measures it in a process of its own.

Counted from the built model on: a prefill and one decoded token, with all that is compiled for them. The weights are
random and the import of torch is left out, since neither depends on the compiler.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from archspec.spec.format import format_spec
from archspec.spec.model import ModelSpec

PROMPT = 64
TIMEOUT = 900.0
"""Seconds after which a process is given up."""


@dataclass(frozen=True)
class Job:
    """What a process is told on its standard input."""

    text: str
    """Of the spec."""
    device: str
    dtype: str
    batch: int
    threads: int


def cold_and_warm(spec: ModelSpec, *, device: str, dtype: str, batch: int, threads: int) -> tuple[float, float]:
    """Seconds to the first token with an empty compile cache, and in the next process with what that one left.

    Errors: RuntimeError with the end of what the process said, if it fails.
    """
    job = Job(format_spec(spec), device, dtype, batch, threads)
    with tempfile.TemporaryDirectory(prefix="archspec-bench-") as folder:
        return _in_a_process(job, folder), _in_a_process(job, folder)


def _in_a_process(job: Job, cache: str) -> float:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": os.path.join(cache, "triton")}
    command = [sys.executable, "-m", "archspec.bench.first_token"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(job)), env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no token within {TIMEOUT:.0f} seconds") from error
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return float(done.stdout.splitlines()[-1])


def _seconds(job: Job) -> float:
    import torch

    from archspec.bench.contestants import random_ids, random_model
    from archspec.bench.machine import synchronize
    from archspec.driver import parse_spec_text, plan

    torch.set_num_threads(job.threads)
    made = plan(parse_spec_text(job.text))
    model = random_model(made, device=job.device, dtype=job.dtype, compile=True)
    ids = random_ids(made, job.batch, PROMPT, model.device)
    cache = model.new_cache(job.batch, 2 * PROMPT)
    synchronize(model.device)
    start = time.perf_counter()
    logits = model.prefill(ids, cache)  # type: ignore[arg-type]
    model.decode(logits.argmax(-1), cache)  # type: ignore[arg-type]
    synchronize(model.device)
    return time.perf_counter() - start


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """What compilers print goes to stderr, so that stdout holds the number alone."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


if __name__ == "__main__":
    with _quiet_stdout():
        seconds = _seconds(Job(**json.load(sys.stdin)))
    print(seconds)
