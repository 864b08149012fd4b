"""Where a run takes place: hardware, versions, and how fast memory can be read."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from archspec.bench.report import Machine

READ_BYTES = 512 << 20
"""Far more than any cache of a processor holds."""
READS = 5
PACKAGES = ("torch", "transformers", "archspec-lm")


def this_machine(device: torch.device) -> Machine:
    """What this process runs on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        system=f"{platform.system()} {platform.release()}",
        versions=found,
    )


def _processor() -> str:
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        names = []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def read_bandwidth(device: torch.device) -> float:
    """Bytes a second that a plain read of a large buffer reaches with torch's threads: the best of some reads.

    The best, not the median: it is the limit that steps are held against.
    """
    buffer = torch.ones(READ_BYTES // 4, device=device)
    seconds = []
    for read in (buffer.sum, lambda: torch.dot(buffer, buffer)):
        read()
        for _ in range(READS):
            synchronize(device)
            start = time.perf_counter()
            read()
            synchronize(device)
            seconds.append(time.perf_counter() - start)
    return READ_BYTES / min(seconds)


def bandwidths(device: torch.device) -> dict[str, float]:
    """Read bandwidth of the device; of a processor with one thread, and with all that torch uses."""
    if device.type != "cpu":
        return {device.type: read_bandwidth(device)}
    threads = torch.get_num_threads()
    found = {}
    try:
        for count in dict.fromkeys((1, threads)):
            torch.set_num_threads(count)
            found[f"{count} thread{'s' * (count > 1)}"] = read_bandwidth(device)
    finally:
        torch.set_num_threads(threads)
    return found


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
