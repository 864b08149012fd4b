"""Attention within a window, in blocks of queries: time and memory grow with T * W, not with T * T.

Legend: B batch, S query tokens, T keys, M blocks, L queries of a block, R keys of a block, N heads, K kv heads,
H head_dim.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.runtime.attention import Backend, Scoring, Sight, Visibility, visible_mask

MOST_QUERIES, FEWEST_QUERIES = 256, 16
"""A block of L queries is scored against W + L - 1 keys, of which each query needs W: small blocks waste little, and
large ones make better matrix products."""


def fits(visibility: Visibility) -> bool:
    """Whether `attend_near` can serve: a window, and keys whose order tells which are near."""
    window, sinks, front = visibility.sight.window, visibility.sight.sinks, visibility.front
    if window is None or front is None or visibility.stored_sinks not in (0, sinks):
        return False
    return front == 0 or front >= window - 1


def block_len(window: int) -> int:
    """Queries of a block, where all blocks are one batch."""
    return max(FEWEST_QUERIES, min(MOST_QUERIES, window // 4))


def turn_len(window: int) -> int:
    """Queries of a block, where blocks take turns: each costs a call, but no copy of the keys."""
    return max(64, min(MOST_QUERIES, window // 8))


def seen(
    keys_BKTH: Tensor, values_BKTH: Tensor, positions_T: Tensor, begin: int, end: int, sight: Sight, stored_sinks: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What queries see whose own keys are those from place `begin` to place `end`, with sinks in front."""
    window, sinks, _ = sight
    first = max(stored_sinks, begin - (window or 1) + 1)
    apart = sinks > 0 and first > sinks
    first = 0 if sinks and not apart else first

    def near_ones(x: Tensor, dim: int) -> Tensor:
        own = x.narrow(dim, first, end - first)
        return torch.cat((x.narrow(dim, 0, sinks), own), dim) if apart else own

    return near_ones(keys_BKTH, 2), near_ones(values_BKTH, 2), near_ones(positions_T, 0)


def attend_near(
    attend: Backend, q_BNSH: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """`attend` for every block of queries and the keys near it. Source: local attention, arXiv 2004.05150, 3.1."""
    window, sinks, front = visibility.sight.window, visibility.sight.sinks, visibility.front
    if window is None or front is None:
        raise ValueError("blocks need a window and keys in order")
    num_tokens = q_BNSH.shape[2]
    length = block_len(window)
    # One block more than needed in a graph: a single one would be a size that compilers treat apart.
    num_blocks = (num_tokens + length - 1) // length + torch.compiler.is_compiling()
    behind = num_blocks * length - num_tokens

    def near(x_T: Tensor, dim: int, value: int) -> Tensor:
        """What blocks see of the keys: R of them every L places, along `dim`."""
        # Lengths by the number of queries alone: a compiler need not find out that there are as many keys.
        skipped, before = (front - (window - 1), 0) if front else (0, window - 1)
        own = x_T.narrow(dim, visibility.stored_sinks + skipped, num_tokens + window - 1 - before)
        tail = (0, 0) * (x_T.ndim - 1 - dim)
        return F.pad(own, (*tail, before, behind), value=value).unfold(dim, window - 1 + length, length)

    q_MBNLH = F.pad(q_BNSH, (0, 0, 0, behind)).unflatten(2, (num_blocks, length)).movedim(2, 0)
    keys, values = (near(x, 2, 0).permute(2, 0, 1, 4, 3) for x in (keys_BKTH, values_BKTH))
    k_positions = near(visibility.k_positions, 0, -1)
    q_positions = F.pad(visibility.q_positions, (0, behind), value=0).unflatten(0, (num_blocks, length))
    if sinks:
        # Sinks are put before each block, and hidden where they are near as well.
        k_positions = torch.where(k_positions < sinks, -1, k_positions)
        first = visibility.k_positions[:sinks].expand(num_blocks, -1)
        k_positions = torch.cat((first, k_positions), dim=1)
        keys = torch.cat((keys_BKTH[:, :, :sinks].expand(num_blocks, -1, -1, -1, -1), keys), dim=3)
        values = torch.cat((values_BKTH[:, :, :sinks].expand(num_blocks, -1, -1, -1, -1), values), dim=3)
    mask_MBLR = _mask(visibility, q_positions, k_positions, q_BNSH.shape[0])
    inner = replace(visibility, front=None, _mask=mask_MBLR.flatten(0, 1)[:, None])
    o = attend(q_MBNLH.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), inner, scoring)
    return o.unflatten(0, (num_blocks, -1)).movedim(0, 2).flatten(2, 3)[:, :, :num_tokens]


def _mask(visibility: Visibility, q_positions_ML: Tensor, k_positions_MR: Tensor, batch: int) -> Tensor:
    """Boolean (M, B, L, R); queries that see nothing see everything."""
    visible = visible_mask(q_positions_ML, k_positions_MR, visibility.sight)[:, None]
    if visibility.pad_lens is not None:
        visible = visible & (k_positions_MR[:, None, None, :] >= visibility.pad_lens[None, :, None, None])
    return (visible | ~visible.any(-1, keepdim=True)).expand(-1, batch, -1, -1)
