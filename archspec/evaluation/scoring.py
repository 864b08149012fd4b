"""What a model thinks of each token of a sequence: how surprised it is, and whether it would have chosen it.

By teacher forcing, with the logits of some rows at a time, or by prefill and decode steps through a cache.

Legend: B batch, T tokens, N rows of all sequences, R of a chunk, L tokens of a block, D hidden, V vocab.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.runtime.build import AnyModel
from archspec.runtime.decoder import Decoder
from archspec.runtime.level_stacks import last_hidden
from archspec.runtime.levels import LevelsModel
from archspec.runtime.loss import chunk_sizes, normed_rows
from archspec.runtime.network import Network, logits_of


class Scores(NamedTuple):
    """Row t is about token t + 1. Rows that were not computed, or predict nothing, are nan and false."""

    losses: Tensor
    """-log p in nats, (B, T - 1), float32 or wider."""
    hits: Tensor
    """Whether the token was the likeliest, boolean (B, T - 1)."""


def first_row(plan: AnyPlan) -> int:
    """The first row that predicts: 0, or the last token of the first block, where blocks begin with the sequence."""
    return plan.block_length - 1 if isinstance(plan, LevelsPlan) else 0


@torch.no_grad()
def score(model: AnyModel, ids_BT: Tensor) -> Scores:
    """Scores by teacher forcing. The logits of all rows are never held at once.

    Errors: ValueError for ids that the model does not take, or more of them than it has positions for.
    """
    _check(model, ids_BT)
    skipped, length = first_row(model.plan), ids_BT.shape[1]
    if length - 1 <= skipped:
        nothing = torch.full((ids_BT.shape[0], length - 1), torch.nan, dtype=_wide(model.dtype), device=model.device)
        return Scores(nothing, torch.zeros_like(nothing, dtype=torch.bool))
    if isinstance(model, LevelsModel):
        with model.tokens.call.settings():
            return _of_levels(model, ids_BT)
    with model.call.settings():
        x_BSD, run = model.begin(ids_BT[:, :-1], None, None)
        hidden_BSD = run.steps(model.plan.forward_steps()[1:-1], x_BSD)
        losses_N, hits_N = _rows(model, hidden_BSD, ids_BT[:, 1:].flatten())
    return Scores(losses_N.view(-1, length - 1), hits_N.view(-1, length - 1))


@torch.no_grad()
def score_cached(model: AnyModel, ids_BT: Tensor, begin: int = 1) -> Scores:
    """The same as a server would see it: a prefill of `begin` tokens, then a decode step a token.

    Rows before `begin - 1` are not computed. Where layers iterate, decoding is exact and teacher forcing is not.
    """
    _check(model, ids_BT)
    batch, length = ids_BT.shape
    if not 1 <= begin < length:
        raise ValueError(f"begin must be 1 to {length - 1}, the tokens before the first that is scored, not {begin}")
    decoder: Decoder = model
    cache = decoder.new_cache(batch, length - 1)
    # Blocks begin with the sequence, as in `score`.
    options: dict[str, Any] = {"prompt_len": model.plan.block_length} if isinstance(model, LevelsModel) else {}
    logits_BV = decoder.prefill(ids_BT[:, :begin], cache, **options)
    losses_BT = torch.full((batch, length - 1), torch.nan, dtype=_wide(logits_BV.dtype), device=ids_BT.device)
    hits_BT = torch.zeros((batch, length - 1), dtype=torch.bool, device=ids_BT.device)
    for row in range(begin - 1, length - 1):
        if row >= begin:
            logits_BV = decoder.decode(ids_BT[:, row], cache)
        if row >= first_row(model.plan):
            losses_BT[:, row], hits_BT[:, row] = _judged(logits_BV, ids_BT[:, row + 1])
    return Scores(losses_BT, hits_BT)


def _of_levels(model: LevelsModel, ids_BT: Tensor) -> Scores:
    block, (batch, length) = model.plan.block_length, ids_BT.shape
    behind = model.plan.padding(length)  # completes the last block, and is not scored
    whole_BS = F.pad(ids_BT, (0, behind), value=model.plan.pad_token)
    hidden = last_hidden(model.blocks, model.tokens, whole_BS.unflatten(1, (-1, block)), None)
    found = _rows(model.tokens, hidden, whole_BS[:, block:].flatten())
    losses_BS, hits_BS = (rows_N.view(batch, -1)[:, : length - block] for rows_N in found)
    return Scores(F.pad(losses_BS, (block - 1, 0), value=torch.nan), F.pad(hits_BS, (block - 1, 0), value=False))


def _rows(network: Network, x_BSD: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and hits (N,), given what left the last layer."""
    h_ND = network.call(normed_rows, "", network, x_BSD)
    matrix, bias = network.output_matrix(), network.output_bias()
    if matrix is None:
        raise ValueError("scores need logits, and this network gives vectors")
    sizes = chunk_sizes(h_ND.shape[0], matrix.shape[0])
    parts = [
        network.call(chunk_scores, "", network, h_RD.clone(), targets_R.clone(), matrix, bias)
        for h_RD, targets_R in zip(h_ND.split(sizes), targets_N.split(sizes), strict=True)
    ]
    return torch.cat([losses for losses, _ in parts]), torch.cat([hits for _, hits in parts])


def chunk_scores(
    network: Network, h_RD: Tensor, targets_R: Tensor, matrix_VD: Tensor, bias_V: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Losses and hits (R,) of a chunk. A unit."""
    return _judged(logits_of(network.plan, h_RD, matrix_VD, bias_V), targets_R)


def _judged(logits_RV: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    losses_R = F.cross_entropy(logits_RV.to(_wide(logits_RV.dtype)), targets_R, reduction="none")
    return losses_R, logits_RV.argmax(-1) == targets_R


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _check(model: AnyModel, ids_BT: Tensor) -> None:
    if ids_BT.ndim != 2 or ids_BT.dtype != torch.int64 or ids_BT.shape[1] < 2:
        dtype = str(ids_BT.dtype).removeprefix("torch.")
        raise ValueError(
            f"scores need int64 ids (B, T) of 2 tokens or more, not {dtype} of shape {tuple(ids_BT.shape)}"
        )
    low, high = int(ids_BT.min()), int(ids_BT.max())
    if low < 0 or high >= model.plan.vocab_size:
        raise ValueError(f"token ids must be 0 to {model.plan.vocab_size - 1}; these are {low} to {high}")
    model.plan.check_context(ids_BT.shape[1] - 1)
