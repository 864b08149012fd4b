"""The most memory that something takes while it runs, without slowing it down."""

import re
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""proc(5): sets the highest resident size to the present one."""


def peak_bytes(device: torch.device, call: Callable[[], object]) -> int | None:
    """Bytes at the peak of `call` over what was there before; None where the system does not say.

    On CUDA of torch's allocator; on Linux of resident memory, which is that of the process and of whole pages.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        _RESET.write_text(_RESET_PEAK)
        resident = _resident("VmRSS")
    except OSError:
        resident = None
    call()
    highest = _resident("VmHWM")
    return None if resident is None or highest is None else max(highest - resident, 0)


def _resident(name: str) -> int | None:
    """A line of the process's status, in bytes."""
    try:
        match = re.search(rf"^{name}:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) << 10 if match else None
