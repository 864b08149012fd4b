"""Large pages of memory for weights and caches: a decode step reads all of them, and is bound by how fast it can."""

import ctypes
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

from torch import Tensor

HUGE_PAGE = 2 << 20
NEIGHBOURS = 8192
"""Bytes between two allocations that lie one behind the other."""
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25  # include/uapi/asm-generic/mman-common.h of Linux


def use_large_pages(tensors: Iterable[Tensor]) -> None:
    """Move tensors of the CPU into large pages, as far as the kernel has any; their addresses stay.

    Best after they are written: memory that was never touched cannot be moved. Effects: copies them once.
    """
    advise = _madvise()
    if advise is None:
        return
    for begin, end in _stretches(tensor for tensor in tensors if tensor.device.type == "cpu"):
        first, last = -(-begin // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
        if last > first:
            advise(first, last - first, MADV_HUGEPAGE)
            advise(first, last - first, MADV_COLLAPSE)  # Linux 6.1; without it, the kernel moves them by and by


def _stretches(tensors: Iterable[Tensor]) -> list[tuple[int, int]]:
    """Addresses of memory without holes: large allocations mostly follow each other."""
    found: list[tuple[int, int]] = []
    for storage in sorted((tensor.untyped_storage() for tensor in tensors), key=lambda s: s.data_ptr()):
        begin, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        if found and begin - found[-1][1] <= NEIGHBOURS:
            begin, before = found.pop()
            end = max(end, before)
        found.append((begin, end))
    return found


@cache
def _madvise() -> Any:
    if sys.platform != "linux":
        return None
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if advise is not None:
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise
