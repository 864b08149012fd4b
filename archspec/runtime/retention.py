"""Retention: linear attention whose memory decays, by an amount that the input decides (YOCO, arXiv 2405.05254, section
3.1), by a constant of each head (RetNet, arXiv 2307.08621), or not at all (arXiv 2006.16236).

Decays are handled as logarithms and states kept in float32 whatever the model's dtype: a bfloat16 decay of
0.9989 rounds to 1.0, a memory that never fades (the released code does that in its bfloat16 decode step).

Legend: B batch, S tokens, N heads, H head_dim, D hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.plan import RetentionPlan
from archspec.runtime.linear import Linear
from archspec.runtime.retention_kernels import pick_kernels
from archspec.runtime.rope import Rotation, Table, rotate, rotation_of

GATE_NORMALIZER = 16


class Retention(nn.Module):
    """Retention with an output gate: out = o_proj(silu(g_proj x) * norm(o))."""

    def __init__(self, plan: RetentionPlan, hidden_size: int) -> None:
        super().__init__()
        inner = plan.num_heads * plan.head_dim
        self.q_proj = Linear(hidden_size, inner, bias=False)
        self.k_proj = Linear(hidden_size, inner, bias=False)
        self.v_proj = Linear(hidden_size, inner, bias=False)
        self.g_proj = Linear(hidden_size, inner, bias=False)
        self.gt_proj = Linear(hidden_size, plan.num_heads, bias=False) if plan.decay == "gated" else None
        self.o_proj = Linear(inner, hidden_size, bias=False)
        self.num_heads, self.head_dim, self.state_idx = plan.num_heads, plan.head_dim, plan.state_idx
        self.norm_eps, self.decay = plan.norm_eps, plan.decay
        self.rotation: Rotation | None = rotation_of(plan.rope, plan.head_dim)

    def forward(
        self,
        x_BSD: Tensor,
        tables: dict[Rotation, Table],
        state_BNHH: Tensor | None,
        padding_BS: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Output (B, S, D) and the state after the last token; no state given means an empty one.

        Nothing of a token where `padding_BS` is true enters the state.
        """
        wide = torch.promote_types(x_BSD.dtype, torch.float32)
        q = rotate(self._heads(self.q_proj(x_BSD)), self.rotation, tables).to(wide)
        k = rotate(self._heads(self.k_proj(x_BSD)), self.rotation, tables).to(wide) * self.head_dim**-0.5
        v = self._heads(self.v_proj(x_BSD)).to(wide)
        if padding_BS is not None:
            k = k.masked_fill(padding_BS[:, None, :, None], 0)
        if state_BNHH is None:
            state_BNHH = q.new_zeros((q.shape[0], self.num_heads, self.head_dim, self.head_dim))
        kernels = pick_kernels(q)
        retain = kernels.step if q.shape[2] == 1 else kernels.chunk
        with torch.autocast(x_BSD.device.type, enabled=False):  # products with the state as wide as the state
            o_BNSH, state = retain(q, k, v, self._log_decay(x_BSD, wide), state_BNHH.to(wide))
        o_BNSH = F.rms_norm(o_BNSH, (self.head_dim,), eps=self.norm_eps)
        o_BSE = o_BNSH.transpose(1, 2).flatten(2).to(x_BSD.dtype)
        return self.o_proj(F.silu(self.g_proj(x_BSD)) * o_BSE), state

    def _log_decay(self, x_BSD: Tensor, dtype: torch.dtype) -> Tensor:
        """Logarithms of the decay of every head and token, (B, N, S)."""
        if self.gt_proj is not None:
            return F.logsigmoid(self.gt_proj(x_BSD).to(dtype)).transpose(1, 2) / GATE_NORMALIZER
        shape = (x_BSD.shape[0], self.num_heads, x_BSD.shape[1])
        if self.decay == "none":
            return x_BSD.new_zeros(shape, dtype=dtype)
        return fixed_log_decay(self.num_heads, dtype, x_BSD.device)[:, None].expand(shape)

    def rotations(self) -> list[Rotation]:
        return [] if self.rotation is None else [self.rotation]

    def _heads(self, x_BSE: Tensor) -> Tensor:
        return x_BSE.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


def fixed_log_decay(num_heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """log(1 - 2 ** -(5 + h)) of every head h, (N,). Source: RetNet (arXiv 2307.08621), section 3.1."""
    return torch.log1p(-(2.0 ** -(5 + torch.arange(num_heads, dtype=dtype, device=device))))
