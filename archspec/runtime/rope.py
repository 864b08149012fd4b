"""Rotary position embedding (arXiv 2104.09864): tables made from positions on the fly, and the rotation.

Legend: B batch, S query tokens, N heads, H head_dim, R rotated dimensions (R <= H, even).
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from archspec.runtime.frequencies import Stretch, frequencies, stretch_of
from archspec.spec.model import Rope

HALVES = ("half", "proportional")
"""Kinds that turn dimension i with i + R / 2."""
Table = tuple[Tensor, Tensor]
"""Cosines and sines, shape (S, R // 2) each, float32."""


class Rotation(NamedTuple):
    """What a table depends on besides positions; plain values, so that equal ones share a table."""

    kind: str
    theta: float
    rotary_dim: int
    limit: int | None = None
    """Positions beyond it turn as it does."""
    turning: int | None = None
    """Pairs from this one on do not turn; None: all turn."""
    stretch: Stretch | None = None


def rotation_of(rope: Rope, head_dim: int, limit: int | None = None) -> Rotation | None:
    """The rotation of heads of `head_dim`; None if nothing rotates."""
    rotary_dim = head_dim * rope.percent // 100 // 2 * 2
    if rope.kind == "none" or rotary_dim == 0:
        return None
    stretch = stretch_of(rope.scaling)
    if rope.kind == "proportional":
        return _same(Rotation(rope.kind, rope.theta, head_dim, limit, rotary_dim // 2, stretch))
    return _same(Rotation(rope.kind, rope.theta, rotary_dim, limit, None, stretch))


@cache
def _same(rotation: Rotation) -> Rotation:
    """One object for equal rotations: compiled functions tell keys of a dictionary apart by identity."""
    return rotation


def rope_table(rotation: Rotation, positions_S: Tensor) -> Table:
    """Cosines and sines of every position."""
    kind, theta, size, limit, turning, stretch = rotation
    if limit is not None:
        positions_S = positions_S.clamp(max=limit)
    turning = size // 2 if turning is None else turning
    per_position = frequencies(kind, theta, size, turning, stretch, positions_S)
    angles = positions_S.to(torch.float32)[:, None] * per_position
    if stretch is None or stretch.attention_factor == 1:
        return angles.cos(), angles.sin()
    return angles.cos() * stretch.attention_factor, angles.sin() * stretch.attention_factor


def rotate(x_BNSH: Tensor, rotation: Rotation | None, tables: dict[Rotation, Table]) -> Tensor:
    """Rotate the first R dimensions of every head, in float32 or wider."""
    if rotation is None:
        return x_BNSH
    cos, sin = tables[rotation]
    head_dim = x_BNSH.shape[-1]
    x = x_BNSH.to(torch.promote_types(x_BNSH.dtype, torch.float32))
    turned, rest = x[..., : rotation.rotary_dim], x[..., rotation.rotary_dim :]
    turned = _rotate_halves(turned, cos, sin) if rotation.kind in HALVES else _rotate_pairs(turned, cos, sin)
    if rotation.rotary_dim < head_dim:
        turned = torch.cat((turned, rest), dim=-1)
    return turned.to(x_BNSH.dtype)


def _rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def _rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
