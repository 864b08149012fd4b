"""Decode steps from tapes, on a CPU."""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from archspec.runtime.cache import Cache
from archspec.runtime.decode_steps import Given, Step, lengths
from archspec.runtime.launches import Buffers
from archspec.runtime.tapes import Structure, Tape, record

MOST_TAPES = 8
"""Tapes of one cache that are kept: lengths grow, and seldom come again."""


class DecodeTapes:
    """Runs decode steps, from tapes where it can. One for a stack of layers."""

    def __init__(self, stack: nn.Module) -> None:
        self.failure: str | None = None
        """Why no tape is made any more."""
        self.num_recorded = self.num_played = 0
        self.latest: Tape | None = None
        """The tape that was made last."""
        # A tuple: the stack is no child of what it has.
        self._stack: tuple[nn.Module] = (stack,)
        self._structure: Structure | None = None
        self._caches: WeakKeyDictionary[Cache, dict[object, Tape]] = WeakKeyDictionary()
        self._buffers: WeakKeyDictionary[Cache, Buffers] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type["DecodeTapes"], tuple[nn.Module]]:
        """What a copy of the stack has is empty: tapes are of the weights and caches at hand."""
        return DecodeTapes, self._stack

    def forget(self) -> None:
        """Drop all tapes: weights are about to move."""
        self._caches.clear()
        self._buffers.clear()
        self.latest = None
        self._structure = None

    def run(self, step: Step, kind: object, given: Given, cache: Cache) -> Tensor:
        """`step(given)`, whose output is the caller's to keep; steps that differ have other kinds.

        Effects: those of the step.
        """
        if self.failure is not None or not given.is_plain():
            return step(given)
        if self._structure is None or not self._structure.holds():
            self.forget()
            self._structure = Structure(self._stack[0])
            if not self._structure.known:
                self.failure = "there are modules or tensors of others in the stack"
                return step(given)
        tapes = self._caches.setdefault(cache, {})
        # Graphs are compiled for a number of threads. Nothing is stored before the first position.
        state = torch.get_num_threads(), torch.is_inference_mode_enabled(), cache.num_cached_tokens == 0
        key = (kind, given.form(), state, lengths(cache))
        values = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        if key in tapes:
            self.num_played += 1
            return tapes[key].play(values)
        out, recorder = record(lambda: step(given), values, self._buffers.setdefault(cache, Buffers()))
        tape = recorder.tape(out)
        if tape is None:
            self.failure = recorder.failure
            return out
        self.num_recorded, self.latest = self.num_recorded + 1, tape
        while len(tapes) >= MOST_TAPES:
            del tapes[next(iter(tapes))]
        tapes[key] = tape
        return out
