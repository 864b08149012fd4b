"""CUDA graphs around the decode step: all kernels of a token launched by one call.

A graph replays what was captured with the addresses and the numbers of the host that it had then. Slots, states and
`input_pos` keep their addresses, positions come from `input_pos`, and inputs are copied to a fixed place first; what of
the host still matters is the length of the views of slots, and every set of lengths has a graph of its own. Tokens are
chosen in the graph, by chance that is drawn before and is one of its inputs: a seed means the same tokens without it.
"""

import warnings
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from archspec.runtime.cache import Cache
from archspec.runtime.decode_steps import Given, Step, lengths


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


class _OfCache:
    """The graphs of one cache."""

    def __init__(self) -> None:
        self.fixed: dict[object, Given] = {}
        """Where graphs read their inputs."""
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

    def run(self, step: Step, kind: object, given: Given, cache: Cache) -> Tensor:
        """`step(given)`, whose output is the caller's to keep; steps that differ have other kinds.

        Effects: those of the step.
        """
        if self.failure is not None or not given.is_plain():
            return step(given)
        of_cache = self._caches.setdefault(cache, _OfCache())
        form = given.form()
        # Nothing is stored before the first position.
        key = (kind, form, cache.num_cached_tokens == 0, lengths(cache))
        if key not in of_cache.graphs:
            of_cache.graphs[key] = None
            return step(given)
        if form not in of_cache.fixed:
            of_cache.fixed[form] = _fixed(given)
        fixed = of_cache.fixed[form]
        for place, value in zip(tree_leaves(fixed), tree_leaves(given), strict=True):
            if isinstance(place, Tensor):
                place.copy_(value)
        graph = of_cache.graphs[key]
        if graph is None:
            try:
                graph = of_cache.graphs[key] = self._capture(lambda: step(fixed))
            except RuntimeError as error:
                self._give_up(error)
                return step(given)
            self.num_captured += 1
        return graph.replay().clone()

    def _give_up(self, error: RuntimeError) -> None:
        self.failure = (str(error).strip().splitlines() or [type(error).__name__])[0]
        self.forget()
        warnings.warn(f"decoding goes on without CUDA graphs: {self.failure}", stacklevel=4)


def _fixed(given: Given) -> Given:
    with torch.inference_mode(False):  # or else they could not be written to outside of it
        places: Given = tree_map_only(
            Tensor, lambda x: torch.empty_like(x, memory_format=torch.contiguous_format), given
        )
        return places
