"""Peak bytes of activations of prefill and decode, estimated from a plan: which passes there are, and the costliest.

Weights, caches and the token ids themselves are not counted. The runtime keeps no RoPE table between passes:
`Peak.rope_bytes` is the part of a pass's peak that its tables take.

Estimated is the run that is not compiled; a compiled one fuses operations and mostly needs less.
"""

from dataclasses import replace

from archspec.levels_plan import LevelsPlan
from archspec.memory.operations import INT64, Operations
from archspec.memory.walk import Peak, Walk
from archspec.plan import Plan


def prefill_peak(plan: Plan | LevelsPlan, batch: int, context: int, element: int, chunk: int | None = None) -> Peak:
    """A prefill of `context` tokens into an empty cache of that length, at most `chunk` tokens at a time.

    The costliest chunk is the first, whose scores are not computed in parts, the last whole one, or what is left.
    """
    chunk = min(chunk or context, context)
    whole, left = divmod(context, chunk)
    ends = {(chunk, chunk), (chunk, whole * chunk), (left or chunk, context)}
    return _highest([_chunk_peak(plan, batch, new, end, context, element) for new, end in sorted(ends)])


def _chunk_peak(plan: Plan | LevelsPlan, batch: int, new: int, end: int, context: int, element: int) -> Peak:
    """`new` tokens, after which the cache holds `end`."""
    if isinstance(plan, Plan):
        return _peak(plan, batch, new, end - new, context, element)
    blocks = plan.num_blocks(new)
    cached = max(plan.num_blocks(end) - blocks, 0)
    ids = batch * blocks * plan.block_length * INT64
    found = _peak(plan.blocks, batch, blocks, cached, plan.num_blocks(context), element)
    rows = batch * blocks * plan.block_length * plan.lookup.size * element
    summed = batch * blocks * plan.blocks.hidden_size * element if plan.lookup.merge == "sum" else 0
    lookup = Peak(ids + rows + summed, 0)
    return _highest([replace(found, nbytes=found.nbytes + ids), lookup, _start(plan, batch, element)])


def decode_peak(plan: Plan | LevelsPlan, batch: int, context: int, element: int) -> Peak:
    """One more token, the last that fits `context`; in a model of levels the costliest of a block's tokens."""
    if isinstance(plan, Plan):
        return _peak(plan, batch, 1, context - 1, context, element)
    blocks, positions = plan.num_blocks(context), plan.block_positions
    return _highest(
        [
            _peak(plan.blocks, batch, 1, blocks - 1, blocks, element),
            _start(plan, batch, element),
            _peak(plan.tokens, batch, 1, positions - 1, positions, element),
        ]
    )


def _start(plan: LevelsPlan, batch: int, element: int) -> Peak:
    """The first of a block: the context's vectors, and the token level over them."""
    vectors = plan.num_context if plan.take == "prefix" else 1
    expanded = batch * plan.num_context * plan.tokens.hidden_size * element
    found = _peak(plan.tokens, batch, vectors, 0, plan.block_positions, element)
    return replace(found, nbytes=found.nbytes + expanded)


def _highest(peaks: list[Peak]) -> Peak:
    return max(peaks, key=lambda peak: peak.nbytes)


def _peak(plan: Plan, batch: int, tokens: int, cached: int, context: int, element: int) -> Peak:
    walk = Walk(plan, cached, context, Operations(batch, tokens, element))
    steps = plan.prefill_steps() if tokens > 1 else plan.decode_steps()
    return walk.run(steps)
