"""Softmax attention over a view of keys: what is visible, and the backends that compute it.

Legend: B batch, S query tokens, T keys in the view, N heads, K kv heads, H head_dim.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class View:
    """Keys and values that readers of a slot see in one pass.

    Shapes: `keys` and `values` (B, K, T, H), `positions` (T,); a negative position is an empty place.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    from_start: bool
    """The view is exactly positions 0 .. T - 1 of the pass's own tokens."""


@dataclass
class Visibility:
    """Which keys a query sees: at or before it, fewer than `window` positions back, not in empty places."""

    q_positions: Tensor
    k_positions: Tensor
    window: int | None
    causal: bool
    """Queries and keys are the same positions and no window applies: plain causal attention."""
    _mask: Tensor | None = field(default=None, repr=False)

    def mask(self) -> Tensor:
        """Boolean (S, T), true where visible; made once."""
        if self._mask is None:
            self._mask = visible_mask(self.q_positions, self.k_positions, self.window)
        return self._mask


Backend = Callable[[Tensor, Tensor, Tensor, Visibility], Tensor]
"""`attend(q_BNSH, keys_BKTH, values_BKTH, visibility) -> o_BNSH`.

Scores are scaled by H ** -0.5; query head h reads kv head h // (N // K); every query sees at least one key.
"""


def visible_mask(q_positions: Tensor, k_positions: Tensor, window: int | None) -> Tensor:
    """Boolean mask (S, T) by absolute positions."""
    q, k = q_positions[:, None], k_positions[None, :]
    visible = (k <= q) & (k >= 0)
    return visible if window is None else visible & (k > q - window)


def attend_sdpa(q_BNSH: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility) -> Tensor:
    """Attention by `scaled_dot_product_attention`."""
    batch, num_heads, num_tokens, head_dim = q_BNSH.shape
    num_kv_heads = keys_BKTH.shape[1]
    if visibility.causal:
        return F.scaled_dot_product_attention(
            q_BNSH, keys_BKTH, values_BKTH, is_causal=True, enable_gqa=num_kv_heads != num_heads
        )
    mask = visibility.mask()
    if num_tokens == 1:
        # One row sees the same keys in every head: the heads of a group become rows, and no K/V is repeated.
        q_BKGH = q_BNSH.reshape(batch, num_kv_heads, num_heads // num_kv_heads, head_dim)
        rows = F.scaled_dot_product_attention(q_BKGH, keys_BKTH, values_BKTH, attn_mask=mask)
        return rows.reshape(batch, num_heads, 1, head_dim)
    return F.scaled_dot_product_attention(
        q_BNSH, keys_BKTH, values_BKTH, attn_mask=mask, enable_gqa=num_kv_heads != num_heads
    )


BACKENDS: dict[str, Backend] = {"sdpa": attend_sdpa}


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
