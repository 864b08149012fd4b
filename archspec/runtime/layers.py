"""The parts of a decoder layer. Parameter names and order are those of `Plan.parameter_shapes`.

Legend: B batch, S query tokens, N heads, K kv heads, H head_dim, D hidden, F ffn.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.plan import GATED_FFNS, AttentionPlan, CacheSlot, LayerPlan, RetentionPlan
from archspec.runtime.attention import Backend, View, Visibility
from archspec.runtime.retention import Retention
from archspec.runtime.rope import Rotation, Table, rotate, rotation_of
from archspec.spec.model import Ffn, Norm

DEFAULT_EPS = 1e-5


class RmsNorm(nn.Module):
    """Root mean square norm over the last dimension, computed in float32 or wider (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)


def make_norm(norm: Norm, size: int) -> nn.Module:
    """The module of a norm; kind `none` is the identity and has no parameters."""
    eps = DEFAULT_EPS if norm.eps is None else norm.eps
    match norm.kind:
        case "rms":
            return RmsNorm(size, eps)
        case "layernorm":
            return nn.LayerNorm(size, eps)
        case "none":
            return nn.Identity()


class KeyValueProjection(nn.Module):
    """Keys and values of one slot: norm, projections, per-head key norm, rotation."""

    def __init__(self, slot: CacheSlot, hidden_size: int) -> None:
        super().__init__()
        inner = slot.num_kv_heads * slot.head_dim
        self.norm = make_norm(slot.norm, hidden_size)
        self.k_proj = nn.Linear(hidden_size, inner, bias=slot.bias)
        self.v_proj = nn.Linear(hidden_size, inner, bias=slot.bias)
        self.k_norm = make_norm(slot.k_norm, slot.head_dim)
        self.heads = (slot.num_kv_heads, slot.head_dim)
        self.rotation: Rotation | None = rotation_of(slot.rope, slot.head_dim)

    def forward(self, x_BSD: Tensor, tables: dict[Rotation, Table]) -> tuple[Tensor, Tensor]:
        """Rotated keys and values, shape (B, K, S, H) each."""
        h = self.norm(x_BSD)
        k_BKSH = self.k_norm(self.k_proj(h).unflatten(-1, self.heads)).transpose(1, 2)
        v_BKSH = self.v_proj(h).unflatten(-1, self.heads).transpose(1, 2)
        return rotate(k_BKSH, self.rotation, tables), v_BKSH


class Attention(nn.Module):
    """Queries over the keys and values of one slot. The layer holds K/V projections only if it owns them."""

    def __init__(self, plan: AttentionPlan, slot: CacheSlot, hidden_size: int) -> None:
        super().__init__()
        inner = plan.num_heads * plan.head_dim
        self.q_proj = nn.Linear(hidden_size, inner, bias=plan.qkv_bias)
        self.q_norm = make_norm(plan.q_norm, plan.head_dim)
        self.kv = KeyValueProjection(slot, hidden_size) if plan.owns_kv else None
        self.o_proj = nn.Linear(inner, hidden_size, bias=plan.out_bias)
        self.heads = (plan.num_heads, plan.head_dim)
        self.slot_idx, self.window = plan.slot_idx, plan.window
        self.rotation: Rotation | None = rotation_of(plan.rope, plan.head_dim)

    def forward(
        self, x_BSD: Tensor, tables: dict[Rotation, Table], view: View, visibility: Visibility, attend: Backend
    ) -> Tensor:
        q_BNSH = self.q_norm(self.q_proj(x_BSD).unflatten(-1, self.heads)).transpose(1, 2)
        q_BNSH = rotate(q_BNSH, self.rotation, tables)
        o_BNSH = attend(q_BNSH, view.keys, view.values, visibility)
        out: Tensor = self.o_proj(o_BNSH.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """`swiglu`: down(silu(gate x) * up x); `gelu`: down(gelu(up x)) with the exact GELU."""

    def __init__(self, ffn: Ffn, hidden_size: int, bias: bool) -> None:
        super().__init__()
        if ffn.hidden_size is None:
            raise ValueError(f"the plan gives no hidden size for ffn {ffn.kind}")
        self.gate_proj = nn.Linear(hidden_size, ffn.hidden_size, bias=bias) if ffn.kind in GATED_FFNS else None
        self.up_proj = nn.Linear(hidden_size, ffn.hidden_size, bias=bias)
        self.down_proj = nn.Linear(ffn.hidden_size, hidden_size, bias=bias)

    def forward(self, x_BSD: Tensor) -> Tensor:
        up_BSF = self.up_proj(x_BSD)
        h_BSF = F.gelu(up_BSF) if self.gate_proj is None else F.silu(self.gate_proj(x_BSD)) * up_BSF
        out: Tensor = self.down_proj(h_BSF)
        return out


class Block(nn.Module):
    """The modules of one layer: x += mixer(mixer_norm(x)); x += ffn(ffn_norm(x)). A missing part is None."""

    def __init__(self, plan: LayerPlan, slots: tuple[CacheSlot, ...], hidden_size: int) -> None:
        super().__init__()
        self.mixer_norm = None if plan.mixer is None else make_norm(plan.norm, hidden_size)
        self.mixer = _make_mixer(plan, slots, hidden_size)
        self.ffn_norm = None if plan.ffn is None else make_norm(plan.norm, hidden_size)
        self.ffn = None if plan.ffn is None else FeedForward(plan.ffn, hidden_size, plan.ffn_bias)
        self.parallel_residual = plan.parallel_residual


def _make_mixer(plan: LayerPlan, slots: tuple[CacheSlot, ...], hidden_size: int) -> Attention | Retention | None:
    match plan.mixer:
        case AttentionPlan() as mixer:
            return Attention(mixer, slots[mixer.slot_idx], hidden_size)
        case RetentionPlan() as mixer:
            return Retention(mixer, hidden_size)
        case None:
            return None
