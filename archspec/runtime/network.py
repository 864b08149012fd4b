"""The modules of a plan, and the execution of its steps: what is shared and where prefill stops is the plan's.

Legend: B batch, S query tokens, D hidden, V vocab.
"""

from typing import Literal

import torch
from torch import Tensor, arange, nn

from archspec.plan import CacheSlot, Plan, Step
from archspec.runtime.attention import Backend
from archspec.runtime.cache import LiveLens, Storage
from archspec.runtime.layers import Attention, Block, KeyValueProjection, make_norm
from archspec.runtime.passes import Pass
from archspec.runtime.retention import Retention
from archspec.runtime.rope import rope_table

__all__ = ["LiveLens", "Network", "Phase"]

Phase = Literal["forward", "prefill", "prefill in full", "decode"]


class Network(nn.Module):
    """Parameters under the names of `Plan.parameter_shapes`, and `run`, which executes the steps of a phase."""

    def __init__(self, plan: Plan, attend: Backend) -> None:
        super().__init__()
        self.plan, self.attend = plan, attend
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
        self._steps: dict[Phase, tuple[Step, ...]] = {
            "forward": plan.forward_steps(),
            "prefill": plan.prefill_steps(),
            "prefill in full": plan.prefill_steps(early_exit=False),
            "decode": plan.decode_steps(),
        }
        self._writers = [self._writer(slot) for slot in plan.slots]
        turning = (m for m in self.modules() if isinstance(m, Attention | KeyValueProjection | Retention))
        self._rotations = list(dict.fromkeys(rotation for module in turning for rotation in module.rotations()))

    def _writer(self, slot: CacheSlot) -> tuple[nn.Module | None, nn.Module]:
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

    def run(
        self,
        phase: Phase,
        inputs: Tensor,
        start: Tensor,
        storage: Storage | None,
        live_lens: LiveLens,
        pad_lens_B: Tensor | None = None,
    ) -> Tensor:
        """Execute the steps of `phase` for tokens at positions `start`, `start + 1`, ...

        Row b's positions before `pad_lens_B[b]` are padding: nothing else depends on them.

        Shapes: inputs (B, S) token ids or (B, S, D) vectors, as the plan says; start (1,); pad_lens_B int64 (B,).
        Returns logits (B, S, V) or vectors (B, S, D); (B, 1, ...) after a `last` step.
        Effects: writes slots and states of `storage`, if there is one.
        """
        return self.make_pass(inputs, start, storage, live_lens, pad_lens_B).steps(self._steps[phase], inputs)

    def make_pass(
        self, inputs: Tensor, start: Tensor, storage: Storage | None, live_lens: LiveLens, pad_lens_B: Tensor | None
    ) -> Pass:
        """What the steps start from."""
        positions_S = start + arange(inputs.shape[1], device=inputs.device)
        tables = {r: rope_table(r, positions_S) for r in self._rotations}
        return Pass(self, start, storage, live_lens, pad_lens_B, positions_S, tables)


class HeadBias(nn.Module):
    """The bias of logits whose matrix is that of the embedding."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocab_size))


def _make_head(plan: Plan) -> nn.Linear | HeadBias | None:
    """What the logits have of their own."""
    if plan.outputs == "vectors":
        return None
    if not plan.tied_embeddings:
        return nn.Linear(plan.hidden_size, plan.vocab_size, bias=plan.head_bias)
    return HeadBias(plan.vocab_size) if plan.head_bias else None
