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
    """From q . k to weights: times `scale`, then softcap * tanh(scores / softcap) if there is one, then a softmax.

    With `sink_logits` (N,) the softmax of a head goes over one score more, which has no value (gpt-oss).
    """

    scale: float
    softcap: float | None = None
    sink_logits: Tensor | None = None


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
    batch, num_heads, num_tokens, _ = q_BNSE.shape
    num_kv_heads, scale = keys_BKTE.shape[1], scoring.scale
    if scoring.softcap is not None or (scoring.sink_logits is not None and num_tokens == 1):
        return attend_matmul(q_BNSE, keys_BKTE, values_BKTH, visibility, scoring)
    if scoring.sink_logits is not None:
        return _sdpa_with_sink(q_BNSE, keys_BKTE, values_BKTH, visibility, scoring, scoring.sink_logits)
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


SINK_DIMS = 8
"""Dimensions that queries and keys grow by for a sink: kernels want sizes that 8 divides."""


def _sdpa_with_sink(
    q_BNSE: Tensor,
    keys_BKTE: Tensor,
    values_BKTH: Tensor,
    visibility: Visibility,
    scoring: Scoring,
    sink_logits_N: Tensor,
) -> Tensor:
    """A sink as one key more, in front, that is zero but for a dimension of its own, and whose value is zero.

    In that dimension every query holds its head's logit over the scale. So no scores are ever held at once, and plain
    causal attention stays so, with a query in front whose output is dropped.
    """
    num_heads, size, head_dim = q_BNSE.shape[1], q_BNSE.shape[3], values_BKTH.shape[3]
    front = 1 if visibility.causal else 0
    q = F.pad(q_BNSE, (0, 0, front, 0))
    own_N1E = F.pad((sink_logits_N / scoring.scale)[:, None, None], (0, SINK_DIMS - 1)).to(q.dtype)
    q = torch.cat((q, own_N1E.expand(*q.shape[:3], SINK_DIMS)), dim=-1)
    keys = F.pad(keys_BKTE, (0, SINK_DIMS))
    sink_111E = F.pad(keys.new_ones(1, 1, 1, 1), (size, SINK_DIMS - 1))
    keys = torch.cat((sink_111E.expand(*keys.shape[:2], 1, -1), keys), dim=2)
    values = F.pad(values_BKTH, (0, keys.shape[-1] - head_dim, 1, 0))
    mask = None if visibility.causal else F.pad(visibility.mask(), (1, 0), value=True)
    o_BNSE = F.scaled_dot_product_attention(
        q,
        keys,
        values,
        attn_mask=mask,
        is_causal=visibility.causal,
        scale=scoring.scale,
        enable_gqa=keys.shape[1] != num_heads,
    )
    return o_BNSE[:, :, front:, :head_dim]


def attend_matmul(
    q_BNSE: Tensor, keys_BKTE: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """Attention by plain products; holds all scores at once, in float32 or wider."""
    num_kv_heads, num_tokens = keys_BKTE.shape[1], q_BNSE.shape[2]
    # The heads of a group and their queries become rows, so that no K/V is repeated. One name for all scores on their
    # way to weights: nothing that is as large is kept longer than it must.
    rows_BKRE = q_BNSE.unflatten(1, (num_kv_heads, -1)).flatten(2, 3)
    scores = (rows_BKRE @ keys_BKTE.transpose(-1, -2)) * scoring.scale
    scores = cap(scores.to(torch.promote_types(scores.dtype, torch.float32)), scoring.softcap)
    scores = scores.unflatten(2, (-1, num_tokens)).flatten(1, 2).masked_fill(~visibility.mask(), -torch.inf)
    if scoring.sink_logits is not None:
        sinks_BNS1 = scoring.sink_logits.to(scores.dtype)[:, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat((sinks_BNS1, scores), dim=-1)
    weights_BNST = scores.softmax(-1).to(values_BKTH.dtype)
    if scoring.sink_logits is not None:
        weights_BNST = weights_BNST[..., 1:]
    weights_BKRT = weights_BNST.unflatten(1, (num_kv_heads, -1)).flatten(2, 3)
    return (weights_BKRT @ values_BKTH).unflatten(2, (-1, num_tokens)).flatten(1, 2)


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
