"""`torch.compile` around passes: one graph for every length and position."""

import types
from typing import Protocol, cast

import torch
from torch import Tensor

from archspec.runtime.cache import Cache, Storage
from archspec.runtime.network import LiveLens, Network, Phase

COMPILER = "inductor"
"""The `backend` argument of `torch.compile`."""


class RunPass(Protocol):
    """`Network.run` as a function of the network."""

    def __call__(
        self,
        network: Network,
        phase: Phase,
        input_ids: Tensor,
        start: Tensor,
        storage: Storage | None,
        live_lens: LiveLens,
    ) -> Tensor: ...


def run_pass(
    network: Network,
    phase: Phase,
    input_ids: Tensor,
    start: Tensor,
    storage: Storage | None,
    live_lens: LiveLens,
) -> Tensor:
    """`Network.run`, not compiled."""
    return network.run(phase, input_ids, start, storage, live_lens)


def compiled_pass() -> RunPass:
    """A freshly compiled `run_pass`; compilation happens at the first call.

    Graphs are kept, and their number limited, per code object: every pass gets a code object of its own, so that
    neither phases nor models count against each other.
    """
    run = types.FunctionType(run_pass.__code__.replace(), run_pass.__globals__, "run_pass")
    compiled = cast(RunPass, torch.compile(run, fullgraph=True, dynamic=True, backend=COMPILER))

    def call(
        network: Network, phase: Phase, input_ids: Tensor, start: Tensor, storage: Storage | None, live_lens: LiveLens
    ) -> Tensor:
        # Every eps of every norm would be an input of the graph otherwise.
        with torch._dynamo.config.patch(specialize_float=True):
            return compiled(network, phase, input_ids, start, storage, live_lens)

    return call


def mark_ids(input_ids: Tensor) -> Tensor:
    """An alias of `input_ids` whose length stays dynamic in a graph, even where it equals another size."""
    alias = input_ids.contiguous().detach()
    if alias.shape[1] > 1:
        torch._dynamo.maybe_mark_dynamic(alias, 1)
    return alias


def mark_slots(cache: Cache) -> None:
    """Tell the compiler which sizes of the buffers never change: all but batch and length.

    Left dynamic, a number of heads that happens to equal the batch size would tie the graph to that batch.
    """
    for buffer in cache.storage.slots:
        torch._dynamo.mark_static(buffer, [1, 2, 4])
    for state in cache.storage.states:
        torch._dynamo.mark_static(state, [1, 2, 3])
