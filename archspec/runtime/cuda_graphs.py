"""CUDA graphs around the decode step: all kernels of a token launched by one call.

A graph replays what was captured with the addresses and the numbers of the host that it had then. Slots, states and
`input_pos` keep their addresses, positions come from `input_pos`, and inputs are copied to a fixed place first; what of
the host still matters is the length of the views of slots, and every set of lengths has a graph of its own.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from archspec.runtime.cache import Cache

Step = Callable[[Tensor, Tensor | None], Tensor]
"""`step(inputs, pad_lens) -> logits` or vectors, for the next position of a cache."""


class Graph(Protocol):
    """What was captured."""

    def replay(self) -> Tensor:
        """Run it again; the output, which the next replay overwrites."""
        ...


Capture = Callable[[Callable[[], Tensor]], Graph]
"""Capture a call without running it. Errors: RuntimeError if it does what a graph cannot hold."""


class CudaGraph:
    """A graph on the current CUDA device. All of them share one pool of memory, since one replays at a time."""

    _pool: Any = None

    def __init__(self, call: Callable[[], Tensor]) -> None:
        if CudaGraph._pool is None:
            CudaGraph._pool = torch.cuda.graph_pool_handle()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=CudaGraph._pool):
            self._out = call()

    def replay(self) -> Tensor:
        self._graph.replay()
        return self._out


class _Fixed(NamedTuple):
    """Where the graphs of a cache read their inputs."""

    inputs: Tensor
    pad_lens: Tensor | None


class _OfCache:
    """The graphs of one cache."""

    def __init__(self) -> None:
        self.fixed: dict[object, _Fixed] = {}
        self.graphs: dict[object, Graph | None] = {}
        """None: run once as it is, which compiles what there is to compile, and to be captured the next time."""


class DecodeGraphs:
    """Runs decode steps, captured where it can. One for a stack of layers."""

    def __init__(self, capture: Capture = CudaGraph) -> None:
        self.failure: str | None = None
        """Why nothing is captured any more."""
        self.num_captured = 0
        self._capture = capture
        self._caches: WeakKeyDictionary[Cache, _OfCache] = WeakKeyDictionary()

    def forget(self) -> None:
        """Drop all graphs: weights are about to move."""
        self._caches.clear()

    def run(self, step: Step, inputs: Tensor, cache: Cache, pad_lens_B: Tensor | None) -> Tensor:
        """`step(inputs, pad_lens_B)`, whose output is the caller's to keep. Effects: those of the step."""
        if self.failure is not None or torch.is_grad_enabled():
            return step(inputs, pad_lens_B)
        of_cache = self._caches.setdefault(cache, _OfCache())
        shape = (inputs.shape, inputs.dtype, pad_lens_B is None)
        key = (shape, cache.num_cached_tokens == 0, lengths(cache))  # nothing is stored before the first position
        if key not in of_cache.graphs:
            of_cache.graphs[key] = None
            return step(inputs, pad_lens_B)
        if shape not in of_cache.fixed:
            of_cache.fixed[shape] = _fixed(inputs, pad_lens_B)
        fixed = of_cache.fixed[shape]
        fixed.inputs.copy_(inputs)
        if fixed.pad_lens is not None and pad_lens_B is not None:
            fixed.pad_lens.copy_(pad_lens_B)
        graph = of_cache.graphs[key]
        if graph is None:
            try:
                graph = of_cache.graphs[key] = self._capture(lambda: step(*fixed))
            except RuntimeError as error:
                self._give_up(error)
                return step(inputs, pad_lens_B)
            self.num_captured += 1
        return graph.replay().clone()

    def _give_up(self, error: RuntimeError) -> None:
        self.failure = (str(error).strip().splitlines() or [type(error).__name__])[0]
        self.forget()
        warnings.warn(f"decoding goes on without CUDA graphs: {self.failure}", stacklevel=4)


def lengths(cache: Cache) -> tuple[int, ...]:
    """The lengths of views of all slots, before and after the next position is written."""
    num_tokens = cache.num_cached_tokens
    return tuple(cache.live_len(slot, written) for slot in cache.plan.slots for written in (num_tokens, num_tokens + 1))


def _fixed(inputs: Tensor, pad_lens_B: Tensor | None) -> _Fixed:
    with torch.inference_mode(False):  # or else they could not be written to outside of it
        pads = None if pad_lens_B is None else torch.empty_like(pad_lens_B)
        return _Fixed(torch.empty_like(inputs, memory_format=torch.contiguous_format), pads)
