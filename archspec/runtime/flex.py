"""Attention by `torch.nn.attention.flex_attention`: what is visible is a function, and blocks of nothing are skipped.

Legend: B batch, S query tokens, T keys in a view, Q blocks of queries, R blocks of keys, N heads, K kv heads.
Source: FlexAttention, arXiv 2412.05496.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from archspec.runtime.attention import Scoring, Visibility, apart, cap

BLOCK = 128
FAR = 1 << 30
"""Behind every position."""


def attend(q_BNSE: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring) -> Tensor:
    """Attention for any visibility, inside a compiled graph. A query that sees nothing gets zeros."""
    softcap, sink_logits = scoring.softcap, scoring.sink_logits
    if q_BNSE.shape[-1] != keys_BKTH.shape[-1]:
        keys_BKTH = apart(keys_BKTH, visibility.k_positions < visibility.sight.sinks)
    k_positions = visibility.k_positions
    if sink_logits is not None:
        # A key in front, seen by all, whose score is its head's logit, and whose value is zero.
        keys_BKTH, values_BKTH = F.pad(keys_BKTH, (0, 0, 1, 0)), F.pad(values_BKTH, (0, 0, 1, 0))
        k_positions = F.pad(k_positions, (1, 0), value=-1)

    def score(score: Tensor, b: Tensor, n: Tensor, s: Tensor, t: Tensor) -> Tensor:
        capped = cap(score, softcap)
        return capped if sink_logits is None else torch.where(t == 0, sink_logits[n].to(score.dtype), capped)

    changed = softcap is not None or sink_logits is not None
    out: Tensor = flex_attention(
        q_BNSE,
        keys_BKTH,
        values_BKTH,
        score_mod=score if changed else None,
        block_mask=block_mask(visibility, k_positions, sink_logits is not None),
        scale=scoring.scale,
        enable_gqa=True,  # one head a group is a case of it
    )
    return out


def block_mask(visibility: Visibility, k_positions: Tensor, key_in_front: bool) -> BlockMask:
    """The mask over keys at `k_positions`; with `key_in_front` the first of them is visible to all.

    Which blocks hold anything follows from their first and last positions; nothing of size S x T is ever made.
    """
    q_positions, pads_B = visibility.q_positions, visibility.pad_lens
    window, sinks, sees_self = visibility.sight

    def visible(b: Tensor, n: Tensor, s: Tensor, t: Tensor) -> Tensor:
        at, place = q_positions[s], k_positions[t]
        seen = (place <= at if sees_self else place < at) & (place >= 0)
        if window is not None:
            near = place > at - window
            seen = seen & (near | (place < sinks) if sinks else near)
        if pads_B is not None:
            seen = seen & (place >= pads_B[b])
        return seen | (t == 0) if key_in_front else seen

    some, every = _blocks(visibility, k_positions)
    if key_in_front:
        some = torch.cat((torch.ones_like(some[..., :1]), some[..., 1:]), dim=-1)
    return BlockMask.from_kv_blocks(
        *_as_lists(some & ~every),
        *_as_lists(every),
        BLOCK_SIZE=BLOCK,
        mask_mod=visible,
        seq_lengths=(q_positions.shape[0], k_positions.shape[0]),
    )


def _blocks(visibility: Visibility, k_positions: Tensor) -> tuple[Tensor, Tensor]:
    """Booleans (B or 1, 1, Q, R): blocks that may hold something visible, and blocks in which everything is."""
    window, sinks, sees_self = visibility.sight
    q_positions, late = visibility.q_positions, 0 if sees_self else 1
    first_q, last_q = _blocked(q_positions, FAR).amin(1)[:, None], _blocked(q_positions, -1).amax(1)[:, None]
    first_k = _blocked(torch.where(k_positions < 0, FAR, k_positions), FAR).amin(1)
    last_k = _blocked(k_positions, -1).amax(1)
    # Blocks with empty places, and those that reach over an end, are never whole.
    whole_q, lowest_k = _blocked(q_positions, -1).amin(1)[:, None] >= 0, _blocked(k_positions, -1).amin(1)
    some = (first_k <= last_q - late) & (last_k >= 0)
    every = whole_q & (lowest_k >= 0) & (last_k <= first_q - late)
    if window is not None:
        near = last_k > first_q - window
        some = some & (near | (first_k < sinks) if sinks else near)
        every = every & (lowest_k > last_q - window)
    some, every = some[None, None], every[None, None]
    if visibility.pad_lens is not None:
        pads = visibility.pad_lens[:, None, None, None]
        some, every = some & (last_k >= pads), every & (lowest_k >= pads)
    return some, every


def _blocked(positions: Tensor, behind: int) -> Tensor:
    """(blocks, BLOCK), with `behind` behind the last position."""
    count = (positions.shape[0] + BLOCK - 1) // BLOCK
    return F.pad(positions, (0, count * BLOCK - positions.shape[0]), value=behind).unflatten(0, (count, BLOCK))


def _as_lists(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of a row are set, and which, those in front; int32."""
    order = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), order.to(torch.int32)
