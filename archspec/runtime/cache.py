"""Preallocated cache slots and states, and how a pass writes into them.

Legend: B batch, S new tokens, T keys in a view, C allocated positions of a slot (cache_len), K kv heads,
H head_dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from archspec.plan import STATE_DTYPE, Plan

LIVE_BUCKET = 128
"""The view of the filled part of a buffer has a multiple of this length, unless the buffer ends: few distinct lengths,
and neither 0 nor 1, which compilers treat apart."""


@dataclass
class Storage:
    """The tensors of a cache.

    `slots[i]` is (B, K, 2, C, H), keys and values of slot i: a head's keys lie together, and so do its values, while
    no slice of either is ever contiguous as a whole, which a compiler would have to tell apart from one that is not.
    `states[i]` is (B, N, H, H).
    """

    slots: list[Tensor]
    states: list[Tensor]


class Cache:
    """Everything that a model remembers of `batch` sequences of up to `context` tokens.

    The buffers are allocated once; their addresses and strides never change.
    """

    def __init__(self, plan: Plan, batch: int, context: int, *, dtype: torch.dtype, device: torch.device) -> None:
        if batch < 1 or context < 1:
            raise ValueError(f"a cache needs batch >= 1 and context >= 1, not batch={batch}, context={context}")
        self.plan, self.batch, self.context, self.dtype, self.device = plan, batch, context, dtype, device
        self.storage = Storage(
            [self._zeros(dtype, s.num_kv_heads, 2, s.cache_len(context), s.head_dim) for s in plan.slots],
            [self._zeros(getattr(torch, STATE_DTYPE), s.num_heads, s.head_dim, s.head_dim) for s in plan.states],
        )
        self.input_pos = torch.zeros(1, dtype=torch.int64, device=device)
        """Position of the next token, on the device; equals `num_cached_tokens`."""
        self.num_cached_tokens = 0

    def _zeros(self, dtype: torch.dtype, *sizes: int) -> Tensor:
        return torch.zeros((self.batch, *sizes), dtype=dtype, device=self.device)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots and states."""
        return sum(tensor.nbytes for tensor in (*self.storage.slots, *self.storage.states))

    def advance(self, num_tokens: int) -> None:
        """Count `num_tokens` more tokens as written."""
        self.num_cached_tokens += num_tokens
        self.input_pos += num_tokens

    def reset(self) -> None:
        """Forget all tokens. The buffers stay; they are zeroed, since a leftover NaN would outlive a mask."""
        self.num_cached_tokens = 0
        for tensor in (self.input_pos, *self.storage.slots, *self.storage.states):
            tensor.zero_()

    def live_lens(self, num_new_tokens: int) -> dict[int | None, int]:
        """Length of the view of a buffer once `num_new_tokens` more are written, by the slot's window."""
        tokens = self.num_cached_tokens + num_new_tokens
        bucket = (tokens + LIVE_BUCKET - 1) // LIVE_BUCKET * LIVE_BUCKET
        return {slot.window: min(bucket, slot.cache_len(self.context)) for slot in self.plan.slots}

    def __repr__(self) -> str:
        return (
            f"Cache({self.num_cached_tokens} of {self.context} tokens, batch {self.batch}, {self.dtype}, "
            f"{self.device}, {self.nbytes} bytes)"
        )


def ring_positions(num_written: Tensor, cache_len: int, count: int) -> Tensor:
    """Positions in the first `count` places of a ring after `num_written` tokens; negative where empty.

    Shapes: `num_written` (1,), result (count,). Position p lives at place p % cache_len.
    """
    last = num_written - 1
    places = torch.arange(count, device=num_written.device)
    return last - (last - places) % cache_len


def write_in_place(buffer_BK2CH: Tensor, chunk_BK2SH: Tensor, positions_S: Tensor) -> None:
    """Store new keys and values where no two of them share a place. Effects: writes the buffer."""
    buffer_BK2CH.index_copy_(3, positions_S % buffer_BK2CH.shape[3], chunk_BK2SH)


def append_to_ring(
    buffer_BK2CH: Tensor, chunk_BK2SH: Tensor, start: Tensor, positions_S: Tensor
) -> tuple[Tensor, Tensor]:
    """Put a chunk of any length into a ring; return old and new entries together with their positions.

    A query early in the chunk still sees old entries that the chunk's end overwrites, hence the copy.

    Shapes: start (1,); returns (B, K, 2, C + S, H) and (C + S,).
    Effects: leaves the newest C positions in the buffer.
    """
    cache_len = buffer_BK2CH.shape[3]
    old_positions = ring_positions(start, cache_len, cache_len)
    new_positions = ring_positions(positions_S[-1:] + 1, cache_len, cache_len)
    # Where the ring's next content comes from: a place of the old ring, or of the chunk behind it. Gathering works
    # for chunks shorter and longer than the ring without asking which it is.
    places = torch.arange(cache_len, device=start.device)
    source = torch.where(new_positions >= start, new_positions - start + cache_len, places)
    joined = torch.cat((buffer_BK2CH, chunk_BK2SH), dim=3)
    buffer_BK2CH.copy_(joined.index_select(3, source))
    return joined, torch.cat((old_positions, positions_S))
