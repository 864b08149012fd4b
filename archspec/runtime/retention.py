"""Gated retention (YOCO, arXiv 2405.05254, section 3.1): linear attention with a data-dependent decay.

    S_t = g_t * S_{t-1} + outer(k_t, v_t),   o_t = q_t S_t

Decays are handled as logarithms and states kept in float32 whatever the model's dtype: a bfloat16 decay of
0.9989 rounds to 1.0, a memory that never fades (the released code does that in its bfloat16 decode step).

Legend: B batch, S tokens, C chunks, L tokens in a chunk, N heads, H head_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.plan import RetentionPlan
from archspec.runtime.rope import Rotation, Table, rotate, rotation_of

CHUNK_LEN = 64
GATE_NORMALIZER = 16


class Retention(nn.Module):
    """Gated retention: out = o_proj(silu(g_proj x) * norm(o))."""

    def __init__(self, plan: RetentionPlan, hidden_size: int) -> None:
        super().__init__()
        inner = plan.num_heads * plan.head_dim
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.g_proj = nn.Linear(hidden_size, inner, bias=False)
        self.gt_proj = nn.Linear(hidden_size, plan.num_heads, bias=False)
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)
        self.num_heads, self.head_dim, self.state_idx = plan.num_heads, plan.head_dim, plan.state_idx
        self.norm_eps = plan.norm_eps
        self.rotation: Rotation | None = rotation_of(plan.rope, plan.head_dim)

    def forward(self, x_BSD: Tensor, tables: dict[Rotation, Table], state_BNHH: Tensor | None) -> tuple[Tensor, Tensor]:
        """Output (B, S, D) and the state after the last token; no state given means an empty one."""
        wide = torch.promote_types(x_BSD.dtype, torch.float32)
        q = rotate(self._heads(self.q_proj(x_BSD)), self.rotation, tables).to(wide)
        k = rotate(self._heads(self.k_proj(x_BSD)), self.rotation, tables).to(wide) * self.head_dim**-0.5
        v = self._heads(self.v_proj(x_BSD)).to(wide)
        log_decay_BNS = F.logsigmoid(self.gt_proj(x_BSD).to(wide)).transpose(1, 2) / GATE_NORMALIZER
        if state_BNHH is None:
            state_BNHH = q.new_zeros((q.shape[0], self.num_heads, self.head_dim, self.head_dim))
        retain = retain_one if q.shape[2] == 1 else retain_chunks
        o_BNSH, state = retain(q, k, v, log_decay_BNS, state_BNHH.to(wide))
        o_BNSH = F.rms_norm(o_BNSH, (self.head_dim,), eps=self.norm_eps)
        o_BSE = o_BNSH.transpose(1, 2).flatten(2).to(x_BSD.dtype)
        return self.o_proj(F.silu(self.g_proj(x_BSD)) * o_BSE), state

    def _heads(self, x_BSE: Tensor) -> Tensor:
        return x_BSE.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


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
