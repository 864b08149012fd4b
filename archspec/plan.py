"""The plan: every decision about a spec, settled before torch is imported, frozen and printable.

`runtime/` executes a plan; whether K/V are shared, which slot a layer reads, where prefill may stop and what each
slot costs is all decided here. Layer indices (`_idx`) count from 0; texts for people count layers from 1.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from archspec.spec.model import Ffn, Norm, Rope

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
Shape = tuple[int, ...]
GATED_FFNS = frozenset({"swiglu"})
STATE_DTYPE = "float32"
"""Recurrent states are float32 whatever the model's dtype: a bfloat16 decay of 0.9989 rounds to 1.0."""


@dataclass(frozen=True)
class CacheSlot:
    """A place for keys and values, shape (B, num_kv_heads, cache_len, head_dim) each, written once a token.

    A windowed slot is a ring of `window` positions (the current token counts); `window=None` keeps everything.
    """

    idx: int
    name: str
    writer_idx: int
    projected: bool
    """True: a projection of the writer's output (`cache@N: ...`). False: the writer's own K/V."""
    readers: tuple[int, ...]
    """Layers that attend to it, the writer among them if it attends to its own K/V."""
    num_kv_heads: int
    head_dim: int
    window: int | None
    rope: Rope
    norm: Norm
    """Norm of the hidden states before a projected slot's K/V; kind `none` for a layer's own K/V (already normed)."""
    k_norm: Norm
    bias: bool

    @property
    def elements_per_token(self) -> int:
        return 2 * self.num_kv_heads * self.head_dim

    def cache_len(self, context: int) -> int:
        """Tokens allocated for a sequence of `context` tokens."""
        return context if self.window is None else min(context, self.window)


@dataclass(frozen=True)
class StateSlot:
    """A recurrent state of constant size, shape (B, num_heads, head_dim, head_dim), float32."""

    idx: int
    name: str
    writer_idx: int
    num_heads: int
    head_dim: int

    @property
    def nbytes(self) -> int:
        """Bytes of one sequence."""
        return self.num_heads * self.head_dim**2 * DTYPE_BYTES[STATE_DTYPE]


@dataclass(frozen=True)
class AttentionPlan:
    """Softmax attention of `num_heads` queries over the K/V of one slot, whoever wrote them."""

    num_heads: int
    head_dim: int
    slot_idx: int
    owns_kv: bool
    """Its K/V projections live in this layer; otherwise it owns queries only."""
    window: int | None
    rope: Rope
    q_norm: Norm
    qkv_bias: bool
    out_bias: bool


@dataclass(frozen=True)
class RetentionPlan:
    """Gated retention (arXiv 2405.05254, section 3.1)."""

    num_heads: int
    head_dim: int
    state_idx: int
    rope: Rope
    norm_eps: float


@dataclass(frozen=True)
class LayerPlan:
    """Pre-norm residual layer: x += mixer(norm(x)); x += ffn(norm(x)). A missing part is None.

    With `parallel_residual` (GPT-J, GPT-NeoX) both parts see the layer's input: x += mixer(norm(x)) + ffn(norm'(x)).
    """

    idx: int
    mixer: AttentionPlan | RetentionPlan | None
    ffn: Ffn | None
    norm: Norm
    ffn_bias: bool
    parallel_residual: bool = False


Op = Literal["embed", "write", "layer", "last", "head"]


@dataclass(frozen=True)
class Step:
    """One step of a phase.

    `write` computes and stores K/V of slot `idx` for the current positions (of the writer's normed input if they are
    its own, of its output if projected); `layer` runs layer `idx`; `last` keeps only the last position from here on.
    """

    op: Op
    idx: int = -1


@dataclass(frozen=True)
class Plan:
    """A complete, consistent model. See `archspec.planner.make_plan`."""

    name: str
    hidden_size: int
    vocab_size: int
    embed_scale: float
    tied_embeddings: bool
    final_norm: Norm
    layers: tuple[LayerPlan, ...]
    slots: tuple[CacheSlot, ...]
    states: tuple[StateSlot, ...]
    body: tuple[Step, ...]
    """All writes and layers in execution order."""
    exit_idx: int
    """Number of steps of `body` that prefill must run for every prompt token; the rest need the last one only."""

    def forward_steps(self) -> tuple[Step, ...]:
        """Teacher forcing: every layer for every position."""
        return (Step("embed"), *self.body, Step("head"))

    def prefill_steps(self, early_exit: bool = True) -> tuple[Step, ...]:
        """Prefill: all positions up to the exit, the last position after it."""
        cut = self.exit_idx if early_exit else len(self.body)
        return (Step("embed"), *self.body[:cut], Step("last"), *self.body[cut:], Step("head"))

    def decode_steps(self) -> tuple[Step, ...]:
        """One token."""
        return self.forward_steps()

    def cache_bytes(self, batch: int, context: int, dtype: str = "bfloat16") -> int:
        """Bytes of all slots and states for `batch` sequences of `context` tokens; exact."""
        elements = sum(slot.elements_per_token * slot.cache_len(context) for slot in self.slots)
        return batch * (elements * DTYPE_BYTES[dtype] + sum(state.nbytes for state in self.states))

    def cache_formula(self) -> str:
        """`cache_bytes` in closed form: B sequences, T tokens of context, e bytes an element."""
        per_window: Counter[int | None] = Counter()
        for slot in self.slots:
            per_window[slot.window] += slot.elements_per_token
        full = per_window.pop(None, 0)
        terms = [f"{full}*T"] if full else []
        terms += [f"{n}*min(T, {w})" for w, n in sorted(per_window.items(), key=lambda item: item[0] or 0)]
        kv = f"B*e*({' + '.join(terms)})" if terms else ""
        constant = sum(state.nbytes for state in self.states)
        return " + ".join(filter(None, [kv, f"B*{constant}" if constant else ""])) or "0"

    def num_parameters(self) -> int:
        """Number of trainable scalars, exact."""
        return sum(prod(shape) for _, shape in self.parameter_shapes())

    def parameter_shapes(self) -> Iterator[tuple[str, Shape]]:
        """Name and shape of every parameter, in the order of the model's `state_dict`."""
        yield "embed.weight", (self.vocab_size, self.hidden_size)
        for layer in self.layers:
            for name, shape in self._layer_shapes(layer):
                yield f"layers.{layer.idx}.{name}", shape
        for slot in self.slots:
            if slot.projected:
                prefix = f"caches.{slot.name}."
                yield from _norm_shapes(f"{prefix}norm", slot.norm, self.hidden_size)
                yield from _kv_shapes(prefix, slot, self.hidden_size)
        yield from _norm_shapes("norm", self.final_norm, self.hidden_size)
        if not self.tied_embeddings:
            yield "lm_head.weight", (self.vocab_size, self.hidden_size)

    def _layer_shapes(self, layer: LayerPlan) -> Iterator[tuple[str, Shape]]:
        width = self.hidden_size
        if layer.mixer is not None:
            yield from _norm_shapes("mixer_norm", layer.norm, width)
        match layer.mixer:
            case AttentionPlan() as mixer:
                inner = mixer.num_heads * mixer.head_dim
                yield from _linear_shapes("mixer.q_proj", width, inner, mixer.qkv_bias)
                yield from _norm_shapes("mixer.q_norm", mixer.q_norm, mixer.head_dim)
                if mixer.owns_kv:
                    yield from _kv_shapes("mixer.kv.", self.slots[mixer.slot_idx], width)
                yield from _linear_shapes("mixer.o_proj", inner, width, mixer.out_bias)
            case RetentionPlan() as mixer:
                inner = mixer.num_heads * mixer.head_dim
                for name in ("q_proj", "k_proj", "v_proj", "g_proj"):
                    yield from _linear_shapes(f"mixer.{name}", width, inner, False)
                yield from _linear_shapes("mixer.gt_proj", width, mixer.num_heads, False)
                yield from _linear_shapes("mixer.o_proj", inner, width, False)
            case None:
                pass
        if layer.ffn is not None:
            ffn_hidden_size = layer.ffn.hidden_size or 0
            yield from _norm_shapes("ffn_norm", layer.norm, width)
            if layer.ffn.kind in GATED_FFNS:
                yield from _linear_shapes("ffn.gate_proj", width, ffn_hidden_size, layer.ffn_bias)
            yield from _linear_shapes("ffn.up_proj", width, ffn_hidden_size, layer.ffn_bias)
            yield from _linear_shapes("ffn.down_proj", ffn_hidden_size, width, layer.ffn_bias)


def _kv_shapes(prefix: str, slot: CacheSlot, width: int) -> Iterator[tuple[str, Shape]]:
    inner = slot.num_kv_heads * slot.head_dim
    yield from _linear_shapes(f"{prefix}k_proj", width, inner, slot.bias)
    yield from _linear_shapes(f"{prefix}v_proj", width, inner, slot.bias)
    yield from _norm_shapes(f"{prefix}k_norm", slot.k_norm, slot.head_dim)


def _linear_shapes(name: str, inputs: int, outputs: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm_shapes(name: str, norm: Norm, size: int) -> Iterator[tuple[str, Shape]]:
    if norm.kind != "none":
        yield f"{name}.weight", (size,)
    if norm.kind == "layernorm":
        yield f"{name}.bias", (size,)
