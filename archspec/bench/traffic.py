"""Bytes that a step of decoding has to read: its limit where memory is the limit. No torch.

Counted once a step: every weight that takes part (of an embedding only the rows that are looked up, a tied output
matrix once, of a mixture no more experts than tokens choose), and of the caches what attention sees, once for every
layer that reads it, whoever wrote it.
"""

from math import prod

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.parameters import ffn_shapes
from archspec.plan import DTYPE_BYTES, STATE_DTYPE, AttentionPlan, LayerPlan, Plan, RetentionPlan
from archspec.spec.model import Moe

_LOOKED_UP = ("positions.weight",)


def step_bytes(plan: AnyPlan, batch: int, context: int, dtype: str) -> int:
    """Of one token of each of `batch` sequences, the last of `context`. For two levels the mean over a block."""
    element = DTYPE_BYTES[dtype]
    if isinstance(plan, Plan):
        return _weights(plan, batch) * element + _caches(plan, batch, context, element)
    return _block_bytes(plan, batch, context, element) // plan.block_length


def _block_bytes(plan: LevelsPlan, batch: int, context: int, element: int) -> int:
    """A block: one step of the block level, and of the token level one for each token."""
    width, length = plan.tokens.hidden_size, plan.block_length
    blocks = _weights(plan.blocks, batch) * element + _caches(plan.blocks, batch, plan.num_blocks(context), element)
    between = batch * plan.lookup.size * length + plan.num_context * width * (plan.blocks.hidden_size + 1)
    tokens = length * (_weights(plan.tokens, batch) + batch * width) * element
    first = plan.block_positions - length + 1
    tokens += sum(_caches(plan.tokens, batch, first + place, element) for place in range(length))
    return blocks + between * element + tokens


def _weights(plan: Plan, batch: int) -> int:
    """Numbers."""
    looked_up = _LOOKED_UP if plan.tied_embeddings else (*_LOOKED_UP, "embed.weight")
    whole = sum(prod(shape) for name, shape in plan.parameter_shapes() if name not in looked_up)
    if plan.tied_embeddings and plan.inputs == "vectors" and plan.outputs == "logits":
        whole += plan.vocab_size * plan.hidden_size  # the embedding stands before this stack
    rows = batch * plan.hidden_size if plan.inputs == "tokens" and not plan.tied_embeddings else 0
    return whole + rows - sum(_idle(layer, plan.hidden_size, batch) for layer in plan.layers)


def _idle(layer: LayerPlan, width: int, batch: int) -> int:
    """Numbers of the experts that are left over when every token chooses others."""
    if not isinstance(layer.ffn, Moe):
        return 0
    expert = sum(prod(shape) for _, shape in ffn_shapes("", layer.ffn.expert, width, layer.ffn_bias))
    return max(layer.ffn.num_experts - layer.ffn.top * batch, 0) * expert


def _caches(plan: Plan, batch: int, positions: int, element: int) -> int:
    """Bytes of what every layer sees of `positions` positions."""
    total = 0
    for layer in plan.layers:
        match layer.mixer:
            case AttentionPlan() as mixer:
                seen = positions if mixer.window is None else min(positions, mixer.sinks + mixer.window)
                total += plan.slots[mixer.slot_idx].elements_per_token * seen * element
            case RetentionPlan() as mixer:
                total += plan.states[mixer.state_idx].elements * DTYPE_BYTES[STATE_DTYPE]
            case None:
                pass
    return batch * total
