"""The modules of a plan, and the execution of its steps: what is shared and where prefill stops is the plan's.

Legend: B batch, S query tokens, D hidden, V vocab.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from archspec.plan import AttentionPlan, CacheSlot, LayerPlan, Plan, RetentionPlan, Step
from archspec.runtime.attention import Backend, cap
from archspec.runtime.cache import Cache
from archspec.runtime.compiling import Caller
from archspec.runtime.cuda_graphs import DecodeGraphs
from archspec.runtime.decode_steps import Given, StepRunner
from archspec.runtime.explaining import reads_lengths
from archspec.runtime.layers import Attention, Block, KeyValueProjection, make_norm
from archspec.runtime.linear import Linear, linear
from archspec.runtime.passes import Checkpointing, Pass
from archspec.runtime.retention import Retention
from archspec.runtime.rope import Table, rope_table
from archspec.runtime.sampling import Chooser, Draw, choose
from archspec.runtime.units import Env

__all__ = ["Network", "Phase"]

Phase = Literal["forward", "prefill", "prefill in full", "decode"]


class Network(nn.Module):
    """Parameters under the names of `Plan.parameter_shapes`, and `run`, which executes the steps of a phase."""

    row_kernels = False
    """Single rows go through kernels of their own: see `Linear`."""
    kept_steps: StepRunner | None = None
    """Decode steps are kept and run again, if compiled: as CUDA graphs, or from tapes on a CPU."""
    checkpointing: Checkpointing | None = None
    """Units are run again in the backward pass, instead of keeping what they computed."""

    def __init__(self, plan: Plan, attend: Backend, call: Caller) -> None:
        super().__init__()
        self.plan, self.attend, self.call = plan, attend, call
        width = plan.hidden_size
        self.embed = nn.Embedding(plan.vocab_size, width) if plan.inputs == "tokens" else None
        table = plan.positions
        self.positions = None if table is None else nn.Embedding(table.num_rows, width)
        self.embed_norm = make_norm(plan.embed_norm, width)
        self.layers = nn.ModuleList(Block(layer, plan.slots, width) for layer in plan.layers)
        self.caches = nn.Module()
        for slot in plan.slots:
            if slot.projected:
                # Not add_module: a slot may be called what Module has a method for, `half` say.
                self.caches._modules[slot.name] = KeyValueProjection(slot, width)
        self.norm = make_norm(plan.final_norm, width)
        self.lm_head = _make_head(plan)
        self._fills = {early_exit: plan.fill_steps(early_exit)[1:] for early_exit in (True, False)}
        self._bodies: dict[Phase, tuple[Step, ...]] = {
            "forward": plan.forward_steps()[1:-1],
            "prefill": plan.prefill_steps()[1:-1],
            "prefill in full": plan.prefill_steps(early_exit=False)[1:-1],
            "decode": plan.decode_steps()[1:-1],
        }
        self.writers = [self._writer(slot) for slot in plan.slots]
        self.layer_kinds = [layer_kind(layer, plan.slots) for layer in plan.layers]
        self.slot_kinds = [slot_kind(slot, plan.layers[slot.writer_idx]) for slot in plan.slots]
        turning = (m for m in self.modules() if isinstance(m, Attention | KeyValueProjection | Retention))
        self._rotations = list(dict.fromkeys(rotation for module in turning for rotation in module.rotations()))

    def _writer(self, slot: CacheSlot) -> tuple[nn.Module | None, KeyValueProjection]:
        """The norm before a slot's projection, if it is the writer's, and the projection.

        A tuple is not registered by Module, so nothing appears twice in `state_dict`.
        """
        if slot.projected:
            return None, self.caches._modules[slot.name]  # type: ignore[return-value]
        block = self.layers[slot.writer_idx]
        return block.mixer_norm, block.mixer.kv  # type: ignore[union-attr, return-value]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def output_matrix(self) -> Tensor | None:
        """The matrix (V, D) of the logits; None if the outputs are vectors."""
        if self.plan.outputs == "vectors":
            return None
        matrix = self.embed if self.plan.tied_embeddings else self.lm_head
        if matrix is None:
            raise ValueError("the plan ties the output matrix to an embedding that it does not have")
        return matrix.weight  # type: ignore[return-value]

    def output_bias(self) -> Tensor | None:
        """The bias (V,) of the logits."""
        return None if self.lm_head is None else self.lm_head.bias

    def run(
        self,
        phase: Phase,
        inputs: Tensor,
        cache: Cache | None = None,
        pad_lens_B: Tensor | None = None,
        chooser: Chooser | None = None,
    ) -> Tensor:
        """Execute the steps of `phase` for the next tokens of `cache`, or for positions from 0 without one.

        Row b's positions before `pad_lens_B[b]` are padding: nothing else depends on them.

        Shapes: inputs (B, S) token ids or (B, S, D) vectors, as the plan says; pad_lens_B int64 (B,).
        Returns logits (B, S, V) or vectors (B, S, D); (B, 1, ...) after a `last` step. With a `chooser`, token ids (B,)
        chosen by the last logits.
        Effects: writes slots and states of `cache`, if there is one; it still has to `advance`.
        """
        if phase == "decode" and cache is not None and self.kept_steps is not None:
            # What is drawn cannot be a part of a step that is kept: it comes before, and is one of its inputs.
            draw = None if chooser is None else self._draw(chooser, inputs)
            kind = None if chooser is None else ("chosen", chooser.kind)
            given = Given(inputs, pad_lens_B, draw)
            return self.kept_steps.run(lambda given: self._decode(cache, chooser, given), kind, given, cache)
        with self.call.settings():
            x_BSD, run = self.begin(inputs, cache, pad_lens_B)
            draw = None if chooser is None else self._draw(chooser, x_BSD)
            return self.end(run.steps(self._bodies[phase], x_BSD), chooser, draw)

    def fill(self, inputs: Tensor, cache: Cache, *, early_exit: bool = True) -> None:
        """Execute what a prefill does with the next tokens of `cache` if others of the prompt follow.

        Effects: as of `run`, and `cache` advances.
        """
        given = Given(inputs, cache.pad_lens_B)
        if inputs.shape[1] == 1 and self.kept_steps is not None:
            self.kept_steps.run(
                lambda given: self._filled(cache, early_exit, given), ("fill", early_exit), given, cache
            )
        else:
            self._filled(cache, early_exit, given)
        cache.advance(inputs.shape[1])

    def _filled(self, cache: Cache, early_exit: bool, given: Given) -> Tensor:
        """What left the last layer that a fill executes."""
        with self.call.settings():
            x_BSD, run = self.begin(given.inputs, cache, given.pad_lens)
            return run.steps(self._fills[early_exit], x_BSD)

    def _decode(self, cache: Cache, chooser: Chooser | None, given: Given) -> Tensor:
        """What is kept of a decode step."""
        with self.call.settings():
            x_BSD, run = self.begin(given.inputs, cache, given.pad_lens)
            return self.end(run.steps(self._bodies["decode"], x_BSD), chooser, given.draw)

    def _draw(self, chooser: Chooser, inputs: Tensor) -> Draw | None:
        """Chance for the next token of every row of `inputs`."""
        return chooser.draw((inputs.shape[0], self.plan.vocab_size), self.dtype, inputs.device)

    def prepare(self, cache: Cache) -> None:
        """Say about a new cache what the steps of this network will make of it."""
        self.call.mark_slots(cache)
        if isinstance(self.kept_steps, DecodeGraphs):
            cache.live = "whole" if reads_lengths(self) else "coarse"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Network":
        if self.kept_steps is not None:
            self.kept_steps.forget()
        super()._apply(fn, recurse)
        return self

    def begin(self, inputs: Tensor, cache: Cache | None, pad_lens_B: Tensor | None) -> tuple[Tensor, Pass]:
        """What enters the first layer, and a pass over the steps that follow."""
        start = torch.zeros(1, dtype=torch.int64, device=inputs.device) if cache is None else cache.input_pos
        inputs = self.call.marked(inputs)
        kind = (type(self), inputs.shape[1] == 1, pad_lens_B is None)
        x_BSD, positions_S, tables = self.call(enter, kind, self, inputs, start, pad_lens_B)
        env = Env(positions_S, dict(zip(self._rotations, tables, strict=True)), pad_lens_B)
        return x_BSD, Pass(self, 0 if cache is None else cache.num_cached_tokens, cache, env)

    def end(self, x_BSD: Tensor, chooser: Chooser | None = None, draw: Draw | None = None) -> Tensor:
        """Logits, or vectors, from what left the last layer; or tokens, by what a chooser drew before."""
        kind = (type(self), x_BSD.shape[1] == 1)
        if chooser is None or not self.call.chooses:
            out: Tensor = self.call(leave, kind, self, x_BSD)
            return out if chooser is None else choose(out[:, -1], draw)
        ids_B: Tensor = self.call(leave_with_token, (chooser.kind, kind), self, x_BSD, draw)
        return ids_B

    def rope_tables(self, positions_S: Tensor) -> list[Table]:
        """Of every rotation in use."""
        return [rope_table(rotation, positions_S) for rotation in self._rotations]


def enter(
    network: Network, inputs: Tensor, start: Tensor, pad_lens_B: Tensor | None
) -> tuple[Tensor, Tensor, list[Table]]:
    """What enters the first layer, positions of its rows, and the tables of all rotations. Shapes: start (1,)."""
    plan = network.plan
    positions_S = start + torch.arange(inputs.shape[1], device=inputs.device)
    x_BSD = network.embed(inputs) if plan.inputs == "tokens" and network.embed is not None else inputs
    x_BSD = x_BSD if plan.embed_scale == 1 else x_BSD * plan.embed_scale
    if network.positions is not None and plan.positions is not None:
        # Padding itself counts as the first place.
        places = positions_S if pad_lens_B is None else (positions_S - pad_lens_B[:, None]).clamp(min=0)
        x_BSD = x_BSD + network.positions(places + plan.positions.first_row)
    return network.embed_norm(x_BSD), positions_S, network.rope_tables(positions_S)


def leave(network: Network, x_BSD: Tensor) -> Tensor:
    """Logits, or vectors, from what left the last layer."""
    h_BSD: Tensor = network.norm(x_BSD)
    matrix = network.output_matrix()
    if matrix is None:
        return h_BSD
    return logits_of(network.plan, h_BSD, matrix, network.output_bias(), network.row_kernels)


def leave_with_token(network: Network, x_BSD: Tensor, draw: Draw | None) -> Tensor:
    """Token ids (B,) chosen by the logits of the last position."""
    return choose(leave(network, x_BSD)[:, -1], draw)


def logits_of(plan: Plan, h: Tensor, matrix_VD: Tensor, bias_V: Tensor | None, row_kernels: bool = False) -> Tensor:
    """Logits (..., V) of normed hidden states (..., D)."""
    logits = linear(h, matrix_VD, bias_V, row_kernels)
    return cap(logits if plan.logit_scale == 1 else logits * plan.logit_scale, plan.final_softcap)


def layer_kind(layer: LayerPlan, slots: tuple[CacheSlot, ...]) -> str:
    """The same for layers that differ in nothing but their place and in what they read."""
    mixer, own = layer.mixer, ""
    match mixer:
        case AttentionPlan():
            own = _placeless(slots[mixer.slot_idx]) if mixer.owns_kv else ""
            mixer = replace(mixer, slot_idx=0)
        case RetentionPlan():
            mixer = replace(mixer, state_idx=0)
    return f"{replace(layer, idx=0, mixer=mixer)} {own}"


def slot_kind(slot: CacheSlot, writer: LayerPlan) -> str:
    """The same for slots that are written alike."""
    return _placeless(slot) if slot.projected else f"{_placeless(slot)} {writer.norm} {writer.placement}"


def _placeless(slot: CacheSlot) -> str:
    return str(replace(slot, idx=0, name="", writer_idx=0, readers=()))


class HeadBias(nn.Module):
    """The bias of logits whose matrix is that of the embedding."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocab_size))


def _make_head(plan: Plan) -> Linear | HeadBias | None:
    """What the logits have of their own."""
    if plan.outputs == "vectors":
        return None
    if not plan.tied_embeddings:
        return Linear(plan.hidden_size, plan.vocab_size, bias=plan.head_bias)
    return HeadBias(plan.vocab_size) if plan.head_bias else None
