"""A model with two levels: teacher forcing, prefill, decode, loss.

Blocks begin where the prompt ends: `padding` tokens before it complete its first block, and that phase is kept for all
that follows. Token n of the padded sequence stands in block n // L; the token level predicts every block but the first.

Legend: B batch, T tokens, K blocks, L tokens of a block, C vectors of a context, D width, V vocab.
Source: Block Transformer, arXiv 2406.02657.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.levels_plan import LevelsPlan
from archspec.runtime.attention import Backend
from archspec.runtime.compiling import Caller
from archspec.runtime.decoder import Decoder
from archspec.runtime.level_cache import LevelsCache
from archspec.runtime.level_stacks import (
    BlockStack,
    TokenStack,
    begin_blocks,
    block_vectors,
    last_hidden,
    pad_blocks,
    padded,
    token_vectors,
)
from archspec.runtime.loss import IGNORED, Reader, Rows, mean_loss
from archspec.runtime.network import Phase
from archspec.runtime.padding import pad_lens, refuse_padded_sinks
from archspec.runtime.sampling import Chooser, choose


class Mode(NamedTuple):
    """How tokens are taken up."""

    phase: Phase = "prefill"
    one_by_one: bool = False
    chooser: Chooser | None = None
    """Tokens (B,) instead of logits come out."""


class LevelsModel(Decoder):
    """A runnable decoder of blocks. Row t of its logits scores token t + 1.

    The first block of a sequence is not predicted: rows before its last token are zeros, and no part of the loss. Which
    tokens are the first block follows from the length of the prompt: its last token ends a block. `prompt_len` says so
    where the ids at hand are not the prompt, or not all of it.

    An `attention_mask` (B, T) of ones and zeros marks left padding with zeros. What stands there counts as token 0 in
    a block that is partly padding; blocks of nothing but padding are not attended.
    """

    def __init__(self, plan: LevelsPlan, *, attend: Backend, compile: bool) -> None:
        super().__init__()
        self.plan = plan
        call = Caller(compile)
        self.blocks = BlockStack(plan, attend, call)
        # Layers of another width have graphs of their own.
        is_alike = plan.blocks.hidden_size == plan.tokens.hidden_size
        self.tokens = TokenStack(plan, attend, call if is_alike else Caller(compile))
        self.arch_text = ""
        self.prefill_chunk = plan.prefill_chunk

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        prompt_len: int | None = None,
        exact: bool = False,
        read: Reader | None = None,
    ) -> Any:
        """Logits (B, T, V) by teacher forcing, as after a prefill of `prompt_len` tokens and decoding.

        `prompt_len` is T unless given; it counts modulo L. `exact`: where layers iterate, token by token instead,
        without gradient; otherwise it changes nothing. `read` makes something else of the rows that have left the last
        layer of the token level, and that is returned.
        """
        self._check_ids(input_ids, ("B", "T"))
        num_tokens, length = input_ids.shape[1], self.plan.block_length
        padding = self._padding(prompt_len, num_tokens)
        ids_BT, pads_B = self._unpadded(input_ids, attention_mask)
        blocks_B = pad_blocks(pads_B, padding, length)
        if read is not None:
            with self.tokens.call.settings():
                return read(self._rows(ids_BT, padding, blocks_B, self._not_predicted(pads_B, padding, num_tokens)))
        if padding + num_tokens < length:
            return self.tokens.expansion.weight.new_zeros((*input_ids.shape, self.plan.vocab_size))
        if exact and self._iterates:
            rows_BTV = self._forward_by_token(ids_BT, padding, blocks_B)
        else:
            with self.tokens.call.settings():
                logits_XLV = self.tokens.end(self._last_hidden(ids_BT, padding, blocks_B))
            rows_BTV = self._placed(logits_XLV, padding, *ids_BT.shape)
        unknown_BT = self._not_predicted(pads_B, padding, num_tokens)
        return rows_BTV if unknown_BT is None else rows_BTV.masked_fill(unknown_BT[..., None], 0)

    def loss(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Mean cross entropy of all tokens but those of each row's first block, in float32 or wider.

        The last token ends a block. Differentiable, once. The logits of all positions are never held at once.
        """
        self._check_ids(input_ids, ("B", "T"))
        num_tokens, length = input_ids.shape[1], self.plan.block_length
        padding = self.plan.padding(num_tokens)
        ids_BT, pads_B = self._unpadded(input_ids, attention_mask)
        blocks_B = pad_blocks(pads_B, padding, length)
        if padding + num_tokens == length:
            raise ValueError(f"a loss needs more than {length} tokens: the first block is not predicted")
        ids_BS = padded(ids_BT, padding, self.plan.pad_token)
        targets_BN = ids_BS[:, length:]
        unknown_BT = self._not_predicted(pads_B, padding, num_tokens)
        if unknown_BT is not None:
            unknown_BN = unknown_BT[:, length - 1 - padding : -1]
            if bool(unknown_BN.all()):
                raise ValueError(f"a loss needs a row with more than {length} tokens: the first block is not predicted")
            targets_BN = targets_BN.masked_fill(unknown_BN, IGNORED)
        with self.tokens.call.settings():
            x_BLD = last_hidden(self.blocks, self.tokens, ids_BS.unflatten(1, (-1, length)), blocks_B)
            return mean_loss(self.tokens, x_BLD, targets_BN)

    def new_cache(self, batch: int, context: int) -> LevelsCache:
        """An empty cache for `batch` sequences of up to `context` tokens, all of it allocated now."""
        cache = LevelsCache(self.plan, batch, context, dtype=self.dtype, device=self.device)
        self.blocks.prepare(cache.blocks)
        self.tokens.prepare(cache.tokens)
        return cache

    @torch.no_grad()
    def prefill(
        self,
        input_ids: Tensor,
        cache: LevelsCache,
        attention_mask: Tensor | None = None,
        *,
        prompt_len: int | None = None,
        early_exit: bool = True,
        exact: bool = False,
        chooser: Chooser | None = None,
    ) -> Tensor:
        """Logits (B, V) of the last position; call again with what follows.

        With a `chooser`, the tokens (B,) that it chooses by these logits instead.
        The first call settles where blocks begin: its tokens end one, unless `prompt_len` gives the length of the whole
        prompt, which then does. Only the first call may begin with padding. Effects: fills `cache`.

        A long prompt is taken up in chunks as by `Model.prefill`; all but the last pass nothing but the block level.
        """
        self._check_ids(input_ids, ("B", "T"))
        self._check_cache(cache, *input_ids.shape)
        if cache.num_cached_tokens == 0:
            padding = self._padding(prompt_len, input_ids.shape[1])
            input_ids, pads_B = self._unpadded(input_ids, attention_mask)
            cache.begin(padding, pad_blocks(pads_B, padding, self.plan.block_length))
        elif attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError("only the first chunk of a prompt may hold padding, and this cache holds tokens")
        phase: Phase = "prefill" if early_exit else "prefill in full"
        mode = Mode(phase, exact and self._iterates, chooser)
        if self.prefill_chunk is not None and not mode.one_by_one:
            input_ids = self._fill(input_ids, cache, self.prefill_chunk, early_exit)
        return self._append(input_ids, cache, mode)

    def _fill(self, ids_BT: Tensor, cache: LevelsCache, chunk: int, early_exit: bool) -> Tensor:
        """Take up chunks of whole blocks; what is left completes one at least."""
        length, size = self.plan.block_length, self.plan.whole_blocks(chunk)
        with self.tokens.call.settings():
            while cache.num_open + ids_BT.shape[1] >= size + length:
                num_open = cache.num_open
                whole_BN = torch.cat((cache.open_ids[:, :num_open], ids_BT[:, : size - num_open]), dim=1)
                self.blocks.fill(self._vectors(whole_BN), cache.blocks, early_exit=early_exit)
                cache.num_cached_tokens += size - num_open
                ids_BT = ids_BT[:, size - num_open :]
        return ids_BT

    def _vectors(self, ids_BN: Tensor) -> Tensor:
        """What enters the block level, (B, K, D), of the tokens of whole blocks."""
        stack = self.blocks
        ids_BKL = ids_BN.unflatten(1, (-1, self.plan.block_length))
        vectors_BKD: Tensor = stack.call(block_vectors, ids_BKL.shape[1] == 1, stack, stack.call.marked(ids_BKL))
        return vectors_BKD

    @torch.no_grad()
    def decode(self, token_ids: Tensor, cache: LevelsCache, *, chooser: Chooser | None = None) -> Tensor:
        """Logits (B, V) after one more token a sequence, or the tokens (B,) that a `chooser` takes by them.

        Shapes: token_ids (B,). Effects: fills `cache`.
        """
        self._check_ids(token_ids, ("B",))
        self._check_cache(cache, token_ids.shape[0], 1)
        if cache.num_cached_tokens == 0 and cache.padding is None:
            cache.begin(self.plan.padding(1), None)
        return self._append(token_ids[:, None], cache, Mode(chooser=chooser))

    def _append(self, ids_BS: Tensor, cache: LevelsCache, mode: Mode) -> Tensor:
        """Take up tokens: whole blocks pass the block level, what is left passes the token level."""
        with self.tokens.call.settings():
            return self._take_up(ids_BS, cache, mode)

    def _take_up(self, ids_BS: Tensor, cache: LevelsCache, mode: Mode) -> Tensor:
        length, num_open = self.plan.block_length, cache.num_open
        num_complete, num_left = divmod(num_open + ids_BS.shape[1], length)
        cache.num_cached_tokens += ids_BS.shape[1]
        out: Tensor | None = None
        if num_complete:
            whole_BN = torch.cat((cache.open_ids[:, :num_open], ids_BS), dim=1)[:, : num_complete * length]
            context_BD = self._run_blocks(whole_BN, cache, mode)
            out = self._run_start(context_BD, cache, mode._replace(chooser=None) if num_left else mode)
            ids_BS, num_open = ids_BS[:, ids_BS.shape[1] - num_left :], 0
        if ids_BS.shape[1]:
            cache.keep_open(ids_BS, num_open)
            if cache.started:
                out = self._run_tokens(ids_BS, cache, mode)
        return self._unpredicted(cache, mode.chooser) if out is None else out

    def _unpredicted(self, cache: LevelsCache, chooser: Chooser | None) -> Tensor:
        """Logits inside the first block, or a choice by them."""
        logits_BV = self.tokens.expansion.weight.new_zeros((cache.batch, self.plan.vocab_size))
        if chooser is None:
            return logits_BV
        return choose(logits_BV, chooser.draw((cache.batch, self.plan.vocab_size), self.dtype, self.device))

    def _run_blocks(self, ids_BN: Tensor, cache: LevelsCache, mode: Mode) -> Tensor:
        """The context that the last of these blocks emits."""
        stack, length = self.blocks, self.plan.block_length
        num_blocks = ids_BN.shape[1] // length
        if mode.one_by_one and num_blocks > 1:
            return [self._run_blocks(ids, cache, Mode()) for ids in ids_BN.split(length, dim=1)][-1]
        vectors_BKD = self._vectors(ids_BN)
        phase = mode.phase if num_blocks > 1 else "decode"
        context_BD = stack.run(phase, vectors_BKD, cache.blocks, cache.blocks.pad_lens_B)[:, -1]
        cache.blocks.advance(num_blocks)
        return context_BD

    def _run_start(self, context_BD: Tensor, cache: LevelsCache, mode: Mode) -> Tensor:
        """Begin a block with its context; the logits of its first token, or a choice by them."""
        cache.begin_block()
        stack = self.tokens
        first_BSD, expanded_BCD = stack.call(begin_blocks, "", stack, context_BD)
        singly = mode.one_by_one or stack.takes_singly(first_BSD)
        *before, last = first_BSD.split(1 if singly else first_BSD.shape[1], dim=1)
        for part in before:
            if mode.one_by_one:
                stack.run("decode", part, cache.tokens)
                cache.tokens.advance(1)
            else:
                stack.fill(part, cache.tokens, early_exit=mode.phase != "prefill in full")
        phase = mode.phase if last.shape[1] > 1 else "decode"
        out = stack.run(phase, last, cache.tokens, chooser=mode.chooser)
        cache.tokens.advance(last.shape[1])
        cache.expanded = expanded_BCD if self.plan.take == "summation" else None
        return out[:, -1] if mode.chooser is None else out

    def _run_tokens(self, ids_BS: Tensor, cache: LevelsCache, mode: Mode) -> Tensor:
        """The logits after these tokens of the open block, or a choice by them."""
        if mode.one_by_one and ids_BS.shape[1] > 1:
            for ids in ids_BS[:, :-1].split(1, dim=1):
                self._run_tokens(ids, cache, Mode())
            ids_BS = ids_BS[:, -1:]
        stack, num_tokens = self.tokens, ids_BS.shape[1]
        inputs = (stack, stack.call.marked(ids_BS), cache.expanded, cache.tokens.input_pos)
        x_BSD = stack.call(token_vectors, num_tokens == 1, *inputs)
        phase = mode.phase if num_tokens > 1 else "decode"
        out = stack.run(phase, x_BSD, cache.tokens, chooser=mode.chooser)
        cache.tokens.advance(num_tokens)
        return out[:, -1] if mode.chooser is None else out

    def _last_hidden(self, ids_BT: Tensor, padding: int, blocks_B: Tensor | None) -> Tensor:
        """`last_hidden` of all blocks, and of the one that is open or else comes next."""
        length = self.plan.block_length
        behind = length - (padding + ids_BT.shape[1]) % length
        ids_BS = F.pad(ids_BT, (padding, behind), value=self.plan.pad_token)
        return last_hidden(self.blocks, self.tokens, ids_BS.unflatten(1, (-1, length)), blocks_B)

    def _placed(self, rows_XLD: Tensor, padding: int, batch: int, num_tokens: int) -> Tensor:
        """Rows of all blocks but the first where their tokens stand, (B, T, D); zeros in front."""
        length = self.plan.block_length
        rows_BSD = rows_XLD.unflatten(0, (batch, -1)).flatten(1, 2)
        return F.pad(rows_BSD, (0, 0, length - 1, 0))[:, padding : padding + num_tokens]

    def _rows(self, ids_BT: Tensor, padding: int, blocks_B: Tensor | None, unknown_BT: Tensor | None) -> Rows:
        """Rows for a reader. To be called within `Caller.settings`."""
        batch, num_tokens = ids_BT.shape
        if padding + num_tokens < self.plan.block_length:
            hidden_BTD = self.tokens.expansion.weight.new_zeros((batch, num_tokens, self.plan.tokens.hidden_size))
        else:
            hidden_BTD = self._placed(self._last_hidden(ids_BT, padding, blocks_B), padding, batch, num_tokens)
        first = self.plan.block_length - 1 - padding
        known_BT = (torch.arange(num_tokens, device=ids_BT.device) >= first).expand(batch, -1)
        return Rows(self.tokens, hidden_BTD, known_BT if unknown_BT is None else known_BT & ~unknown_BT)

    @torch.no_grad()
    def _forward_by_token(self, ids_BT: Tensor, padding: int, blocks_B: Tensor | None) -> Tensor:
        cache = self.new_cache(*ids_BT.shape)
        cache.begin(padding, blocks_B)
        return torch.stack([self._append(ids, cache, Mode(one_by_one=True)) for ids in ids_BT.split(1, dim=1)], dim=1)

    @property
    def _iterates(self) -> bool:
        return any(plan.groups for _, plan in self.plan.levels())

    def _padding(self, prompt_len: int | None, num_tokens: int) -> int:
        if prompt_len is not None and prompt_len < 1:
            raise ValueError(f"prompt_len must be at least 1, but is {prompt_len}")
        return self.plan.padding(num_tokens if prompt_len is None else prompt_len)

    def _unpadded(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Ids with the padding token where the mask says so, and the padding of every row."""
        pads_B = pad_lens(attention_mask, input_ids)
        if pads_B is None:
            return input_ids, None
        refuse_padded_sinks(self.plan.blocks, "blocks")
        padding_BT = torch.arange(input_ids.shape[1], device=input_ids.device) < pads_B[:, None]
        return input_ids.masked_fill(padding_BT, self.plan.pad_token), pads_B

    def _not_predicted(self, pads_B: Tensor | None, padding: int, num_tokens: int) -> Tensor | None:
        """Boolean (B, T): rows before the end of each sequence's first block; None where they are zeros already."""
        if pads_B is None:
            return None
        length = self.plan.block_length
        first_B = ((pads_B + padding) // length + 1) * length - 1 - padding
        return torch.arange(num_tokens, device=pads_B.device) < first_B[:, None]
