"""Rotary position embedding (arXiv 2104.09864): tables made from positions on the fly, and the rotation.

Legend: B batch, S query tokens, N heads, H head_dim, R rotated dimensions (R <= H, even).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from archspec.spec.model import Rope

Table = tuple[Tensor, Tensor]
"""Cosines and sines, shape (S, R // 2) each, float32."""


class Rotation(NamedTuple):
    """What a table depends on besides positions; plain values, so that equal ones share a table."""

    kind: str
    theta: float
    rotary_dim: int
    limit: int | None = None
    """Positions beyond it turn as it does."""


def rotation_of(rope: Rope, head_dim: int, limit: int | None = None) -> Rotation | None:
    """The rotation of heads of `head_dim`; None if nothing rotates."""
    rotary_dim = head_dim * rope.percent // 100 // 2 * 2
    if rope.kind == "none" or rotary_dim == 0:
        return None
    return Rotation(rope.kind, rope.theta, rotary_dim, limit)


def rope_table(rotation: Rotation, positions_S: Tensor) -> Table:
    """Cosines and sines of every position.

    Source: `half` and `interleaved` as in Llama and GPT-J; `interleaved-linspace` as in YOCO's released code,
    whose exponents include the end point 1.
    """
    kind, theta, size, limit = rotation
    if limit is not None:
        positions_S = positions_S.clamp(max=limit)
    if kind == "interleaved-linspace":
        exponents = torch.linspace(0, 1, size // 2, device=positions_S.device, dtype=torch.float32)
    else:
        exponents = torch.arange(0, size, 2, device=positions_S.device, dtype=torch.float32) / size
    # The reciprocal of a power, not a negative power: it is what the references compute, to the last bit.
    frequencies = 1.0 / theta**exponents
    angles = positions_S.to(torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x_BNSH: Tensor, rotation: Rotation | None, tables: dict[Rotation, Table]) -> Tensor:
    """Rotate the first R dimensions of every head, in float32 or wider."""
    if rotation is None:
        return x_BNSH
    cos, sin = tables[rotation]
    head_dim = x_BNSH.shape[-1]
    x = x_BNSH.to(torch.promote_types(x_BNSH.dtype, torch.float32))
    turned, rest = x[..., : rotation.rotary_dim], x[..., rotation.rotary_dim :]
    turned = _rotate_halves(turned, cos, sin) if rotation.kind == "half" else _rotate_pairs(turned, cos, sin)
    if rotation.rotary_dim < head_dim:
        turned = torch.cat((turned, rest), dim=-1)
    return turned.to(x_BNSH.dtype)


def _rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def _rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
