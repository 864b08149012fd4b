"""The tensors that one layer's parts allocate, in the order in which `archspec.runtime` does when it is not compiled.

This is the one place that knows the working set of an operation; `archspec.memory.activations` walks a plan over it.
Every method is called with its input alive and counted, and returns the bytes of its result, which is not counted.

Assumptions: CPU kernels of torch 2.13; scratch of matrix products is ignored. Attention between queries and output is
`archspec.memory.attending`.

Legend: B batch, S new tokens, N heads, K kv heads, H head_dim, D width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from archspec.parameters import GATED_FFNS
from archspec.plan import AttentionPlan, CacheSlot, RetentionPlan
from archspec.spec.model import Ffn, Moe, Norm, Rope

FLOAT32 = 4
INT64 = 8
TWO_STEPS = ("gelu-quick", "relu2")
"""Activations that take two operations."""
CHUNK_LEN = 64
"""Tokens in a chunk of retention."""


def rotary_dim(rope: Rope, head_dim: int) -> int:
    """Dimensions of a head that turn; all of them where those that stay turn by nothing."""
    turning = 0 if rope.kind == "none" else head_dim * rope.percent // 100 // 2 * 2
    return head_dim if turning and rope.kind == "proportional" else turning


@dataclass
class Operations:
    """Bytes that are alive, and the most that ever were, while a pass over (B, S) tokens runs."""

    batch: int
    tokens: int
    """S; 1 after the prefill exit."""
    element: int
    """Bytes an element of weights and activations."""
    live: int = 0
    peak: int = 0

    @property
    def wide(self) -> int:
        """Bytes an element where the runtime computes in float32 or wider."""
        return max(self.element, FLOAT32)

    @property
    def rows(self) -> int:
        return self.batch * self.tokens

    def touch(self, *sizes: int) -> None:
        """Tensors of these bytes are alive together for a moment."""
        self.peak = max(self.peak, self.live + sum(sizes))

    @contextmanager
    def hold(self, *sizes: int) -> Iterator[None]:
        """Tensors of these bytes are alive in the body."""
        size = sum(sizes)
        self.live += size
        self.touch()
        yield
        self.live -= size

    def cast(self, elements: int) -> int:
        """Bytes of a copy in the wide type; 0 where the model's type is wide itself."""
        return elements * self.wide if self.element < self.wide else 0

    def narrowed(self, elements: int) -> int:
        """Bytes of a copy back in the model's type; 0 where nothing was cast."""
        return elements * self.element if self.element < self.wide else 0

    def norm(self, norm: Norm, size: int, vectors: int) -> int:
        """A norm of `vectors` vectors of `size`; the identity allocates nothing and returns 0."""
        elements = vectors * size
        if norm.kind == "none":
            return 0
        if norm.kind == "layernorm":
            self.touch(elements * self.element, 2 * vectors * FLOAT32)
            return elements * self.element
        with self.hold(self.cast(elements)):
            self.touch(elements * self.wide, vectors * self.wide)  # the squares, and their mean
            with self.hold(elements * self.wide, vectors * self.wide):
                if norm.plus_one:
                    self.touch(elements * self.wide, self.narrowed(elements))
                else:
                    self.touch(self.narrowed(elements), elements * self.element)
        return elements * self.element

    def head_norm(self, norm: Norm, num_heads: int, head_dim: int) -> int:
        """A norm of queries, keys or values."""
        if norm.spread == "across":
            return self.norm(norm, num_heads * head_dim, self.rows)
        normed = self.norm(norm, head_dim, self.rows * num_heads)
        if norm.kind == "layernorm" and norm.spread == "each" and norm.weight:
            self.touch(normed, normed)  # weights of each head are no part of the kernel
        return normed

    def rotated(self, rope: Rope, num_heads: int, head_dim: int) -> int:
        """Heads of every token, turned; 0 where nothing turns."""
        turned = self.rows * num_heads * rotary_dim(rope, head_dim)
        elements = self.rows * num_heads * head_dim
        if turned == 0:
            return 0
        with self.hold(self.cast(elements)):
            self.touch(2 * turned * self.wide)  # both halves, and the two joined
            if turned < elements:
                self.touch((turned + elements) * self.wide)
            self.touch(elements * self.wide, self.narrowed(elements))
        return elements * self.element

    def keys_values(self, slot: CacheSlot, width: int) -> int:
        """Keys and values of new tokens from hidden states (B, S, D): both, (B, K, S, H) each."""
        size = self.rows * slot.num_kv_heads * slot.head_dim * self.element
        normed = self.norm(slot.norm, width, self.rows)
        with self.hold(normed, size if slot.values_from_keys else 2 * size):
            key_normed = self.head_norm(slot.k_norm, slot.num_kv_heads, slot.head_dim)
            with self.hold(key_normed):
                value_normed = self.head_norm(slot.v_norm, slot.num_kv_heads, slot.head_dim)
                with self.hold(value_normed):
                    turned = self.rotated(slot.rope, slot.num_kv_heads, slot.head_dim)
        one = slot.values_from_keys and not (key_normed or value_normed or turned)
        return size if one else 2 * size

    def queries(self, mixer: AttentionPlan) -> tuple[int, int, int]:
        """Queries of normed hidden states: bytes before they turn, which stay, and after; and their width.

        Where sinks are scored with vectors of their own, these stand beside the others.
        """
        size = self.rows * mixer.num_heads * mixer.head_dim * self.element
        with self.hold(size):
            self.head_norm(mixer.q_norm, mixer.num_heads, mixer.head_dim)
        with self.hold(size):
            turned = self.rotated(mixer.rope, mixer.num_heads, mixer.head_dim)
            if not (turned and mixer.sinks and mixer.window is not None):
                return size, turned, mixer.head_dim
            with self.hold(turned):
                self.rotated(mixer.rope, mixer.num_heads, mixer.head_dim)
                self.touch(turned, 2 * turned)
        return size, 2 * turned, 2 * mixer.head_dim

    def state(self, mixer: RetentionPlan) -> int:
        """Bytes of a layer's recurrent states."""
        return self.batch * mixer.num_heads * mixer.head_dim**2 * self.wide

    def retention(self, mixer: RetentionPlan, width: int) -> int:
        """Retention of normed hidden states, in float32 or wider: in chunks, or one token."""
        heads = self.batch * mixer.num_heads
        elements = self.rows * mixer.num_heads * mixer.head_dim
        out = self.rows * width * self.element
        narrow, wide = elements * self.element, elements * self.wide
        decays = heads * self.tokens * self.wide
        with self.hold(narrow):
            self.rotated(mixer.rope, mixer.num_heads, mixer.head_dim)
        with self.hold(wide, narrow):
            self.rotated(mixer.rope, mixer.num_heads, mixer.head_dim)
            self.touch(self.cast(elements), wide)
        with self.hold(3 * wide):
            self.touch(3 * decays)
            with self.hold(decays):
                state = self.state(mixer)
                if self.tokens == 1:
                    self.touch(2 * state, state)
                else:
                    self._chunks(heads, mixer.head_dim)
            with self.hold(wide, state):
                self.touch(wide, wide)
                with self.hold(narrow):
                    self.touch(3 * narrow)
                    self.touch(narrow, out)
        return out

    def _chunks(self, heads: int, head_dim: int) -> None:
        """Chunk-wise retention: states of all chunks, and scores within each. `heads` are those of all sequences."""
        chunks = -(-self.tokens // CHUNK_LEN) + 1
        padded = heads * chunks * CHUNK_LEN * head_dim * self.wide
        states = heads * chunks * head_dim**2 * self.wide
        scores = heads * chunks * CHUNK_LEN**2 * self.wide
        between = heads * chunks**2 * self.wide
        with self.hold(3 * padded, heads * chunks * CHUNK_LEN * self.wide):
            self.touch(padded, states)
            with self.hold(states):
                self.touch(3 * between)
                self.touch(between, 3 * states)
                with self.hold(states):
                    self.touch(3 * scores, 2 * CHUNK_LEN**2)
                    self.touch(scores, 2 * scores)
                    self.touch(4 * padded)

    def feed_forward(self, ffn: Ffn | Moe, width: int) -> int:
        """down(act(gate x) * up x): all three of the hidden size are alive at once."""
        if isinstance(ffn, Moe):
            return self.mixture(ffn, width)
        return self._dense(ffn, width, self.rows)

    def _dense(self, ffn: Ffn, width: int, rows: int) -> int:
        hidden = rows * (ffn.hidden_size or 0) * self.element
        out = rows * width * self.element
        self.touch(_activated(ffn) * hidden)
        self.touch(hidden, out)
        return out

    def mixture(self, moe: Moe, width: int) -> int:
        """Scores of all experts, then a row for each choice: sorted by expert, through the ffn, put back, weighted."""
        logits, routed = self.rows * moe.num_experts, self.rows * moe.top
        out = self.rows * width * self.element
        with self.hold(self.cast(self.rows * width)):
            self.touch(self.cast(moe.num_experts * width), logits * self.wide)
        ranked = 3 + (1 if moe.selection_bias else 0) + (1 if moe.groups is not None else 0)
        self.touch(ranked * logits * self.wide, logits * INT64)
        # Of each token's experts the numbers stay with those of all that were sorted; then numbers and order of rows.
        chosen = routed * (self.wide + 2 * INT64) + logits * INT64
        rows = routed * width * self.element
        with self.hold(chosen):
            with self.hold(rows):
                self.touch(routed * INT64)
                self._dense(moe.expert, width, routed)
            self.touch(3 * rows)
            with self.hold(2 * rows):
                self.touch(rows, out)
                if moe.shared is not None:
                    with self.hold(out):
                        self._dense(moe.shared.ffn, width, self.rows)
                        self.touch((3 if moe.shared.gated else 2) * out)
        return out


def _activated(ffn: Ffn) -> int:
    """Tensors of the hidden size that are there at once between the first matrices and the last."""
    if ffn.kind == "swiglu-clamped":
        return 5
    return 3 if ffn.kind in GATED_FFNS or ffn.kind in TWO_STEPS else 2
