"""The plan: every decision about a spec, settled before torch is imported, frozen and printable.

`runtime/` executes a plan; whether K/V are shared, which slot a layer reads, where prefill may stop and what each
slot costs is all decided here. Layer indices (`_idx`) count from 0; texts for people count layers from 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from archspec import formula
from archspec.formula import CacheTerm, Length
from archspec.notebook import Shown
from archspec.parameters import Shape, ffn_shapes, head_norm_shapes, linear_shapes, moe_shapes, norm_shapes
from archspec.spec.model import Decay, Ffn, Moe, Norm, Placement, Positions, Residual, Rope

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
CACHE_DTYPE_BYTES = {**DTYPE_BYTES, "float8": 1, "int8": 1}
"""Bytes an element of caches; those of one byte can be planned with, though `runtime/` has no such caches."""
NO_NORM = Norm(kind="none")
STATE_DTYPE = "float32"
"""Recurrent states are float32 whatever the model's dtype: a bfloat16 decay of 0.9989 rounds to 1.0."""


@dataclass(frozen=True)
class CacheSlot:
    """A place for keys and values, shape (B, num_kv_heads, cache_len, head_dim) each, written once a token.

    A windowed slot keeps the first `sinks` positions and a ring of the last `window` (the current token counts);
    `window=None` keeps everything.
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
    sinks: int = 0
    v_norm: Norm = NO_NORM
    values_from_keys: bool = False
    """Values are the keys' projection, before norm and rotation; both are stored all the same."""

    @property
    def elements_per_token(self) -> int:
        return 2 * self.num_kv_heads * self.head_dim

    @property
    def length(self) -> Length:
        """Positions kept, in terms of the positions that the slot's own stack has seen."""
        return Length(limit=None if self.window is None else self.sinks + self.window)

    def cache_len(self, context: int) -> int:
        """Tokens allocated for a sequence of `context` tokens."""
        return self.length.of(context)


@dataclass(frozen=True)
class StateSlot:
    """A recurrent state of constant size, shape (B, num_heads, head_dim, head_dim), float32."""

    idx: int
    name: str
    writer_idx: int
    num_heads: int
    head_dim: int

    @property
    def elements(self) -> int:
        """Of one sequence."""
        return self.num_heads * self.head_dim**2


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
    scale: float
    """Factor on q . k."""
    softcap: float | None = None
    """c * tanh(scores / c) before the mask (Gemma 2)."""
    sees_self: bool = True
    """False: a query sees strictly earlier positions only, and the first position outputs zeros (LCKV)."""
    sinks: int = 0
    """First positions that stay visible beside the window. A query p is as far from sink k as its place in the cache
    says: min(p, sinks + window - 1) - k (StreamingLLM, arXiv 2309.17453)."""
    sink_logits: bool = False
    """One learned logit a head takes part in the softmax, without a value (gpt-oss, arXiv 2508.10925)."""
    output_gate: bool = False
    """The output is multiplied by sigmoid(gate x) before its projection (arXiv 2505.06708)."""


@dataclass(frozen=True)
class RetentionPlan:
    """Retention: S_t = g_t S_{t-1} + k_t v_t, o_t = q_t S_t, with one decay g a head and token.

    `gated` computes the decay from the input (YOCO, arXiv 2405.05254, section 3.1); `fixed` is RetNet's
    1 - 2 ** -(5 + h) for head h (arXiv 2307.08621); `none` never forgets (linear attention, arXiv 2006.16236,
    with the identity as feature map).
    """

    num_heads: int
    head_dim: int
    state_idx: int
    rope: Rope
    norm_eps: float
    decay: Decay = "gated"


@dataclass(frozen=True)
class LayerPlan:
    """Residual layer: x += mixer(norm(x)); x += ffn(norm(x)). A missing part is None.

    `placement` says where norms stand: `pre` as above, `post` x += norm(mixer(x)) (OLMo 2), `sandwich` both, each
    with weights of its own (Gemma 2).

    With a `parallel` residual (GPT-NeoX) both parts see the layer's input: x += mixer(norm(x)) + ffn(norm'(x)); with
    `parallel-one-norm` (GPT-J) through the same norm, where there are both parts.

    What a part adds is multiplied by `residual_scale`, and the layer's output by a stored scalar if there is one.
    """

    idx: int
    mixer: AttentionPlan | RetentionPlan | None
    ffn: Ffn | Moe | None
    norm: Norm
    ffn_bias: bool
    residual: Residual = "sequential"
    placement: Placement = "pre"
    residual_scale: float = 1.0
    layer_scalar: bool = False

    @property
    def one_norm(self) -> bool:
        """Whether mixer and ffn share the norm before them."""
        return self.residual == "parallel-one-norm" and self.mixer is not None and self.ffn is not None


PREFILL_CHUNK = 2048
"""Positions that a prefill takes up at a time: enough to keep a machine busy; its activations grow with them."""

Op = Literal["embed", "write", "layer", "iterate", "last", "head"]


@dataclass(frozen=True)
class Step:
    """One step of a phase.

    `write` computes and stores K/V of slot `idx` for the current positions (of the writer's normed input if they are
    its own, of its output if projected); `layer` runs layer `idx`; `iterate` runs
    group `idx`; `last` keeps only the last position from here on. `embed` and `head` are the ends of a stack.
    """

    op: Op
    idx: int = -1


@dataclass(frozen=True)
class IterationGroup:
    """Steps that are repeated until caches read before they are written are right (LCKV, arXiv 2405.10637, 2.2).

    All passes start from the same hidden states. In pass 1 the `late_slots` hold zeros for the new positions; in pass
    k a reader that stands before the slot's `write` sees what pass k - 1 wrote, one that stands after it this pass's.
    The last pass is kept. `forward` passes run without gradient, then `backward` with it. Decoding runs them once:
    late readers see earlier tokens only.
    """

    idx: int
    steps: tuple[Step, ...]
    late_slots: tuple[int, ...]
    forward: int
    backward: int

    @property
    def num_passes(self) -> int:
        return self.forward + self.backward


class Sizes(Shown, ABC):
    """What a plan of any kind costs, from what it holds."""

    name: str

    @property
    @abstractmethod
    def max_context(self) -> int | None:
        """Tokens of a sequence at most; None if there is no bound."""

    @abstractmethod
    def num_idle_parameters(self) -> int:
        """Parameters of the experts that a token does not pass."""

    @abstractmethod
    def cache_terms(self) -> Iterator[CacheTerm]:
        """What every slot, then every state holds of one sequence."""

    @abstractmethod
    def parameter_shapes(self) -> Iterator[tuple[str, Shape]]:
        """Name and shape of every parameter, in the order of the model's `state_dict`."""

    def cache_bytes(self, batch: int, context: int, dtype: str = "bfloat16") -> int:
        """Bytes of all slots and states for `batch` sequences of `context` tokens; exact.

        Errors: as of `check_context`.
        """
        self.check_context(context)
        return formula.total_bytes(self.cache_terms(), batch, context, CACHE_DTYPE_BYTES[dtype])

    def cache_formula(self) -> str:
        """`cache_bytes` in closed form: B sequences, T tokens of context, e bytes an element."""
        return formula.text(self.cache_terms())

    def num_parameters(self) -> int:
        """Number of trainable scalars, exact."""
        return sum(prod(shape) for _, shape in self.parameter_shapes())

    def num_active_parameters(self) -> int:
        """Those that one token passes: all but the experts that are not chosen for it."""
        return self.num_parameters() - self.num_idle_parameters()

    def check_context(self, context: int) -> None:
        """Errors: ValueError for a sequence of more tokens than there are positions."""
        if self.max_context is not None and context > self.max_context:
            raise ValueError(f"{self.name} has learned positions for {self.max_context} tokens, not for {context}")


@dataclass(frozen=True)
class Plan(Sizes):
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
    """All writes and layers in execution order, those that iterate as one `iterate` step."""
    exit_idx: int
    """Number of steps of `body` that prefill must run for every prompt token; the rest need the last one only."""
    groups: tuple[IterationGroup, ...] = ()
    final_softcap: float | None = None
    """c * tanh(logits / c)."""
    embed_norm: Norm = NO_NORM
    positions: Positions | None = None
    """A learned vector for each position, added to the scaled embedding; there are no positions beyond these."""
    head_bias: bool = False
    logit_scale: float = 1.0
    inputs: Literal["tokens", "vectors"] = "tokens"
    """`vectors`: hidden states come from outside and there is no embedding matrix; `embed` only scales."""
    outputs: Literal["logits", "vectors"] = "logits"
    """`vectors`: `head` is the final norm alone."""

    @property
    def max_context(self) -> int | None:
        return None if self.positions is None else self.positions.count

    def forward_steps(self) -> tuple[Step, ...]:
        """Teacher forcing: every layer for every position."""
        return (Step("embed"), *self.body, Step("head"))

    def prefill_steps(self, early_exit: bool = True) -> tuple[Step, ...]:
        """Prefill: all positions up to the exit, the last position after it."""
        cut = self.exit_idx if early_exit else len(self.body)
        return (Step("embed"), *self.body[:cut], Step("last"), *self.body[cut:], Step("head"))

    def fill_steps(self, early_exit: bool = True) -> tuple[Step, ...]:
        """Prefill of all chunks of a prompt but the last: what later positions need of these."""
        return (Step("embed"), *self.body[: self.exit_idx if early_exit else len(self.body)])

    @property
    def prefill_chunk(self) -> int | None:
        """Positions of a prompt that are prefilled at a time. None: all, since passes over parts give other numbers."""
        return None if self.groups else PREFILL_CHUNK

    def decode_steps(self) -> tuple[Step, ...]:
        """One token: nothing iterates, since late readers see earlier tokens only."""
        return (Step("embed"), *flattened(self.body, self.groups), Step("head"))

    def cache_terms(self) -> Iterator[CacheTerm]:
        yield from (CacheTerm(slot.elements_per_token, slot.length) for slot in self.slots)
        constant = Length(tokens_each=None, limit=1)
        yield from (CacheTerm(state.elements, constant, DTYPE_BYTES[STATE_DTYPE]) for state in self.states)

    def num_idle_parameters(self) -> int:
        return sum(num_idle_parameters(layer, self.hidden_size) for layer in self.layers)

    def buffer_shapes(self) -> Iterator[tuple[str, Shape]]:
        """Name and shape of what is stored with the weights and not trained by gradient: no parameters."""
        for layer in self.layers:
            if layer.layer_scalar:
                yield f"layers.{layer.idx}.scalar", (1,)
            if isinstance(layer.ffn, Moe) and layer.ffn.selection_bias:
                yield f"layers.{layer.idx}.ffn.selection_bias", (layer.ffn.num_experts,)

    def parameter_shapes(self) -> Iterator[tuple[str, Shape]]:
        """Name and shape of every parameter, in the order of the model's `state_dict`."""
        if self.inputs == "tokens":
            yield "embed.weight", (self.vocab_size, self.hidden_size)
        if self.positions is not None:
            yield "positions.weight", (self.positions.num_rows, self.hidden_size)
        yield from norm_shapes("embed_norm", self.embed_norm, self.hidden_size)
        for layer in self.layers:
            for name, shape in self._layer_shapes(layer):
                yield f"layers.{layer.idx}.{name}", shape
        for slot in self.slots:
            if slot.projected:
                prefix = f"caches.{slot.name}."
                yield from norm_shapes(f"{prefix}norm", slot.norm, self.hidden_size)
                yield from _kv_shapes(prefix, slot, self.hidden_size)
        yield from norm_shapes("norm", self.final_norm, self.hidden_size)
        if self.outputs == "logits" and not self.tied_embeddings:
            yield "lm_head.weight", (self.vocab_size, self.hidden_size)
        if self.outputs == "logits" and self.head_bias:
            yield "lm_head.bias", (self.vocab_size,)

    def _layer_shapes(self, layer: LayerPlan) -> Iterator[tuple[str, Shape]]:
        width = self.hidden_size
        pre = layer.norm if layer.placement != "post" else NO_NORM
        post = layer.norm if layer.placement != "pre" else NO_NORM
        if layer.mixer is not None:
            yield from norm_shapes("mixer_norm", pre, width)
        match layer.mixer:
            case AttentionPlan() as mixer:
                inner = mixer.num_heads * mixer.head_dim
                if mixer.sink_logits:
                    yield "mixer.sink_logits", (mixer.num_heads,)
                yield from linear_shapes("mixer.q_proj", width, inner, mixer.qkv_bias)
                yield from head_norm_shapes("mixer.q_norm", mixer.q_norm, mixer.num_heads, mixer.head_dim)
                if mixer.owns_kv:
                    yield from _kv_shapes("mixer.kv.", self.slots[mixer.slot_idx], width)
                if mixer.output_gate:
                    yield from linear_shapes("mixer.g_proj", width, inner, mixer.qkv_bias)
                yield from linear_shapes("mixer.o_proj", inner, width, mixer.out_bias)
            case RetentionPlan() as mixer:
                inner = mixer.num_heads * mixer.head_dim
                for name in ("q_proj", "k_proj", "v_proj", "g_proj"):
                    yield from linear_shapes(f"mixer.{name}", width, inner, False)
                if mixer.decay == "gated":
                    yield from linear_shapes("mixer.gt_proj", width, mixer.num_heads, False)
                yield from linear_shapes("mixer.o_proj", inner, width, False)
            case None:
                pass
        if layer.mixer is not None:
            yield from norm_shapes("mixer_post_norm", post, width)
        if layer.ffn is not None:
            yield from norm_shapes("ffn_norm", NO_NORM if layer.one_norm else pre, width)
            if isinstance(layer.ffn, Moe):
                yield from moe_shapes("ffn.", layer.ffn, width, layer.ffn_bias)
            else:
                yield from ffn_shapes("ffn.", layer.ffn, width, layer.ffn_bias)
            yield from norm_shapes("ffn_post_norm", post, width)


def flattened(steps: tuple[Step, ...], groups: tuple[IterationGroup, ...]) -> tuple[Step, ...]:
    """Steps with each `iterate` replaced by the group's own, once."""
    return tuple(inner for step in steps for inner in (groups[step.idx].steps if step.op == "iterate" else (step,)))


def num_idle_parameters(layer: LayerPlan, width: int) -> int:
    """Parameters of the experts that are not chosen for a token."""
    if not isinstance(layer.ffn, Moe):
        return 0
    expert = sum(prod(shape) for _, shape in ffn_shapes("", layer.ffn.expert, width, layer.ffn_bias))
    return (layer.ffn.num_experts - layer.ffn.top) * expert


def _kv_shapes(prefix: str, slot: CacheSlot, width: int) -> Iterator[tuple[str, Shape]]:
    inner = slot.num_kv_heads * slot.head_dim
    yield from linear_shapes(f"{prefix}k_proj", width, inner, slot.bias)
    if not slot.values_from_keys:
        yield from linear_shapes(f"{prefix}v_proj", width, inner, slot.bias)
    yield from head_norm_shapes(f"{prefix}k_norm", slot.k_norm, slot.num_kv_heads, slot.head_dim)
    yield from head_norm_shapes(f"{prefix}v_norm", slot.v_norm, slot.num_kv_heads, slot.head_dim)
