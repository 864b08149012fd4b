"""Decode steps as something that is kept and run again: what one takes, and what decides about it.

Of the host, what matters to a step besides its inputs is the length of the views of slots. Slots, states and
`input_pos` stay where they are, and positions come from `input_pos`.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from archspec.runtime.cache import Cache
from archspec.runtime.sampling import Draw


class Given(NamedTuple):
    """What a step takes besides the cache. Chance is drawn before: a seed means the same tokens however steps run."""

    inputs: Tensor
    pad_lens: Tensor | None
    draw: Draw | None = None
    """For the choice of tokens that is not greedy."""

    def is_plain(self) -> bool:
        """Whether the step is the one that is kept: it has no gradient, and autocast chooses no dtypes."""
        return not torch.is_grad_enabled() and not torch.is_autocast_enabled(self.inputs.device.type)

    def form(self) -> tuple[object, ...]:
        """The same for inputs that one kept step may serve."""
        leaves = tree_leaves(self)
        return tuple([(x.shape, x.stride(), x.dtype) if isinstance(x, Tensor) else x for x in leaves])


Step = Callable[[Given], Tensor]
"""Logits, vectors or chosen tokens, for the next position of a cache."""


class StepRunner(Protocol):
    """Runs decode steps of one stack of layers, again where it can."""

    failure: str | None
    """Why no step is kept any more."""

    def forget(self) -> None:
        """Drop what is kept: weights are about to move."""
        ...

    def run(self, step: Step, kind: object, given: Given, cache: Cache) -> Tensor:
        """`step(given)`, whose output is the caller's to keep; steps that differ have other kinds.

        Effects: those of the step.
        """
        ...


def lengths(cache: Cache) -> tuple[int, ...]:
    """The lengths of views of all slots, before and after the next position is written."""
    num_tokens = cache.num_cached_tokens
    slots = cache.slots_by_reach
    return tuple([cache.live_len(slot, written) for slot in slots for written in (num_tokens, num_tokens + 1)])
