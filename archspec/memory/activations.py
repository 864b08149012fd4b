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
    """A prefill of `context` tokens into an empty cache of that length, at most `chunk` tokens at a time."""
    if isinstance(plan, Plan):
        chunks = _chunks(context, min(chunk or context, context))
        return _highest([_chunk_peak(plan, batch, new, start, context, element) for new, start in chunks])
    blocks = plan.num_blocks(context)
    whole = plan.whole_blocks(chunk) // plan.block_length if chunk else blocks
    chunks = _chunks(blocks, min(whole, blocks))
    found = [_blocks_peak(plan, batch, new, start, blocks, element) for new, start in chunks]
    return _highest([*found, _start(plan, batch, element)])


def _chunks(length: int, size: int) -> list[tuple[int, int]]:
    """Lengths and beginnings of the chunks that may cost most: the first, the one before the last, which has the most
    before it of those that are whole, and the last, which alone has logits."""
    last = (length - 1) // size * size
    whole = {(size, 0), (size, last - size)} if last else set()
    return [*sorted(whole), (length - last, last)]


def _chunk_peak(plan: Plan, batch: int, new: int, start: int, context: int, element: int) -> Peak:
    """`new` tokens behind `start` others; those of the last chunk end the prompt."""
    is_last = new + start == context
    steps = plan.fill_steps() if not is_last else plan.prefill_steps() if new > 1 else plan.decode_steps()
    return Walk(plan, start, context, Operations(batch, new, element)).run(steps)


def _blocks_peak(plan: LevelsPlan, batch: int, new: int, start: int, num_blocks: int, element: int) -> Peak:
    """The same for whole blocks, whose tokens are looked up first."""
    tokens = batch * new * plan.block_length
    found = _chunk_peak(plan.blocks, batch, new, start, num_blocks, element)
    summed = batch * new * plan.blocks.hidden_size if plan.lookup.merge == "sum" else 0
    lookup = Peak(tokens * INT64 + (tokens * plan.lookup.size + summed) * element, 0)
    return _highest([replace(found, nbytes=found.nbytes + tokens * INT64), lookup])


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
    steps = plan.prefill_steps() if tokens > 1 else plan.decode_steps()
    return Walk(plan, cached, context, Operations(batch, tokens, element)).run(steps)
