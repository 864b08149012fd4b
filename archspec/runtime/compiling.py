"""`torch.compile` around passes: one graph for every length and position."""

import types
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from archspec.runtime.cache import Cache, LiveLens, Storage
from archspec.runtime.network import Network, Phase

COMPILER = "inductor"
"""The `backend` argument of `torch.compile`."""


class RunPass(Protocol):
    """`Network.run` as a function of the network."""

    def __call__(
        self,
        network: Network,
        phase: Phase,
        inputs: Tensor,
        start: Tensor,
        storage: Storage | None,
        live_lens: LiveLens,
        pad_lens_B: Tensor | None = None,
    ) -> Tensor: ...


def run_pass(
    network: Network,
    phase: Phase,
    inputs: Tensor,
    start: Tensor,
    storage: Storage | None,
    live_lens: LiveLens,
    pad_lens_B: Tensor | None = None,
) -> Tensor:
    """`Network.run`, not compiled."""
    return network.run(phase, inputs, start, storage, live_lens, pad_lens_B)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A freshly compiled copy of a pass, to be called with all its arguments; compilation happens at the first call.

    Graphs are kept, and their number limited, per code object: every pass gets a code object of its own, so that
    neither phases nor models count against each other.
    """
    copy = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    run = torch.compile(copy, fullgraph=True, dynamic=True, backend=COMPILER)

    def call(*args: Any) -> Any:
        # Every eps of every norm would be an input of the graph otherwise.
        with torch._dynamo.config.patch(specialize_float=True):
            return run(*args)

    return call


class Runner:
    """Runs the phases of a network on a cache, compiled or not: one graph a phase, and one more where rows are padded.

    Effects of `__call__`: fills the cache, which still has to `advance`.
    """

    def __init__(self, network: Network, compile: bool) -> None:
        self.network, self.compile = network, compile
        self._passes: dict[tuple[Phase, bool], RunPass] = {}

    def __call__(self, phase: Phase, inputs: Tensor, cache: Cache | None, pad_lens_B: Tensor | None = None) -> Tensor:
        """`Network.run` for the next tokens of `cache`, or for positions from 0 without one."""
        storage: Storage | None = None
        live_lens: LiveLens = {}
        if cache is None:
            start = torch.zeros(1, dtype=torch.int64, device=inputs.device)
        else:
            start, storage, live_lens = cache.input_pos, cache.storage, cache.live_lens(inputs.shape[1])
        if not self.compile:
            return run_pass(self.network, phase, inputs, start, storage, live_lens, pad_lens_B)
        key = (phase, pad_lens_B is not None)
        if key not in self._passes:
            self._passes[key] = compiled(run_pass)
        return self._passes[key](self.network, phase, mark_inputs(inputs), start, storage, live_lens, pad_lens_B)


def mark_inputs(inputs: Tensor) -> Tensor:
    """`inputs` as a tensor whose length stays dynamic in a graph, even where it equals another size."""
    # A copy: of a view with a gradient the sizes of what it is a view of would enter the graph, and an axis of length 1
    # may have any stride and still be contiguous, but graphs are guarded by strides.
    own = inputs.clone(memory_format=torch.contiguous_format)
    own = own if inputs.requires_grad else own.detach()
    if own.shape[1] > 1:
        torch._dynamo.maybe_mark_dynamic(own, 1)
    if own.ndim > 2:  # the width of vectors, the length of blocks
        torch._dynamo.mark_static(own, 2)
    return own


def mark_slots(cache: Cache) -> None:
    """Tell the compiler which sizes of the buffers never change: all but batch and length.

    Left dynamic, a number of heads that happens to equal the batch size would tie the graph to that batch.
    """
    for buffer in cache.storage.slots:
        torch._dynamo.mark_static(buffer, [1, 2, 4])
    for state in cache.storage.states:
        torch._dynamo.mark_static(state, [1, 2, 3])
