"""The public model: teacher forcing, prefill, decode, loss.

Legend: B batch, T tokens, V vocab.
"""

from typing import Any

import torch
from torch import Tensor

from archspec.plan import Plan
from archspec.runtime.attention import Backend
from archspec.runtime.cache import Cache
from archspec.runtime.compiling import Caller
from archspec.runtime.converging import Convergence, SettlingPass
from archspec.runtime.decoder import Decoder
from archspec.runtime.loss import IGNORED, Reader, Rows, mean_loss
from archspec.runtime.network import Network, Phase
from archspec.runtime.padding import pad_lens, refuse_padded_sinks
from archspec.runtime.sampling import Chooser


class Model(Network, Decoder):
    """A runnable stack of layers. Row t of its logits scores token t + 1.

    An `attention_mask` (B, T) of ones and zeros marks left padding with zeros, so that prompts of different lengths
    make one batch. Only leading positions may be padding, and every row has a token.
    """

    def __init__(self, plan: Plan, *, attend: Backend, compile: bool) -> None:
        super().__init__(plan, attend, Caller(compile))
        self.prefill_chunk = plan.prefill_chunk

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        exact: bool = False,
        read: Reader | None = None,
    ) -> Any:
        """Logits (B, T, V) by teacher forcing; what stands at padded positions means nothing.

        `exact`: where layers iterate, token by token instead, without gradient; otherwise it changes nothing.
        `read` makes something else of the rows that have left the last layer, and that is returned.
        """
        self._check_ids(input_ids, ("B", "T"))
        self.plan.check_context(input_ids.shape[1])
        pads_B = self._pad_lens(attention_mask, input_ids)
        if exact and self.plan.groups:
            return self._forward_by_token(input_ids, pads_B)
        if read is None:
            return self.run("forward", input_ids, None, pads_B)
        with self.call.settings():
            x_BTD, run = self.begin(input_ids, None, pads_B)
            return read(Rows(self, run.steps(self.plan.forward_steps()[1:-1], x_BTD)))

    @torch.no_grad()
    def _forward_by_token(self, input_ids: Tensor, pads_B: Tensor | None) -> Tensor:
        cache = self.new_cache(*input_ids.shape)
        cache.pad_lens_B = pads_B
        return torch.stack([self.decode(ids_B, cache) for ids_B in input_ids.unbind(1)], dim=1)

    @torch.no_grad()
    def converge(
        self,
        input_ids: Tensor,
        tolerance: float = 1e-3,
        max_passes: int = 64,
        attention_mask: Tensor | None = None,
    ) -> Convergence:
        """Teacher forcing in which layers iterate until the caches they read early move by at most `tolerance`.

        Where no layers iterate, there is nothing to wait for.
        """
        self._check_ids(input_ids, ("B", "T"))
        self.plan.check_context(input_ids.shape[1])
        if max_passes < 1 or not tolerance >= 0:
            raise ValueError(f"max_passes must be at least 1 and tolerance 0 or more, not {max_passes} and {tolerance}")
        with self.call.settings():
            x_BTD, common = self.begin(input_ids, None, self._pad_lens(attention_mask, input_ids))
            settling = SettlingPass(**vars(common), tolerance=tolerance, max_passes=max_passes)
            return settling.outcome(self.end(settling.steps(self.plan.forward_steps()[1:-1], x_BTD)))

    def new_cache(self, batch: int, context: int) -> Cache:
        """An empty cache for `batch` sequences, with memory for `context` tokens of each allocated now.

        If every slot forgets old tokens, sequences may grow beyond `context`, which then has to cover what the slots
        keep.
        """
        self.plan.check_context(context)
        cache = Cache(self.plan, batch, context, dtype=self.dtype, device=self.device)
        self.prepare(cache)
        return cache

    @torch.no_grad()
    def prefill(
        self,
        input_ids: Tensor,
        cache: Cache,
        attention_mask: Tensor | None = None,
        *,
        early_exit: bool = True,
        exact: bool = False,
        chooser: Chooser | None = None,
    ) -> Tensor:
        """Logits (B, V) of the last position; call again with what follows.

        A long prompt is taken up in chunks of `prefill_chunk` tokens, all but the last without the layers behind the
        exit. That changes neither logits nor caches; only where layers iterate it would, so there is one chunk there.

        With a `chooser`, the tokens (B,) that it chooses by these logits instead.
        `early_exit=False` runs every layer for every position, to the same result; `exact` as for `forward`.
        Only the first call may begin with padding. Effects: fills `cache`.
        """
        self._check_ids(input_ids, ("B", "T"))
        num_tokens = input_ids.shape[1]
        self._check_cache(cache, input_ids.shape[0], num_tokens)
        self.plan.check_context(cache.num_cached_tokens + num_tokens)
        pads_B = self._pad_lens(attention_mask, input_ids)
        if pads_B is not None and cache.num_cached_tokens:
            raise ValueError("only the first chunk of a prompt may hold padding, and this cache holds tokens")
        if pads_B is not None:
            cache.pad_lens_B = pads_B
        one_by_one = exact and self.plan.groups
        *before, last = input_ids.split(1 if one_by_one else self.prefill_chunk or num_tokens, dim=1)
        for ids_BS in before:
            if one_by_one:
                self.decode(ids_BS[:, 0], cache)
            else:
                self.fill(ids_BS, cache, early_exit=early_exit)
        if last.shape[1] == 1:
            return self.decode(last[:, 0], cache, chooser=chooser)
        phase: Phase = "prefill" if early_exit else "prefill in full"
        out = self.run(phase, last, cache, cache.pad_lens_B, chooser)
        cache.advance(last.shape[1])
        return out[:, 0] if chooser is None else out

    @torch.no_grad()
    def decode(self, token_ids: Tensor, cache: Cache, *, chooser: Chooser | None = None) -> Tensor:
        """Logits (B, V) after one more token a sequence, or the tokens (B,) that a `chooser` takes by them.

        Shapes: token_ids (B,). Effects: fills `cache`.
        """
        self._check_ids(token_ids, ("B",))
        self._check_cache(cache, token_ids.shape[0], 1)
        self.plan.check_context(cache.num_cached_tokens + 1)
        out = self.run("decode", token_ids[:, None], cache, cache.pad_lens_B, chooser)
        cache.advance(1)
        return out[:, 0] if chooser is None else out

    def loss(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Mean cross entropy of the next token, in float32 or wider.

        Padding neither predicts nor is predicted. Differentiable, once.
        The logits of all positions are never held at once.
        """
        self._check_ids(input_ids, ("B", "T"))
        if input_ids.shape[1] < 2:
            raise ValueError("a loss needs at least 2 tokens: every token but the first is predicted")
        self.plan.check_context(input_ids.shape[1] - 1)
        pads_B = self._pad_lens(attention_mask, input_ids)
        targets_BT = input_ids[:, 1:]
        if pads_B is not None:
            targets_BT = self._predicted(targets_BT, pads_B)
        with self.call.settings():
            x_BTD, run = self.begin(input_ids[:, :-1], None, pads_B)
            return mean_loss(self, run.steps(self.plan.forward_steps()[1:-1], x_BTD), targets_BT)

    @staticmethod
    def _predicted(targets_BT: Tensor, pads_B: Tensor) -> Tensor:
        """Targets, with those that would be predicted from padding marked as ignored."""
        from_padding_BT = torch.arange(targets_BT.shape[1], device=targets_BT.device) < pads_B[:, None]
        if bool(from_padding_BT.all()):
            raise ValueError("a loss needs a row with at least 2 tokens: every token but the first is predicted")
        return targets_BT.masked_fill(from_padding_BT, IGNORED)

    def _pad_lens(self, attention_mask: Tensor | None, input_ids: Tensor) -> Tensor | None:
        pads_B = pad_lens(attention_mask, input_ids)
        if pads_B is not None:
            refuse_padded_sinks(self.plan, "tokens")
        return pads_B
