"""Preallocated cache slots and states, and how a pass writes into them.

Legend: B batch, S new tokens, T keys in a view, C allocated positions of a slot (cache_len), K kv heads,
H head_dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from archspec.plan import STATE_DTYPE, CacheSlot, Plan

LIVE_BUCKET = 128
"""The view of the filled part of a buffer has a multiple of this length, unless the buffer ends: few distinct lengths,
and neither 0 nor 1, which compilers treat apart."""
LiveLens = dict[int | None, int]
"""Length of the view of a slot's buffer in one pass, by the slot's `reach`."""


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
    """Everything that a model remembers of `batch` sequences.

    The buffers are allocated once, for `context` tokens; their addresses and strides never change.
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
        self.pad_lens_B: Tensor | None = None
        """Leading positions of every row that are padding, int64 (B,), settled by the first prefill."""

    def _zeros(self, dtype: torch.dtype, *sizes: int) -> Tensor:
        return torch.zeros((self.batch, *sizes), dtype=dtype, device=self.device)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots and states."""
        return sum(tensor.nbytes for tensor in (*self.storage.slots, *self.storage.states))

    @property
    def capacity(self) -> int | None:
        """Number of tokens that fit; None if any number does, since every slot forgets old ones."""
        reaches = [reach(slot) for slot in self.plan.slots]
        return None if all(r is not None and r <= self.context for r in reaches) else self.context

    def advance(self, num_tokens: int) -> None:
        """Count `num_tokens` more tokens as written."""
        self.num_cached_tokens += num_tokens
        self.input_pos += num_tokens

    def reset(self) -> None:
        """Forget all tokens. The buffers stay; they are zeroed, since a leftover NaN would outlive a mask."""
        self.num_cached_tokens = 0
        self.pad_lens_B = None
        for tensor in (self.input_pos, *self.storage.slots, *self.storage.states):
            tensor.zero_()

    def live_lens(self, num_new_tokens: int) -> LiveLens:
        """Length of the view of a buffer once `num_new_tokens` more are written, by the slot's `reach`."""
        tokens = self.num_cached_tokens + num_new_tokens
        bucket = (tokens + LIVE_BUCKET - 1) // LIVE_BUCKET * LIVE_BUCKET
        return {reach(slot): min(bucket, slot.cache_len(self.context)) for slot in self.plan.slots}

    def __repr__(self) -> str:
        return (
            f"Cache({self.num_cached_tokens} of {self.context} tokens, batch {self.batch}, {self.dtype}, "
            f"{self.device}, {self.nbytes} bytes)"
        )


def reach(slot: CacheSlot) -> int | None:
    """Positions that a slot keeps of a long sequence; None: all."""
    return None if slot.window is None else slot.sinks + slot.window


def places_of(positions: Tensor, window: int | None, sinks: int) -> Tensor:
    """Where positions live in a buffer: the first `sinks` in front, a ring of `window` behind them."""
    if window is None:
        return positions
    ring = sinks + (positions - sinks) % window
    return torch.where(positions < sinks, positions, ring) if sinks else ring


def stored_positions(num_written: Tensor, count: int, window: int | None, sinks: int) -> Tensor:
    """Positions in the first `count` places of a buffer after `num_written` tokens; negative where empty.

    Shapes: `num_written` (1,), result (count,).
    """
    places = torch.arange(count, device=num_written.device)
    if window is None:
        return torch.where(places < num_written, places, -1)
    last = num_written - 1
    ring = last - (last - places) % window if sinks == 0 else _behind_sinks(last, places, window, sinks)
    return ring if sinks == 0 else torch.where(places < sinks, torch.where(places <= last, places, -1), ring)


def _behind_sinks(last: Tensor, places: Tensor, window: int, sinks: int) -> Tensor:
    """The ring's part of `stored_positions`: the same as without sinks, counted from the first position behind them."""
    offsets = (last - sinks) - (last - places) % window
    return torch.where(offsets < 0, -1, offsets + sinks)


def write_in_place(
    buffer_BK2CH: Tensor, chunk_BK2SH: Tensor, positions_S: Tensor, window: int | None, sinks: int
) -> None:
    """Store new keys and values where no two of them share a place. Effects: writes the buffer."""
    buffer_BK2CH.index_copy_(3, places_of(positions_S, window, sinks), chunk_BK2SH)


def keep_newest(
    buffer_BK2CH: Tensor,
    joined: tuple[Tensor, Tensor],
    start: Tensor,
    positions_S: Tensor,
    window: int,
    sinks: int,
) -> None:
    """Let a ring hold what it holds after a chunk of any length. Effects: writes the buffer.

    `joined` are keys and values (B, K, C + S, H), the ring's own, copied, and the chunk's behind them. Gathering from
    them works for chunks shorter and longer than the ring without asking which it is: a place's next content comes
    from the old ring, or from the chunk.
    """
    cache_len = buffer_BK2CH.shape[3]
    new_positions = stored_positions(positions_S[-1:] + 1, cache_len, window, sinks)
    places = torch.arange(cache_len, device=start.device)
    source = torch.where(new_positions >= start, new_positions - start + cache_len, places)
    for index, tensor in enumerate(joined):
        buffer_BK2CH[:, :, index].copy_(tensor.index_select(2, source))
