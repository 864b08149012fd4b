"""What generation by others asks of a cache beside decoding: other rows, more room, fewer tokens.

Legend: B rows before, R rows after.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from archspec.plan import Plan
from archspec.runtime.build import cache_of
from archspec.runtime.cache import Cache
from archspec.runtime.level_cache import LevelsCache

AnyCache = Cache | LevelsCache


def select_rows(cache: AnyCache, rows_R: Tensor) -> AnyCache:
    """A cache whose row r is row `rows_R[r]` of this one.

    Effects: with as many rows as before it is this cache, changed in place slot by slot, so that no second one is
    ever allocated.
    """
    batch = rows_R.shape[0]
    target = cache if batch == cache.batch else cache_of(cache.plan, batch, cache.context, cache.dtype, cache.device)
    for into, tensor in zip(_rows(target), _rows(cache), strict=True):
        into.copy_(tensor.index_select(0, rows_R))
    _take_over(target, cache, rows_R)
    return target


def with_room(cache: AnyCache, num_tokens: int) -> AnyCache:
    """This cache if `num_tokens` more fit into it, else a larger one with the same content.

    Room is doubled at least, so that growing token by token copies each of them a bounded number of times.
    Errors: ValueError as of `Plan.check_context`.
    """
    needed = cache.num_cached_tokens + num_tokens
    if cache.capacity is None or needed <= cache.capacity:
        return cache
    cache.plan.check_context(needed)
    bound = cache.plan.max_context
    context = max(needed, 2 * cache.context)
    context = context if bound is None else min(context, bound)
    larger = cache_of(cache.plan, cache.batch, context, cache.dtype, cache.device)
    for into, tensor in zip(_rows(larger), _rows(cache), strict=True):
        # Places are counted from the front, and a ring that was not full yet has not wrapped.
        into[tuple(slice(length) for length in tensor.shape)] = tensor
    _take_over(larger, cache, None)
    return larger


def can_drop(cache: AnyCache) -> bool:
    """Whether the newest tokens can be forgotten: nothing that they wrote took the place of something older."""
    plan = cache.plan
    return isinstance(plan, Plan) and not plan.states and all(slot.window is None for slot in plan.slots)


def drop_newest(cache: AnyCache, num_tokens: int) -> None:
    """Forget the `num_tokens` newest tokens of every row.

    Errors: ValueError if `can_drop` is false, or there are not that many.
    """
    if num_tokens == 0:
        return
    if not can_drop(cache) or not isinstance(cache, Cache):
        raise ValueError(
            f"{cache.plan.name} cannot take back tokens: its windows, recurrent states or blocks have forgotten "
            "what these replaced"
        )
    if not 0 <= num_tokens <= cache.num_cached_tokens:
        raise ValueError(f"the cache holds {cache.num_cached_tokens} tokens: it cannot forget {num_tokens}")
    cache.advance(-num_tokens)


def _stacks(cache: AnyCache) -> tuple[Cache, ...]:
    return (cache.blocks, cache.tokens) if isinstance(cache, LevelsCache) else (cache,)


def _rows(cache: AnyCache) -> Iterator[Tensor]:
    """All tensors whose first axis is the batch, and which every cache of a plan has."""
    for stack in _stacks(cache):
        yield from (*stack.storage.slots, *stack.storage.states)
    if isinstance(cache, LevelsCache):
        yield cache.open_ids


def _take_over(target: AnyCache, cache: AnyCache, rows_R: Tensor | None) -> None:
    """The counters of a cache, and what it may have for its rows."""

    def chosen(tensor: Tensor | None) -> Tensor | None:
        return tensor if tensor is None or rows_R is None else tensor.index_select(0, rows_R)

    for into, stack in zip(_stacks(target), _stacks(cache), strict=True):
        into.num_cached_tokens = stack.num_cached_tokens
        into.input_pos.fill_(stack.num_cached_tokens)
        into.pad_lens_B = chosen(stack.pad_lens_B)
    if isinstance(target, LevelsCache) and isinstance(cache, LevelsCache):
        target.num_cached_tokens, target.padding = cache.num_cached_tokens, cache.padding
        target.expanded = chosen(cache.expanded)


def repeated_rows(batch: int, repeats: int, device: torch.device) -> Tensor:
    """Row indices that repeat each of `batch` rows: 0, 0, 1, 1, ..."""
    return torch.arange(batch, device=device).repeat_interleave(repeats)
