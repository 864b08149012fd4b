"""The stacks of a model with two levels, and the passes that run over them.

Legend: B batch, K blocks, L tokens of a block, S tokens, C vectors of a context, D width of the level, V vocab.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.levels_plan import LevelsPlan
from archspec.runtime import kernels
from archspec.runtime.attention import Backend
from archspec.runtime.compiling import Caller
from archspec.runtime.linear import Linear
from archspec.runtime.network import Network


class BlockStack(Network):
    """`blocks of L tokens { }`: an embedding of blocks, and a network from vectors to vectors."""

    def __init__(self, plan: LevelsPlan, attend: Backend, call: Caller) -> None:
        super().__init__(plan.blocks, attend, call)
        self.concat = plan.lookup.merge == "concat"
        self.embed = nn.Embedding(plan.vocab_size, plan.lookup.size)

    def vectors(self, ids_BKL: Tensor) -> Tensor:
        """One vector a block, (B, K, D): the rows of its tokens, the first one in front; or their sum."""
        rows = self.embed(ids_BKL)  # type: ignore[misc]
        return rows.flatten(2) if self.concat else rows.sum(2)


class TokenStack(Network):
    """`tokens in block { }`: the expansion of a context, an embedding of tokens, and a network to logits."""

    def __init__(self, plan: LevelsPlan, attend: Backend, call: Caller) -> None:
        super().__init__(plan.tokens, attend, call)
        self.embed = nn.Embedding(plan.vocab_size, plan.tokens.hidden_size)
        self.expansion = Linear(plan.blocks.hidden_size, plan.num_context * plan.tokens.hidden_size)
        self.num_context, self.scale = plan.num_context, plan.token_embed_scale
        self.start_token = None if plan.take == "prefix" else plan.start_token

    def expand(self, context_BD: Tensor) -> Tensor:
        """The vectors (B, C, D) of contexts (B, width of the block level).

        Source: `expansion_layer` of itsnamgyu/block-transformer, a convolution of kernel 1.
        """
        return self.expansion(context_BD).unflatten(-1, (self.num_context, -1))

    def takes_singly(self, x_BSD: Tensor) -> bool:
        """Whether so few rows are taken up faster one after the other, by kernels that read every weight once a row."""
        few = x_BSD.shape[1] <= 2 and not self.plan.groups  # a group's passes over several rows have other numbers
        return few and self.row_kernels and kernels.serves(x_BSD) and x_BSD.shape[0] <= kernels.MOST_ROWS[x_BSD.dtype]

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


def block_vectors(stack: BlockStack, ids_BKL: Tensor) -> Tensor:
    """`BlockStack.vectors`, a unit."""
    return stack.vectors(ids_BKL)


def begin_blocks(stack: TokenStack, context_BD: Tensor) -> tuple[Tensor, Tensor]:
    """What stands before a block's tokens, and the context's vectors (B, C, D). A unit."""
    expanded_BCD = stack.expand(context_BD)
    return stack.first(expanded_BCD), expanded_BCD


def token_vectors(stack: TokenStack, ids_BS: Tensor, expanded_BCD: Tensor | None, start: Tensor) -> Tensor:
    """`TokenStack.following`, a unit."""
    return stack.following(ids_BS, expanded_BCD, start)


def all_token_vectors(stack: TokenStack, context_BKD: Tensor, ids_BKL: Tensor) -> Tensor:
    """What the token level runs over in all blocks but the first, (B * (K - 1), ...), given the contexts of all before
    them. A unit."""
    expanded = stack.expand(context_BKD.flatten(0, 1))
    return _block_inputs(stack, expanded, ids_BKL[:, 1:, :-1].flatten(0, 1))


def last_hidden(blocks: BlockStack, tokens: TokenStack, ids_BKL: Tensor, pad_lens_B: Tensor | None) -> Tensor:
    """What leaves the last layer for every token of all blocks but the first, (B * (K - 1), L, D), by teacher forcing.

    The context of block k is the output of block k - 1; the last block is not run through the block level. To be called
    within `Caller.settings`.
    """
    ids_BKL = tokens.call.marked(ids_BKL)
    vectors_BKD = blocks.call(block_vectors, ids_BKL.shape[1] == 2, blocks, ids_BKL[:, :-1])
    context_BKD = blocks.run("forward", vectors_BKD, None, pad_lens_B)
    inputs = tokens.call(all_token_vectors, "", tokens, context_BKD, ids_BKL)
    x, run = tokens.begin(inputs, None, None)
    hidden = run.steps(tokens.plan.forward_steps()[1:-1], x)
    return hidden[:, -ids_BKL.shape[2] :]


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
