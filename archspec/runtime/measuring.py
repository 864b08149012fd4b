"""What the runtime really allocates: caches, and the peak of a pass."""

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Its profiler would otherwise write two lines to stderr each time; read when torch is first imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.runtime.build import build_empty, cache_of, pick_device, pick_dtype


@dataclass(frozen=True)
class CacheBytes:
    """Bytes of a cache's buffers, and what the device's allocator counts for them."""

    buffers: int
    allocator: int | None
    """CUDA only: `torch.cuda.memory_allocated`, which rounds every buffer up to 512 bytes and counts positions too."""


@dataclass(frozen=True)
class PeakBytes:
    """Bytes at the peak of a pass, over what was there before: of tensors, and with the scratch of kernels."""

    tensors: int
    with_scratch: int
    """CPU: all that torch's allocator gave out. It depends on the instructions and threads that kernels use."""


def measure_cache(plan: AnyPlan, batch: int, context: int, dtype: str, device: str = "cpu") -> CacheBytes:
    """Allocate a cache and look. Errors: RuntimeError, MemoryError where it does not fit; ValueError for names."""
    target = pick_device(device)
    before = torch.cuda.memory_allocated(target) if target.type == "cuda" else 0
    cache = cache_of(plan, batch, context, pick_dtype(dtype), target)
    after = torch.cuda.memory_allocated(target) if target.type == "cuda" else None
    return CacheBytes(cache.nbytes, None if after is None else after - before)


@torch.no_grad()
def measure_passes(
    plan: AnyPlan, batch: int, context: int, dtype: str, chunk: int | None = None, device: str = "cpu"
) -> tuple[PeakBytes, PeakBytes]:
    """Peaks of a prefill of `context` tokens, `chunk` at a time, and of decoding the last token of `context`.

    Not compiled; the weights are zeros, which changes no size. In a model of levels every token of the last block is
    decoded, since one of them costs the most.
    """
    model = build_empty(plan, device=device, dtype=dtype, compile=False)
    for parameter in model.parameters():
        parameter.zero_()
    ids = torch.zeros((batch, context), dtype=torch.int64, device=model.device)
    cache: Any = model.new_cache(batch, context)
    model.prefill_chunk = chunk
    filled = peak_of(lambda: model.prefill(ids, cache), model.device)
    cache.reset()
    last = min(plan.block_length if isinstance(plan, LevelsPlan) else 1, context)
    if context > last:
        model.prefill(ids[:, last:], cache)
    decoded = [peak_of(lambda: model.decode(ids[:, 0], cache), model.device) for _ in range(last)]
    return filled, max(decoded, key=lambda peak: peak.tensors)


def peak_of(call: Callable[[], object], device: torch.device) -> PeakBytes:
    """The peak of one call, by looking at every operation."""
    tracker = StorageTracker()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        with tracker:
            call()
        return PeakBytes(tracker.peak, torch.cuda.max_memory_allocated(device) - before)
    with torch.autograd.profiler.profile(profile_memory=True) as profile, tracker:
        call()
    return PeakBytes(tracker.peak, _highest(profile))


def _highest(profile: Any) -> int:
    """The largest sum of allocations and releases, in their order."""
    changes = [(event.start_ns(), event.nbytes()) for event in profile.kineto_results.events() if _is_memory(event)]
    live = peak = 0
    for _, change in sorted(changes, key=lambda item: item[0]):
        live += change
        peak = max(peak, live)
    return peak


def _is_memory(event: Any) -> bool:
    return bool(event.name() == "[memory]")


class StorageTracker(TorchDispatchMode):
    """Bytes of the tensors that operations make, from the operation to the end of the last tensor on the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {
            tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)
        }
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), given)
        return out

    def _count(self, storage: Any, given: set[int]) -> None:
        key = storage._cdata
        if key in given or key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.live += self._sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.live -= self._sizes.pop(key)
