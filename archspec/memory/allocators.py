"""Bytes that different allocators take for the caches of one plan, each from the same slots.

- `exact`: what `archspec.runtime` allocates, and `Plan.cache_bytes`.
- `hf-dynamic`: transformers' `DynamicCache`. A layer with a window W keeps the last W - 1 tokens between steps, since
  the next token brings the W-th (`DynamicSlidingWindowLayer`); its slice `[-W + 1:]` keeps everything if W is 1.
- `hf-static`: transformers' `StaticCache`, allocated for the whole context: min(T, W) for a window W.
- `paged:N`: blocks of N positions (vLLM, arXiv 2309.06180). A window that has begun to slide is cut by block borders at
  both ends, so that its W positions touch up to ceil((W - 1) / N) + 1 blocks; sinks stay in blocks of their own.

The two of transformers are counted in tensors, for a sequence of the same length, one layer a slot: layers that read
another layer's cache hold none there either. They know no sinks; those count as part of the window. Recurrent states
are the same everywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import DTYPE_BYTES, STATE_DTYPE, CacheSlot

Kind = Literal["exact", "hf-dynamic", "hf-static", "paged"]


@dataclass(frozen=True)
class Allocator:
    """How much room a slot takes."""

    kind: Kind = "exact"
    block: int = 1
    """Positions in a block, if paged."""

    def __str__(self) -> str:
        return f"paged:{self.block}" if self.kind == "paged" else self.kind

    def positions(self, slot: CacheSlot, seen: int) -> int:
        """Positions that a slot has room for after `seen` positions of one sequence."""
        if slot.window is None:
            return self._blocks(seen) if self.kind == "paged" else seen
        match self.kind:
            case "exact" | "hf-static":
                return slot.cache_len(seen)
            case "hf-dynamic":
                reach = slot.sinks + slot.window - 1
                return min(seen, reach) if reach else seen
            case "paged":
                sliding = -(-(slot.window - 1) // self.block) + 1
                return min(self._blocks(seen), self._blocks(slot.sinks) + sliding * self.block)

    def _blocks(self, positions: int) -> int:
        """Rounded up to whole blocks."""
        return -(-positions // self.block) * self.block


EXACT = Allocator()


def parse_allocator(text: str) -> Allocator:
    """`exact`, `hf-dynamic`, `hf-static`, `paged:16`. Raises ValueError."""
    kind, _, block = text.partition(":")
    if kind == "paged" and block.isdecimal() and 1 <= int(block[:10]) <= 1 << 20 and len(block) <= 7:
        return Allocator("paged", int(block))
    for known in ("exact", "hf-dynamic", "hf-static"):
        if text == known:
            return Allocator(known)
    raise ValueError(f"`{text}` is no allocator: write exact, hf-dynamic, hf-static or paged:16")


def slot_bytes(plan: AnyPlan, batch: int, context: int, element_bytes: int, allocator: Allocator = EXACT) -> int:
    """Bytes of the slots of `batch` sequences of `context` tokens, without states."""
    positions = sum(slot.elements_per_token * allocator.positions(slot, seen) for slot, seen in _seen(plan, context))
    return batch * positions * element_bytes


def state_bytes(plan: AnyPlan, batch: int) -> int:
    """Bytes of the recurrent states."""
    return batch * sum(state.elements for state in plan.states) * DTYPE_BYTES[STATE_DTYPE]


def _seen(plan: AnyPlan, context: int) -> Iterator[tuple[CacheSlot, int]]:
    """Every slot, and the positions of its own stack that a sequence of `context` tokens has."""
    if isinstance(plan, LevelsPlan):
        yield from ((slot, plan.num_blocks(context)) for slot in plan.blocks.slots)
        yield from ((slot, plan.block_positions) for slot in plan.tokens.slots)
    else:
        yield from ((slot, context) for slot in plan.slots)
