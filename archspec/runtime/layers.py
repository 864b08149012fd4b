"""The parts of a decoder layer. Parameter names and order are those of `Plan.parameter_shapes`.

Legend: B batch, S query tokens, N heads, K kv heads, H head_dim, D hidden, F ffn.
"""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.parameters import head_norm_sizes
from archspec.plan import NO_NORM, AttentionPlan, CacheSlot, LayerPlan, RetentionPlan
from archspec.runtime.attention import Backend, Scoring, Sight, View, Visibility
from archspec.runtime.feed_forward import make_ffn
from archspec.runtime.linear import Linear
from archspec.runtime.retention import Retention
from archspec.runtime.rope import Rotation, Table, rotate, rotation_of
from archspec.spec.model import Norm

DEFAULT_EPS = 1e-5


class RmsNorm(nn.Module):
    """Root mean square norm over the last dimension, computed in float32 or wider (arXiv 1910.07467).

    With `plus_one` the factor is 1 + weight, and the product is formed before rounding (Gemma).
    """

    def __init__(self, sizes: tuple[int, ...], eps: float, plus_one: bool = False, weight: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(sizes)) if weight else None
        self.eps, self.plus_one = eps, plus_one

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        if self.weight is None:
            return normed.to(x.dtype)
        if self.plus_one:
            return (normed * (1 + self.weight.to(wide.dtype))).to(x.dtype)
        return self.weight * normed.to(x.dtype)


class HeadLayerNorm(nn.LayerNorm):
    """Layer norm over the last dimension with weights over two: every head has its own (Cohere)."""

    def __init__(self, sizes: tuple[int, ...], eps: float, bias: bool) -> None:
        super().__init__(sizes[-1], eps, elementwise_affine=False)
        self.weight = nn.Parameter(torch.ones(sizes))
        self.bias = nn.Parameter(torch.zeros(sizes)) if bias else None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x, self.normalized_shape, eps=self.eps) * self.weight
        return normed if self.bias is None else normed + self.bias


def make_norm(norm: Norm, *sizes: int) -> nn.Module:
    """The module of a norm whose weights have shape `sizes`; kind `none` is the identity and has no parameters."""
    eps = DEFAULT_EPS if norm.eps is None else norm.eps
    match norm.kind:
        case "rms":
            return RmsNorm(sizes, eps, norm.plus_one, norm.weight)
        case "layernorm" if len(sizes) > 1 and norm.weight:
            return HeadLayerNorm(sizes, eps, norm.bias)
        case "layernorm":
            return nn.LayerNorm(sizes[-1], eps, elementwise_affine=norm.weight, bias=norm.bias)
        case "none":
            return nn.Identity()


def make_head_norm(norm: Norm, num_heads: int, head_dim: int) -> nn.Module:
    """The module of a norm of queries, keys or values."""
    return make_norm(norm, *head_norm_sizes(norm, num_heads, head_dim))


def in_heads(x_BSE: Tensor, heads: tuple[int, int], norm: nn.Module, across: bool) -> Tensor:
    """A projection as normed heads (B, N, S, H); `across` norms all heads together."""
    x_BSNH = norm(x_BSE).unflatten(-1, heads) if across else norm(x_BSE.unflatten(-1, heads))
    return x_BSNH.transpose(1, 2)


class KeyValueProjection(nn.Module):
    """Keys and values of one slot: norm, projections, norms of keys and values, rotation of keys."""

    def __init__(self, slot: CacheSlot, hidden_size: int) -> None:
        super().__init__()
        inner = slot.num_kv_heads * slot.head_dim
        self.norm = make_norm(slot.norm, hidden_size)
        self.k_proj = Linear(hidden_size, inner, bias=slot.bias)
        self.v_proj = None if slot.values_from_keys else Linear(hidden_size, inner, bias=slot.bias)
        self.k_norm = make_head_norm(slot.k_norm, slot.num_kv_heads, slot.head_dim)
        self.v_norm = make_head_norm(slot.v_norm, slot.num_kv_heads, slot.head_dim)
        self.k_across, self.v_across = slot.k_norm.spread == "across", slot.v_norm.spread == "across"
        self.heads = (slot.num_kv_heads, slot.head_dim)
        self.rotation: Rotation | None = rotation_of(slot.rope, slot.head_dim)
        self.window, self.sinks = slot.window, slot.sinks

    def forward(self, x_BSD: Tensor, tables: dict[Rotation, Table]) -> tuple[Tensor, Tensor]:
        """Rotated keys and values, shape (B, K, S, H) each."""
        h = self.norm(x_BSD)
        k_BSE = self.k_proj(h)
        v_BSE = k_BSE if self.v_proj is None else self.v_proj(h)
        k_BKSH = in_heads(k_BSE, self.heads, self.k_norm, self.k_across)
        v_BKSH = in_heads(v_BSE, self.heads, self.v_norm, self.v_across)
        return rotate(k_BKSH, self.rotation, tables), v_BKSH

    def rotations(self) -> list[Rotation]:
        return [] if self.rotation is None else [self.rotation]


class Places(Protocol):
    """Where the queries of a pass are."""

    @property
    def positions(self) -> Tensor: ...
    @property
    def pad_lens(self) -> Tensor | None: ...


class Attention(nn.Module):
    """Queries over the keys and values of one slot. The layer holds K/V projections only if it owns them."""

    def __init__(self, plan: AttentionPlan, slot: CacheSlot, hidden_size: int) -> None:
        super().__init__()
        inner = plan.num_heads * plan.head_dim
        self.sink_logits = nn.Parameter(torch.empty(plan.num_heads)) if plan.sink_logits else None
        self.q_proj = Linear(hidden_size, inner, bias=plan.qkv_bias)
        self.q_norm = make_head_norm(plan.q_norm, plan.num_heads, plan.head_dim)
        self.q_across = plan.q_norm.spread == "across"
        self.kv = KeyValueProjection(slot, hidden_size) if plan.owns_kv else None
        self.g_proj = Linear(hidden_size, inner, bias=plan.qkv_bias) if plan.output_gate else None
        self.o_proj = Linear(inner, hidden_size, bias=plan.out_bias)
        self.heads = (plan.num_heads, plan.head_dim)
        self.slot_idx = plan.slot_idx
        self.sight = Sight(plan.window, plan.sinks, plan.sees_self)
        self.scoring = Scoring(plan.scale, plan.softcap)
        self.rotation: Rotation | None = rotation_of(plan.rope, plan.head_dim)
        self.sink_rotation: Rotation | None = None
        """How queries turn towards sinks: from the place where a full cache has them."""
        if plan.sinks and plan.window is not None:
            self.sink_rotation = rotation_of(plan.rope, plan.head_dim, plan.sinks + plan.window - 1)

    def forward(
        self, x_BSD: Tensor, tables: dict[Rotation, Table], view: View, places: "Places", attend: Backend
    ) -> Tensor:
        unturned_BNSH = in_heads(self.q_proj(x_BSD), self.heads, self.q_norm, self.q_across)
        q_BNSE = rotate(unturned_BNSH, self.rotation, tables)
        if self.sink_rotation is not None:
            q_BNSE = torch.cat((q_BNSE, rotate(unturned_BNSH, self.sink_rotation, tables)), dim=-1)
        visibility = Visibility(places.positions, view.positions, self.sight, places.pad_lens, *view[3:])
        scoring = Scoring(self.scoring.scale, self.scoring.softcap, self.sink_logits)
        # Under autocast, what comes from a cache has another dtype: the model's.
        keys_BKTH, values_BKTH = view.keys.to(q_BNSE.dtype), view.values.to(q_BNSE.dtype)
        o_BNSH = attend(q_BNSE, keys_BKTH, values_BKTH, visibility, scoring)
        blind = visibility.blind()
        if blind is not None:
            o_BNSH = o_BNSH.masked_fill(blind, 0)
        o_BSE = o_BNSH.transpose(1, 2).flatten(2)
        if self.g_proj is not None:
            o_BSE = o_BSE * torch.sigmoid(self.g_proj(x_BSD))
        out: Tensor = self.o_proj(o_BSE)
        return out

    def rotations(self) -> list[Rotation]:
        return [rotation for rotation in (self.rotation, self.sink_rotation) if rotation is not None]


class Block(nn.Module):
    """One layer. A missing part is None, a missing norm the identity."""

    scalar: Tensor | None

    def __init__(self, plan: LayerPlan, slots: tuple[CacheSlot, ...], hidden_size: int) -> None:
        super().__init__()
        pre = plan.norm if plan.placement != "post" else NO_NORM
        post = plan.norm if plan.placement != "pre" else NO_NORM
        has_mixer, has_ffn = plan.mixer is not None, plan.ffn is not None
        self.mixer_norm = make_norm(pre if has_mixer else NO_NORM, hidden_size)
        self.mixer = _make_mixer(plan, slots, hidden_size)
        self.mixer_post_norm = make_norm(post if has_mixer else NO_NORM, hidden_size)
        self.ffn_norm = make_norm(pre if has_ffn and not plan.one_norm else NO_NORM, hidden_size)
        self.ffn = None if plan.ffn is None else make_ffn(plan.ffn, hidden_size, plan.ffn_bias)
        self.ffn_post_norm = make_norm(post if has_ffn else NO_NORM, hidden_size)
        self.is_parallel, self.one_norm = plan.residual != "sequential", plan.one_norm
        self.residual_scale = plan.residual_scale
        self.register_buffer("scalar", torch.ones(1) if plan.layer_scalar else None)

    def forward(self, x_BSD: Tensor, mix: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Shapes: `mix` maps (B, S, D) to (B, S, D); it is the mixer on whatever it mixes with."""
        input_BSD = h_BSD = x_BSD
        if mix is not None:
            h_BSD = self.mixer_norm(x_BSD)
            x_BSD = self.added(x_BSD, self.mixer_post_norm(mix(h_BSD)))
        if self.ffn is not None:
            if not self.one_norm:
                h_BSD = self.ffn_norm(input_BSD if self.is_parallel else x_BSD)
            x_BSD = self.added(x_BSD, self.ffn_post_norm(self.ffn(h_BSD)))
        return x_BSD if self.scalar is None else x_BSD * self.scalar

    def added(self, x: Tensor, part: Tensor) -> Tensor:
        """The residual stream after a part of the layer."""
        return x + part if self.residual_scale == 1 else x + self.residual_scale * part


def _make_mixer(plan: LayerPlan, slots: tuple[CacheSlot, ...], hidden_size: int) -> Attention | Retention | None:
    match plan.mixer:
        case AttentionPlan() as mixer:
            return Attention(mixer, slots[mixer.slot_idx], hidden_size)
        case RetentionPlan() as mixer:
            return Retention(mixer, hidden_size)
        case None:
            return None
