"""What a model with two levels remembers of its sequences.

Legend: B batch, L tokens of a block.
"""

import torch
from torch import Tensor

from archspec.levels_plan import LevelsPlan
from archspec.runtime.cache import Cache


class LevelsCache:
    """The caches of both levels: `blocks` for all blocks of `context` tokens, `tokens` for one block.

    Beside them stand what of the open block is not in either yet: its token ids, and where the context is added to
    tokens its vectors, one a token of the block. They are no cache and not counted in `nbytes`.
    """

    def __init__(self, plan: LevelsPlan, batch: int, context: int, *, dtype: torch.dtype, device: torch.device) -> None:
        if context < 1:
            raise ValueError(f"a cache needs context >= 1, not context={context}")
        self.plan, self.batch, self.context, self.dtype, self.device = plan, batch, context, dtype, device
        self.blocks = Cache(plan.blocks, batch, plan.num_blocks(context), dtype=dtype, device=device)
        self.tokens = Cache(plan.tokens, batch, plan.block_positions, dtype=dtype, device=device)
        self.open_ids = torch.full((batch, plan.block_length), plan.pad_token, dtype=torch.int64, device=device)
        """(B, L): the tokens of the open block."""
        self.expanded: Tensor | None = None
        """(B, L, width): the context's vectors that are added to the tokens of the open block."""
        self.padding: int | None = None
        """Tokens before every row that complete its first block; settled by the first prefill."""
        self.num_cached_tokens = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all slots and states."""
        return self.blocks.nbytes + self.tokens.nbytes

    @property
    def capacity(self) -> int | None:
        """Number of tokens that fit; None if any number does."""
        return None if self.blocks.capacity is None else self.context

    @property
    def num_open(self) -> int:
        """Tokens in the open block."""
        return ((self.padding or 0) + self.num_cached_tokens) % self.plan.block_length

    @property
    def started(self) -> bool:
        """Whether a block is complete, so that the tokens of the next are predicted."""
        return self.blocks.num_cached_tokens > 0

    def begin(self, padding: int, pad_blocks_B: Tensor | None) -> None:
        """Settle where blocks begin, before the first token. `pad_blocks_B` are whole blocks of padding of each row."""
        self.padding, self.blocks.pad_lens_B = padding, pad_blocks_B

    def begin_block(self) -> None:
        """Forget the block before; what is left of its keys lies behind the new positions, and is not seen."""
        self.tokens.num_cached_tokens = 0
        for tensor in (self.tokens.input_pos, *self.tokens.storage.states):
            tensor.zero_()

    def keep_open(self, ids_BS: Tensor, begin: int) -> None:
        """Note tokens of the open block from place `begin` on."""
        self.open_ids[:, begin : begin + ids_BS.shape[1]] = ids_BS

    def reset(self) -> None:
        """Forget all tokens. The buffers stay."""
        self.blocks.reset()
        self.tokens.reset()
        self.open_ids.fill_(self.plan.pad_token)
        self.expanded, self.padding, self.num_cached_tokens = None, None, 0

    def __repr__(self) -> str:
        return (
            f"LevelsCache({self.num_cached_tokens} of {self.context} tokens, batch {self.batch}, {self.dtype}, "
            f"{self.device}, {self.nbytes} bytes)"
        )
