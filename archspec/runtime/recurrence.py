"""The recurrence of retention in torch: one token at a time, and many in chunks.

    S_t = g_t * S_{t-1} + outer(k_t, v_t),   o_t = q_t S_t

Legend: B batch, S tokens, C chunks, L tokens in a chunk, N heads, H head_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_LEN = 64


def retain_one(q: Tensor, k: Tensor, v: Tensor, log_decay_BNS: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence for one token. Shapes: q, k, v (B, N, 1, H), state (B, N, H, H)."""
    state = log_decay_BNS.exp()[..., None] * state + k.transpose(-1, -2) * v
    return q @ state, state


def retain_chunks(q: Tensor, k: Tensor, v: Tensor, log_decay_BNS: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same for many tokens: quadratic inside chunks, states between them.

    The states before all chunks come from one product with a matrix of decays between chunks, not from a loop, so
    that one graph serves every length. Memory is linear in S but for that (S / 64) ** 2 matrix, which outgrows the
    states only where S / 64 exceeds H ** 2.

    Shapes: q, k, v (B, N, S, H), state (B, N, H, H). Source: arXiv 2405.05254, section 3.1, chunk-wise form.
    """
    num_tokens = q.shape[2]
    # One chunk more than needed: a single chunk would be a size that compilers treat apart.
    num_chunks = (num_tokens + CHUNK_LEN - 1) // CHUNK_LEN + 1
    q, k, v = (_in_chunks(x, num_chunks) for x in (q, k, v))
    inner_BNCL = _in_chunks(log_decay_BNS[..., None], num_chunks)[..., 0].cumsum(-1)
    total_BNC = inner_BNCL[..., -1]

    updates_BNCHH = (k * (total_BNC[..., None] - inner_BNCL).exp()[..., None]).transpose(-1, -2) @ v
    before_BNCHH, final_BNHH = _states(updates_BNCHH, total_BNC, state)

    decay_BNCLL = _causal_exp(inner_BNCL[..., :, None] - inner_BNCL[..., None, :], diagonal=0)
    o = (q @ k.transpose(-1, -2) * decay_BNCLL) @ v + (q * inner_BNCL.exp()[..., None]) @ before_BNCHH
    # Contiguous: a slice that is kept for the backward pass would fix the length of the compiled graph.
    return o.flatten(2, 3)[:, :, :num_tokens].contiguous(), final_BNHH


def _in_chunks(x_BNSH: Tensor, num_chunks: int) -> Tensor:
    """(B, N, S, H) -> (B, N, C, L, H), zeros behind: no decay (log 0) and nothing stored."""
    padded = F.pad(x_BNSH, (0, 0, 0, num_chunks * CHUNK_LEN - x_BNSH.shape[2]))
    return padded.unflatten(2, (num_chunks, CHUNK_LEN))


def _causal_exp(x: Tensor, diagonal: int) -> Tensor:
    """exp on and below `diagonal`, zero above; what is above may be large, so it is masked before exp."""
    keep = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device).tril(diagonal)
    return x.masked_fill(~keep, -torch.inf).exp()


def _states(updates_BNCHH: Tensor, total_BNC: Tensor, state_BNHH: Tensor) -> tuple[Tensor, Tensor]:
    """States before every chunk, and after the last one."""
    until_BNC = total_BNC.cumsum(-1)
    before_BNC = until_BNC - total_BNC
    # Row c, column j: decay from the end of chunk j to the beginning of chunk c; a chunk does not precede itself.
    decay_BNCC = _causal_exp(before_BNC[..., :, None] - until_BNC[..., None, :], diagonal=-1)
    final_BN1C = (until_BNC[..., -1:] - until_BNC).exp()[..., None, :]
    flat_BNCE = updates_BNCHH.flatten(-2)
    shape = state_BNHH.shape[-2:]
    before = (decay_BNCC @ flat_BNCE).unflatten(-1, shape) + before_BNC.exp()[..., None, None] * state_BNHH[:, :, None]
    final = (final_BN1C @ flat_BNCE)[:, :, 0].unflatten(-1, shape) + until_BNC[..., -1, None, None].exp() * state_BNHH
    return before, final
