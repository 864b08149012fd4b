"""Preallocated cache slots and states, and how a pass writes into them.

Legend: B batch, S new tokens, T keys in a view, C allocated positions of a slot (cache_len), K kv heads,
H head_dim.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from archspec.plan import STATE_DTYPE, CacheSlot, Plan
from archspec.runtime.attention import View
from archspec.runtime.pages import use_large_pages

LIVE_BUCKET = 128
"""The view of the filled part of a buffer has a multiple of this length, unless the buffer ends: few distinct lengths,
and neither 0 nor 1, which compilers treat apart."""

Live = Literal["near", "coarse", "whole"]
"""Views of stored keys: a bucket above what is stored; buckets that grow with it, where every length has its price; or
the whole buffer, for kernels that are told the length."""


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
            [self._empty(dtype, s.num_kv_heads, 2, s.cache_len(context), s.head_dim) for s in plan.slots],
            [self._empty(getattr(torch, STATE_DTYPE), s.num_heads, s.head_dim, s.head_dim) for s in plan.states],
        )
        self.input_pos = torch.zeros(1, dtype=torch.int64, device=device)
        """Position of the next token, on the device; equals `num_cached_tokens`."""
        self.num_cached_tokens = 0
        reaches = {(slot.window, slot.sinks): slot for slot in plan.slots}
        self.slots_by_reach = list(reaches.values())
        """One slot of each length that there is."""
        self.live: Live = "near"
        """How closely views of buffers are cut to what is in them."""
        self.pad_lens_B: Tensor | None = None
        """Leading positions of every row that are padding, int64 (B,), settled by the first prefill."""
        self.reset()
        use_large_pages(self.storage.slots)

    def _empty(self, dtype: torch.dtype, *sizes: int) -> Tensor:
        return torch.empty((self.batch, *sizes), dtype=dtype, device=self.device)

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

    def live_len(self, slot: CacheSlot, num_written: int) -> int:
        """Length of the view of a slot's buffer that holds `num_written` tokens."""
        whole = slot.cache_len(self.context)
        if self.live == "whole":
            return whole
        # An eighth of the power of two below: few lengths even of a long cache, and little that is read in vain.
        size = LIVE_BUCKET if self.live == "near" else max(LIVE_BUCKET, 1 << max(0, num_written.bit_length() - 4))
        return min(max(1, (num_written + size - 1) // size) * size, whole)

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
    buffer_BK2CH: Tensor, chunk: tuple[Tensor, Tensor], positions_S: Tensor, window: int | None, sinks: int
) -> None:
    """Store new keys and values where no two of them share a place. Effects: writes the buffer."""
    # Under autocast they come in another dtype than the cache has, which is the model's.
    new_BK2SH = torch.stack(chunk, dim=2).to(buffer_BK2CH.dtype)
    buffer_BK2CH.index_copy_(3, places_of(positions_S, window, sinks), new_BK2SH)


def stored_view(buffer_BK2CH: Tensor, num_written: Tensor, length: int, window: int | None, sinks: int) -> View:
    """What lies in the first `length` places of a buffer after `num_written` tokens. Shapes: num_written (1,)."""
    # Not one slice for both: that one may be contiguous, and compilers tell the cases apart.
    keys, values = buffer_BK2CH[:, :, 0, :length], buffer_BK2CH[:, :, 1, :length]
    ring = None if window is None else sinks + window
    return View(keys, values, stored_positions(num_written, length, window, sinks), line=window is None, ring=ring)


def view_before(
    buffer_BK2CH: Tensor, chunk: tuple[Tensor, Tensor], slot: CacheSlot, window: int, sinks: int, start: int
) -> View:
    """A copy, in order, of what readers with a window see of a slot and a chunk behind it, which begins at `start`.

    If a chunk begins among the sinks, they are not all stored yet; then the order of places is left as it is.
    """
    device, reaches = buffer_BK2CH.device, slot.window is not None
    own = torch.arange(start, start + chunk[0].shape[2], device=device)
    if start < sinks:
        positions = torch.arange(start, device=device)
        front, sinks = None, 0
    else:
        before = torch.arange(start - (window - 1), start, device=device)
        positions = torch.cat((torch.arange(sinks, device=device), torch.where(before < sinks, -1, before)))
        front = window - 1
    places = positions.clamp(min=0)
    places = places_of(places, slot.window, slot.sinks) if reaches else places
    old = buffer_BK2CH.index_select(3, places).unbind(2)
    keys, values = (torch.cat(pair, dim=2) for pair in zip(old, chunk, strict=True))
    return View(keys, values, torch.cat((positions, own)), front, sinks)


def keep_newest(buffer_BK2CH: Tensor, chunk: tuple[Tensor, Tensor], slot: CacheSlot, start: int) -> None:
    """Let a slot hold what it holds after a chunk that begins at `start`. Effects: writes the buffer."""
    end = start + chunk[0].shape[2]
    kept = [(start, end)]
    if slot.window is not None:
        kept = [(start, min(slot.sinks, end)), (max(start, slot.sinks, end - slot.window), end)]
    for begin, until in kept:
        if begin < until:
            positions = torch.arange(begin, until, device=buffer_BK2CH.device)
            part = (chunk[0][:, :, begin - start : until - start], chunk[1][:, :, begin - start : until - start])
            write_in_place(buffer_BK2CH, part, positions, slot.window, slot.sinks)
