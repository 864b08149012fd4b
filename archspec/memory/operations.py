"""The tensors that one layer's parts allocate, in the order in which `archspec.runtime` does when it is not compiled.

This is the one place that knows the working set of an operation; `archspec.memory.activations` walks a plan over it.
Every method is called with its input alive and counted, and returns the bytes of its result, which is not counted.

Assumptions: CPU kernels of torch 2.13; attention is the flash kernel, which takes the mask as numbers of the model's
dtype, unless queries and values differ in width (sinks) or scores are capped; scratch of matrix products is ignored.

Legend: B batch, S new tokens, T keys in a view, N heads, K kv heads, H head_dim, D width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from archspec.parameters import GATED_FFNS
from archspec.plan import AttentionPlan, CacheSlot, RetentionPlan
from archspec.spec.model import Ffn, Moe, Norm, Rope

FLOAT32 = 4
INT64 = 8
CHUNK_LEN = 64
"""Tokens in a chunk of retention."""
SINK_DIMS = 8
"""Dimensions that queries and keys grow by for a sink."""


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
        with self.hold(normed, 2 * size):
            key_normed = self.head_norm(slot.k_norm, slot.num_kv_heads, slot.head_dim)
            with self.hold(key_normed):
                value_normed = self.head_norm(slot.v_norm, slot.num_kv_heads, slot.head_dim)
                with self.hold(value_normed):
                    self.rotated(slot.rope, slot.num_kv_heads, slot.head_dim)
        return 2 * size

    def attention(self, mixer: AttentionPlan, slot: CacheSlot, width: int, keys: int, mask: int, blind: bool) -> int:
        """Attention of normed hidden states over a view of `keys` keys; `mask` are bytes of the mask if made now."""
        vectors = self.rows * mixer.num_heads
        queries = vectors * mixer.head_dim * self.element
        with self.hold(queries):
            normed = self.head_norm(mixer.q_norm, mixer.num_heads, mixer.head_dim)
        with self.hold(normed or queries):
            turned = self.rotated(mixer.rope, mixer.num_heads, mixer.head_dim)
            apart = 0
            if mixer.sinks and turned:
                apart = self._apart(mixer, slot, keys, queries)
            with self.hold(apart or turned):
                self.touch(mask)
                with self.hold(mask and self.tokens * keys):
                    self._scores(mixer, slot, keys, wide_keys=bool(apart))
                with self.hold(queries):
                    self.touch(queries if blind else 0)
                    self.touch(2 * queries if mixer.output_gate else 0)  # the gate, and its sigmoid
                    out = self.rows * width * self.element
                    self.touch(out)
        return out

    def _apart(self, mixer: AttentionPlan, slot: CacheSlot, keys: int, queries: int) -> int:
        """Queries and keys of twice the width, where sinks are scored with vectors of their own."""
        with self.hold(queries):
            self.rotated(mixer.rope, mixer.num_heads, mixer.head_dim)
            self.touch(queries, 2 * queries)
        of_keys = self.batch * slot.num_kv_heads * keys * slot.head_dim * self.element
        with self.hold(queries, 2 * queries):
            self.touch(2 * of_keys, 2 * of_keys)
        return 3 * queries + 2 * of_keys

    def _scores(self, mixer: AttentionPlan, slot: CacheSlot, keys: int, wide_keys: bool) -> None:
        """From queries, keys and a mask to the output."""
        output = self.rows * mixer.num_heads * mixer.head_dim
        scores = self.rows * mixer.num_heads * keys
        if mixer.softcap is not None or (mixer.sink_logits and self.tokens == 1):
            self._products(mixer, keys)
            return
        # One query row leaves the heads of a group together; several have K/V repeated for every head.
        repeated = slot.num_kv_heads != mixer.num_heads and self.tokens > 1
        heads = mixer.num_heads if repeated else slot.num_kv_heads
        of_keys = self.batch * heads * keys * mixer.head_dim
        hidden = self.tokens * keys
        if wide_keys and not mixer.sink_logits:
            # The kernel of plain products, in float32 or wider: scaled queries and keys, scores with and without mask.
            copies = (3 * of_keys if repeated else 2 * of_keys) + 2 * output
            casts = self.cast(2 * output + 3 * self.batch * slot.num_kv_heads * keys * mixer.head_dim)
            self.touch(hidden * self.element, copies * self.wide, 2 * scores * self.wide, casts)
            return
        if mixer.sink_logits:
            self._with_sink(mixer, slot, keys, wide_keys)
            return
        sums = self.rows * mixer.num_heads * FLOAT32
        self.touch(hidden * self.element, output * self.element, sums)

    def _with_sink(self, mixer: AttentionPlan, slot: CacheSlot, keys: int, wide_keys: bool) -> None:
        """Queries, keys and values with room for one key more: widened first, then put together with the sink's."""
        size = (2 if wide_keys else 1) * mixer.head_dim + SINK_DIMS
        hidden = self.tokens * (keys + 1)
        of_keys = self.batch * slot.num_kv_heads * (keys + 1) * size * self.element
        queries = self.batch * mixer.num_heads * (self.tokens + 1) * size * self.element
        self.touch(2 * queries)
        with self.hold(queries):
            self.touch(2 * of_keys)
            sums = self.rows * mixer.num_heads * FLOAT32
            self.touch(2 * of_keys, hidden * (1 + self.element), queries, sums)
        self.touch(queries, self.rows * mixer.num_heads * mixer.head_dim * self.element)  # cut to size

    def _products(self, mixer: AttentionPlan, keys: int) -> None:
        """All scores at once: scaled, wide, divided by the cap, the tanh of it; then capped, masked and softmax.

        The heads of a group are rows beside their queries, so that no K/V is repeated.
        """
        output = self.rows * mixer.num_heads * mixer.head_dim
        scores, hidden = self.rows * mixer.num_heads * keys, self.tokens * keys
        capped = 2 if mixer.softcap is not None else 0
        self.touch(2 * scores * self.element)
        self.touch(scores * self.element, self.cast(scores), capped * scores * self.wide)
        self.touch(2 * scores * self.wide, hidden)
        self.touch(2 * scores * self.wide, self.narrowed(scores))
        self.touch(scores * (self.wide + self.element), output * self.element)

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
                state = heads * mixer.head_dim**2 * self.wide
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
        self.touch((3 if ffn.kind in GATED_FFNS else 2) * hidden)
        self.touch(hidden, out)
        return out

    def mixture(self, moe: Moe, width: int) -> int:
        """Scores of all experts, then a row for each choice: sorted by expert, through the ffn, put back, weighted."""
        logits, routed = self.rows * moe.num_experts, self.rows * moe.top
        out = self.rows * width * self.element
        with self.hold(self.cast(self.rows * width)):
            self.touch(self.cast(moe.num_experts * width), logits * self.wide)
        self.touch(3 * logits * self.wide, logits * INT64)
        chosen = routed * (self.wide + 3 * INT64)
        rows = routed * width * self.element
        with self.hold(chosen):
            with self.hold(rows):
                self._dense(moe.expert, width, routed)
            self.touch(2 * rows)
            self.touch(2 * rows, out)
            if moe.shared is not None:
                with self.hold(rows, out):
                    self._dense(moe.shared.ffn, width, self.rows)
                    self.touch(2 * out)
        return out
