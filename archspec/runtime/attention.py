"""Softmax attention over a view of keys: what is visible, and the interface of the backends that compute it.

Legend: B batch, S query tokens, T keys in a view, N heads, K kv heads, G heads of a kv head, H head_dim.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Sight(NamedTuple):
    """Which positions a query may see, whatever the view holds."""

    window: int | None = None
    sinks: int = 0
    sees_self: bool = True


EVERYTHING = Sight()
"""All up to the query itself."""


class Scoring(NamedTuple):
    """From q . k to weights: times `scale`, then softcap * tanh(scores / softcap) if there is one, then a softmax.

    With `sink_logits` (N,) the softmax of a head goes over one score more, which has no value (gpt-oss).
    """

    scale: float
    softcap: float | None = None
    sink_logits: Tensor | None = None


class View(NamedTuple):
    """Keys and values that readers of a slot see at one point of a pass.

    Shapes: `keys` and `values` (B, K, T, H), `positions` (T,); a negative position is an empty place.

    With a `front`, the keys are in order: `sinks` first positions, `front` positions before the first query, and the
    queries' own, which are S. Nothing of a sink is in the front, so that no position is there twice.

    On a `line`, position t lies in place t, and places behind the last query are empty. In a `ring` of that many places
    they fill from the first on, and what is forgotten is overwritten. With a `tail`, a line ends with the queries' own
    positions, and others are before them.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    front: int | None = None
    sinks: int = 0
    line: bool = False
    ring: int | None = None
    tail: bool = False

    @property
    def from_start(self) -> bool:
        """The view is exactly the queries' own positions, and there is none before them."""
        return self.front == 0


Order = Literal["line", "front", "ring", "mixed"]
"""What is known of the keys' places: position t in place t; the positions next to the queries', in order; a ring that
holds exactly what the query sees; nothing but their positions."""


@dataclass
class Visibility:
    """Which keys a query sees. `front`, `stored_sinks`, `line`, `ring` and `tail` are those of the view."""

    q_positions: Tensor
    k_positions: Tensor
    sight: Sight = EVERYTHING
    pad_lens: Tensor | None = None
    """Positions of row b before `pad_lens[b]` are padding."""
    front: int | None = None
    stored_sinks: int = 0
    line: bool = False
    ring: int | None = None
    tail: bool = False
    _mask: Tensor | None = field(default=None, repr=False)

    @property
    def by_order(self) -> bool:
        """Queries and keys are the same positions and nothing but their order hides any."""
        return self.front == 0 and self.sight.window is None and self.pad_lens is None

    @property
    def order(self) -> Order:
        """What lengths and windows alone can say about the keys."""
        window, sinks, _ = self.sight
        if self.front == 0 or self.line:
            return "line"
        if self.front is not None and self.stored_sinks == 0:
            return "front"
        if self.ring is not None and window is not None and self.ring == sinks + window:
            return "ring"
        return "mixed"

    def mask(self) -> Tensor:
        """Boolean (S, T), or (B, 1, S, T) with padding; true where visible.

        A blind query sees everything here: some backends give NaN for a softmax over nothing.
        """
        if self._mask is None:
            visible = visible_mask(self.q_positions, self.k_positions, self.sight, self.pad_lens)
            blind = self.blind()
            self._mask = visible if blind is None else visible | blind
        return self._mask

    def blind(self) -> Tensor | None:
        """Boolean (S, 1) or (B, 1, S, 1), true for queries that see nothing; None if there can be none."""
        window, sinks, sees_self = self.sight
        if self.pad_lens is None and sees_self:
            return None
        latest = self.q_positions[:, None] - (0 if sees_self else 1)
        blind = latest < (0 if self.pad_lens is None else self.pad_lens[:, None, None, None])
        return torch.ones_like(blind) if window == 1 and not sees_self and not sinks else blind


Backend = Callable[[Tensor, Tensor, Tensor, Visibility, Scoring], Tensor]
"""`attend(q_BNSE, keys_BKTH, values_BKTD, visibility, scoring) -> o_BNSD`.

Query head h reads kv head h // (N // K). What comes out for a query that sees nothing means nothing, but is finite.
With E = 2 H, sinks are scored with the second half of a query and all other keys with the first.
"""


def visible_mask(q_positions: Tensor, k_positions: Tensor, sight: Sight, pad_lens_B: Tensor | None = None) -> Tensor:
    """Boolean mask (..., S, T), or (B, 1, S, T) with padding, by absolute positions (..., S) and (..., T)."""
    q, k = q_positions[..., :, None], k_positions[..., None, :]
    visible = (k <= q if sight.sees_self else k < q) & (k >= 0)
    if sight.window is not None:
        near = k > q - sight.window
        visible = visible & (near | (k < sight.sinks) if sight.sinks else near)
    return visible if pad_lens_B is None else visible & (k >= pad_lens_B[:, None, None, None])


def apart(keys_BKTH: Tensor, is_sink_T: Tensor) -> Tensor:
    """Keys (B, K, T, 2H): sinks in the second half of the dimensions, the others in the first, zeros elsewhere.

    A query that holds two vectors scores each key with the one meant for it, and the zeros add nothing.
    """
    is_sink_T1 = is_sink_T[:, None]
    return torch.cat((keys_BKTH.masked_fill(is_sink_T1, 0), keys_BKTH.masked_fill(~is_sink_T1, 0)), dim=-1)


def cap(x: Tensor, softcap: float | None) -> Tensor:
    """softcap * tanh(x / softcap), or x without one."""
    return x if softcap is None else softcap * torch.tanh(x / softcap)
