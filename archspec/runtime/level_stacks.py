"""The stacks of a model with two levels, and the passes that run over them.

Legend: B batch, K blocks, L tokens of a block, S tokens, C vectors of a context, D width of the level, V vocab.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.levels_plan import LevelsPlan
from archspec.runtime.attention import Backend
from archspec.runtime.cache import LiveLens, Storage
from archspec.runtime.network import Network, Phase


class BlockStack(Network):
    """`blocks of L tokens { }`: an embedding of blocks, and a network from vectors to vectors."""

    def __init__(self, plan: LevelsPlan, attend: Backend) -> None:
        super().__init__(plan.blocks, attend)
        self.concat = plan.lookup.merge == "concat"
        self.embed = nn.Embedding(plan.vocab_size, plan.lookup.size)

    def vectors(self, ids_BKL: Tensor) -> Tensor:
        """One vector a block, (B, K, D): the rows of its tokens, the first one in front; or their sum."""
        rows = self.embed(ids_BKL)  # type: ignore[misc]
        return rows.flatten(2) if self.concat else rows.sum(2)


class TokenStack(Network):
    """`tokens in block { }`: the expansion of a context, an embedding of tokens, and a network to logits."""

    def __init__(self, plan: LevelsPlan, attend: Backend) -> None:
        super().__init__(plan.tokens, attend)
        self.embed = nn.Embedding(plan.vocab_size, plan.tokens.hidden_size)
        self.expansion = nn.Linear(plan.blocks.hidden_size, plan.num_context * plan.tokens.hidden_size)
        self.num_context, self.scale = plan.num_context, plan.token_embed_scale
        self.start_token = None if plan.take == "prefix" else plan.start_token

    def expand(self, context_BD: Tensor) -> Tensor:
        """The vectors (B, C, D) of contexts (B, width of the block level).

        Source: `expansion_layer` of itsnamgyu/block-transformer, a convolution of kernel 1.
        """
        return self.expansion(context_BD).unflatten(-1, (self.num_context, -1))

    def embedded(self, ids_BS: Tensor) -> Tensor:
        rows = self.embed(ids_BS)  # type: ignore[misc]
        return rows if self.scale == 1 else rows * self.scale

    def first(self, expanded_BCD: Tensor) -> Tensor:
        """What stands before a block's tokens: the prefix, or the start token with the first vector added."""
        if self.start_token is None:
            return expanded_BCD
        ids = torch.full((expanded_BCD.shape[0], 1), self.start_token, device=expanded_BCD.device)
        return self.embedded(ids) + expanded_BCD[:, :1]

    def following(self, ids_BS: Tensor, expanded_BCD: Tensor | None, start: Tensor) -> Tensor:
        """The inputs of tokens at positions `start`, `start + 1`, ... of the level. Shapes: start (1,)."""
        rows = self.embedded(ids_BS)
        if expanded_BCD is None or self.start_token is None:
            return rows
        return rows + expanded_BCD.index_select(1, start + torch.arange(ids_BS.shape[1], device=start.device))


def block_pass(
    stack: BlockStack,
    phase: Phase,
    ids_BKL: Tensor,
    start: Tensor,
    storage: Storage | None,
    live_lens: LiveLens,
    pad_lens_B: Tensor | None,
) -> Tensor:
    """The context (B, D) that the last of these blocks emits. Effects: writes `storage`."""
    return stack.run(phase, stack.vectors(ids_BKL), start, storage, live_lens, pad_lens_B)[:, -1]


def start_pass(
    stack: TokenStack, phase: Phase, context_BD: Tensor, start: Tensor, storage: Storage | None, live_lens: LiveLens
) -> tuple[Tensor, Tensor]:
    """Logits (B, V) of a block's first token, and the context's vectors (B, C, D). Effects: writes `storage`."""
    expanded_BCD = stack.expand(context_BD)
    return stack.run(phase, stack.first(expanded_BCD), start, storage, live_lens)[:, -1], expanded_BCD


def start_by_vector_pass(
    stack: TokenStack, phase: Phase, context_BD: Tensor, start: Tensor, storage: Storage, live_lens: LiveLens
) -> tuple[Tensor, Tensor]:
    """As `start_pass`, one vector after the other, for layers that iterate. `phase` is that of one position."""
    expanded_BCD = stack.expand(context_BD)
    rows = stack.first(expanded_BCD).split(1, dim=1)
    out = [stack.run(phase, row, start + place, storage, live_lens) for place, row in enumerate(rows)]
    return out[-1][:, -1], expanded_BCD


def token_pass(
    stack: TokenStack,
    phase: Phase,
    ids_BS: Tensor,
    expanded_BCD: Tensor | None,
    start: Tensor,
    storage: Storage | None,
    live_lens: LiveLens,
) -> Tensor:
    """Logits (B, V) after these tokens of a block. Effects: writes `storage`."""
    inputs_BSD = stack.following(ids_BS, expanded_BCD, start)
    return stack.run(phase, inputs_BSD, start, storage, live_lens)[:, -1]


def forward_pass(blocks: BlockStack, tokens: TokenStack, ids_BKL: Tensor, pad_lens_B: Tensor | None) -> Tensor:
    """Logits (B, K - 1, L, V) of every token of all blocks but the first, by teacher forcing.

    The context of block k is the output of block k - 1; the last block is not run through the block level.
    """
    num_blocks = ids_BKL.shape[1] - 1
    start = torch.zeros(1, dtype=torch.int64, device=ids_BKL.device)
    context_BKD = blocks.run("forward", blocks.vectors(ids_BKL[:, :-1]), start, None, {}, pad_lens_B)
    expanded = tokens.expand(context_BKD.flatten(0, 1))
    inputs = _block_inputs(tokens, expanded, ids_BKL[:, 1:, :-1].flatten(0, 1))
    run = tokens.make_pass(inputs, start, None, {}, None)
    hidden = run.steps(tokens.plan.forward_steps()[:-1], inputs)
    logits: Tensor = run.head(hidden[:, -ids_BKL.shape[2] :])
    return logits.unflatten(0, (-1, num_blocks))


def _block_inputs(tokens: TokenStack, expanded_BCD: Tensor, ids_BS: Tensor) -> Tensor:
    """What the token level runs over in a block of S + 1 tokens; a block of one token has no tokens before it."""
    first = tokens.first(expanded_BCD)
    if ids_BS.shape[1] == 0:
        return first
    rest = tokens.embedded(ids_BS)
    return torch.cat((first, rest if tokens.start_token is None else rest + expanded_BCD[:, 1:]), dim=1)


def pad_blocks(pads_B: Tensor | None, padding: int, length: int) -> Tensor | None:
    """Whole blocks of padding of every row (B,), given its padded tokens; None if there are none.

    `padding` tokens before all rows complete the first block.
    """
    if pads_B is None:
        return None
    blocks_B = (pads_B + padding) // length
    return blocks_B if bool(blocks_B.any()) else None


def padded(ids_BS: Tensor, before: int, token: int) -> Tensor:
    """Ids with `before` padding tokens in front."""
    return F.pad(ids_BS, (before, 0), value=token) if before else ids_BS
