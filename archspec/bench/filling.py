"""Caches as they are after a context, without the prefill: random numbers, and the counters of that many tokens."""

import torch
from torch import Tensor

from archspec.runtime.cache import Cache
from archspec.runtime.level_cache import LevelsCache


def fill(cache: Cache | LevelsCache, num_tokens: int) -> None:
    """Let a cache hold `num_tokens` random tokens of every sequence. Effects: overwrites all of it.

    Zeros would do for the counters, but not for the time: numbers that are all alike take no part in a softmax.
    """
    stacks = (cache.blocks, cache.tokens) if isinstance(cache, LevelsCache) else (cache,)
    drawn: dict[tuple[torch.Size, torch.dtype], Tensor] = {}
    for stack in stacks:
        for tensor in (*stack.storage.slots, *stack.storage.states):
            # Copies are ten times faster than numbers, and layers do not know of each other's.
            key = tensor.shape, tensor.dtype
            drawn[key] = tensor.copy_(drawn[key]) if key in drawn else tensor.normal_()
    move_to(cache, num_tokens)


def move_to(cache: Cache | LevelsCache, num_tokens: int) -> None:
    """Go back or forth to `num_tokens` tokens, whatever the buffers hold.

    Errors: ValueError for a cache of two levels and a number that does not end a block.
    """
    if isinstance(cache, Cache):
        cache.advance(num_tokens - cache.num_cached_tokens)
        return
    plan = cache.plan
    num_blocks, left = divmod(num_tokens, plan.block_length)
    if left or not num_blocks:
        raise ValueError(f"{num_tokens} tokens are no whole blocks of {plan.block_length}")
    cache.begin(0, None)
    cache.blocks.advance(num_blocks - cache.blocks.num_cached_tokens)
    cache.num_cached_tokens = num_tokens
    # As behind a whole block: the context of the next one has run, no token of it yet.
    cache.begin_block()
    cache.tokens.advance(plan.num_context if plan.take == "prefix" else 1)
    if plan.take == "summation":
        shape = (cache.batch, plan.block_length, plan.tokens.hidden_size)
        cache.expanded = torch.zeros(shape, dtype=cache.dtype, device=cache.device)
