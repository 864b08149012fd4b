"""Softmax attention over a view of keys: what is visible, and the backends that compute it.

Legend: B batch, S query tokens, T keys in the view, N heads, K kv heads, G heads of a kv head, H head_dim.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Layout(NamedTuple):
    """Which positions a view holds: views of one layout in one pass hold the same."""

    window: int | None
    sinks: int
    kind: str


class Sight(NamedTuple):
    """Which positions a query may see, whatever the view holds."""

    window: int | None = None
    sinks: int = 0
    sees_self: bool = True


PLAIN = Sight()
"""Everything up to the query itself."""


class Scoring(NamedTuple):
    """From q . k to scores: times `scale`, then softcap * tanh(scores / softcap) if there is one."""

    scale: float
    softcap: float | None = None


@dataclass
class View:
    """Keys and values that readers of a slot see at one point of a pass.

    Shapes: `keys` and `values` (B, K, T, H), `positions` (T,); a negative position is an empty place.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    layout: Layout
    from_start: bool = False
    """The view is exactly positions 0 .. T - 1 of the pass's own tokens."""


@dataclass
class Visibility:
    """Which keys a query sees."""

    q_positions: Tensor
    k_positions: Tensor
    sight: Sight = PLAIN
    causal: bool = False
    """Queries and keys are the same positions and nothing but their order hides any: plain causal attention."""
    pad_lens: Tensor | None = None
    """Positions of row b before `pad_lens[b]` are padding."""
    _made: tuple[Tensor, Tensor | None] | None = field(default=None, repr=False)

    def mask(self) -> Tensor:
        """Boolean (S, T), or (B, 1, S, T) with padding; true where visible. A blind query sees everything here."""
        return self._make()[0]

    def blind(self) -> Tensor | None:
        """Boolean (S, 1) or (B, 1, S, 1), true for queries that see nothing; None if there can be none."""
        return None if self.causal else self._make()[1]

    def _make(self) -> tuple[Tensor, Tensor | None]:
        if self._made is None:
            visible = visible_mask(self.q_positions, self.k_positions, self.sight, self.pad_lens)
            if self.pad_lens is None and self.sight.sees_self:
                self._made = visible, None
            else:
                blind = ~visible.any(-1, keepdim=True)
                # No backend is asked for a softmax over nothing: some give NaN for it.
                self._made = visible | blind, blind
        return self._made


Backend = Callable[[Tensor, Tensor, Tensor, Visibility, Scoring], Tensor]
"""`attend(q_BNSE, keys_BKTE, values_BKTH, visibility, scoring) -> o_BNSH`.

Query head h reads kv head h // (N // K); every query sees at least one key. E need not be H.
"""


def visible_mask(q_positions: Tensor, k_positions: Tensor, sight: Sight, pad_lens_B: Tensor | None = None) -> Tensor:
    """Boolean mask (S, T), or (B, 1, S, T) with padding, by absolute positions."""
    q, k = q_positions[:, None], k_positions[None, :]
    visible = (k <= q if sight.sees_self else k < q) & (k >= 0)
    if sight.window is not None:
        near = k > q - sight.window
        visible = visible & (near | (k < sight.sinks) if sight.sinks else near)
    return visible if pad_lens_B is None else visible & (k >= pad_lens_B[:, None, None, None])


def attend_sdpa(
    q_BNSE: Tensor, keys_BKTE: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """Attention by `scaled_dot_product_attention`, which knows no softcap: with one, by plain products."""
    if scoring.softcap is not None:
        return attend_matmul(q_BNSE, keys_BKTE, values_BKTH, visibility, scoring)
    batch, num_heads, num_tokens, _ = q_BNSE.shape
    num_kv_heads, scale = keys_BKTE.shape[1], scoring.scale
    grouped = num_kv_heads != num_heads
    if visibility.causal:
        return F.scaled_dot_product_attention(
            q_BNSE, keys_BKTE, values_BKTH, is_causal=True, scale=scale, enable_gqa=grouped
        )
    mask = visibility.mask()
    if num_tokens == 1:
        # One row sees the same keys in every head: the heads of a group become rows, and no K/V is repeated.
        q_BKGE = q_BNSE.reshape(batch, num_kv_heads, num_heads // num_kv_heads, -1)
        rows = F.scaled_dot_product_attention(q_BKGE, keys_BKTE, values_BKTH, attn_mask=mask, scale=scale)
        return rows.reshape(batch, num_heads, 1, -1)
    return F.scaled_dot_product_attention(
        q_BNSE, keys_BKTE, values_BKTH, attn_mask=mask, scale=scale, enable_gqa=grouped
    )


def attend_matmul(
    q_BNSE: Tensor, keys_BKTE: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """Attention by plain products; holds all scores at once, in float32 or wider."""
    num_kv_heads = keys_BKTE.shape[1]
    q_BKGSE = q_BNSE.unflatten(1, (num_kv_heads, -1))
    scores = (q_BKGSE @ keys_BKTE.transpose(-1, -2)[:, :, None]) * scoring.scale
    scores = cap(scores.to(torch.promote_types(scores.dtype, torch.float32)), scoring.softcap)
    mask = visibility.mask()
    hidden = ~(mask if mask.ndim == 2 else mask[:, :, None])
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1).to(values_BKTH.dtype)
    return (weights @ values_BKTH[:, :, None]).flatten(1, 2)


def cap(x: Tensor, softcap: float | None) -> Tensor:
    """softcap * tanh(x / softcap), or x without one."""
    return x if softcap is None else softcap * torch.tanh(x / softcap)


BACKENDS: dict[str, Backend] = {"sdpa": attend_sdpa, "matmul": attend_matmul}


def pick_backend(name: str, device: torch.device) -> Backend:
    """The backend called `name`; `auto` is the best one for the device.

    Errors: ValueError that lists the known names.
    """
    if name == "auto":
        return BACKENDS["sdpa"]
    if name not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise ValueError(f"unknown attention backend '{name}'; known: {known}")
    return BACKENDS[name]
