"""The modules of a plan, and the execution of its steps: what is shared and where prefill stops is the plan's.

Legend: B batch, S query tokens, T keys in a view, D hidden, V vocab.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, arange, nn, stack

from archspec.plan import CacheSlot, Plan, Step
from archspec.runtime.attention import Backend, View, Visibility
from archspec.runtime.cache import Storage, append_to_ring, ring_positions, write_in_place
from archspec.runtime.layers import Attention, Block, KeyValueProjection, make_norm
from archspec.runtime.retention import Retention
from archspec.runtime.rope import Rotation, Table, rope_table

Phase = Literal["forward", "prefill", "prefill in full", "decode"]
LiveLens = dict[int | None, int]
"""Length of the view of a slot's buffer in this pass, by the slot's window."""


class Network(nn.Module):
    """Parameters under the names of `Plan.parameter_shapes`, and `run`, which executes the steps of a phase."""

    def __init__(self, plan: Plan, attend: Backend) -> None:
        super().__init__()
        self.plan, self.attend = plan, attend
        width = plan.hidden_size
        self.embed = nn.Embedding(plan.vocab_size, width)
        self.layers = nn.ModuleList(Block(layer, plan.slots, width) for layer in plan.layers)
        self.caches = nn.Module()
        for slot in plan.slots:
            if slot.projected:
                # Not add_module: a slot may be called what Module has a method for, `half` say.
                self.caches._modules[slot.name] = KeyValueProjection(slot, width)
        self.norm = make_norm(plan.final_norm, width)
        self.lm_head = None if plan.tied_embeddings else nn.Linear(width, plan.vocab_size, bias=False)
        self._steps: dict[Phase, tuple[Step, ...]] = {
            "forward": plan.forward_steps(),
            "prefill": plan.prefill_steps(),
            "prefill in full": plan.prefill_steps(early_exit=False),
            "decode": plan.decode_steps(),
        }
        self._writers = [self._writer(slot) for slot in plan.slots]
        turning = (m for m in self.modules() if isinstance(m, Attention | KeyValueProjection | Retention))
        self._rotations = list(dict.fromkeys(m.rotation for m in turning if m.rotation is not None))

    def _writer(self, slot: CacheSlot) -> tuple[nn.Module | None, nn.Module]:
        """The norm before a slot's projection, if it is the writer's, and the projection.

        A tuple is not registered by Module, so nothing appears twice in `state_dict`.
        """
        if slot.projected:
            return None, self.caches._modules[slot.name]  # type: ignore[return-value]
        block = self.layers[slot.writer_idx]
        return block.mixer_norm, block.mixer.kv  # type: ignore[union-attr, return-value]

    def run(
        self, phase: Phase, input_ids: Tensor, start: Tensor, storage: Storage | None, live_lens: LiveLens
    ) -> Tensor:
        """Execute the steps of `phase` for tokens at positions `start`, `start + 1`, ...

        Shapes: input_ids (B, S), start (1,); returns logits (B, S, V), or (B, 1, V) after a `last` step.
        Effects: writes slots and states of `storage`, if there is one.
        """
        positions_S = start + arange(input_ids.shape[1], device=input_ids.device)
        tables = {r: rope_table(r, positions_S) for r in self._rotations}
        state = _Pass(self, start, storage, live_lens, positions_S, tables)
        x = input_ids
        for step in self._steps[phase]:
            x = state.step(step, x)
        return x


@dataclass
class _Pass:
    """What one execution of steps knows besides the hidden states."""

    network: Network
    start: Tensor
    storage: Storage | None
    live_lens: LiveLens
    positions: Tensor
    """Positions of the rows of the hidden states."""
    tables: dict[Rotation, Table]
    views: dict[int, View] = field(default_factory=dict)
    """What readers see of every slot written so far, by slot index."""
    visibilities: dict[tuple[int | None, int | None], Visibility] = field(default_factory=dict)
    """By window of slot and reader; slots of one window hold the same positions."""

    def step(self, step: Step, x: Tensor) -> Tensor:
        match step.op:
            case "embed":
                scale = self.network.plan.embed_scale
                x = self.network.embed(x)
                return x if scale == 1 else x * scale
            case "write":
                self.write(self.network.plan.slots[step.idx], x)
                return x
            case "layer":
                return self.layer(self.network.layers[step.idx], x)  # type: ignore[arg-type]
            case "last":
                return self.last(x)
            case "head":
                return self.head(x)

    def write(self, slot: CacheSlot, x_BSD: Tensor) -> None:
        norm, project = self.network._writers[slot.idx]
        chunks = project(x_BSD if norm is None else norm(x_BSD), self.tables)
        self.views[slot.idx] = self.store(slot, chunks)

    def store(self, slot: CacheSlot, chunks: tuple[Tensor, Tensor]) -> View:
        """Put new keys and values into the slot's buffers, if any; what readers see of it from now on."""
        if self.storage is None:
            return View(*chunks, positions=self.positions, from_start=True)
        buffer = self.storage.slots[slot.idx]
        chunk_BK2SH = stack(chunks, dim=2)
        if slot.window is not None and self.positions.shape[0] > 1:
            joined, positions = append_to_ring(buffer, chunk_BK2SH, self.start, self.positions)
            return View(joined[:, :, 0], joined[:, :, 1], positions, from_start=False)
        write_in_place(buffer, chunk_BK2SH, self.positions)
        live = self.live_lens[slot.window]
        positions = ring_positions(self.positions[-1:] + 1, buffer.shape[3], live)
        return View(buffer[:, :, 0, :live], buffer[:, :, 1, :live], positions, from_start=False)

    def layer(self, block: Block, x_BSD: Tensor) -> Tensor:
        input_BSD = x_BSD
        if block.mixer is not None and block.mixer_norm is not None:
            x_BSD = x_BSD + self.mix(block.mixer, block.mixer_norm(x_BSD))
        if block.ffn is not None and block.ffn_norm is not None:
            x_BSD = x_BSD + block.ffn(block.ffn_norm(input_BSD if block.parallel_residual else x_BSD))
        return x_BSD

    def mix(self, mixer: Attention | Retention, h_BSD: Tensor) -> Tensor:
        if isinstance(mixer, Attention):
            view = self.views[mixer.slot_idx]
            out: Tensor = mixer(h_BSD, self.tables, view, self.visibility(mixer, view), self.network.attend)
            return out
        kept = None if self.storage is None else self.storage.states[mixer.state_idx]
        out, state = mixer(h_BSD, self.tables, kept)
        if kept is not None:
            kept.copy_(state)
        return out

    def visibility(self, mixer: Attention, view: View) -> Visibility:
        key = (self.network.plan.slots[mixer.slot_idx].window, mixer.window)
        if key not in self.visibilities:
            causal = view.from_start and mixer.window is None
            self.visibilities[key] = Visibility(self.positions, view.positions, mixer.window, causal)
        return self.visibilities[key]

    def last(self, x_BSD: Tensor) -> Tensor:
        self.positions = self.positions[-1:]
        self.tables = {r: (cos[-1:], sin[-1:]) for r, (cos, sin) in self.tables.items()}
        self.visibilities = {}
        for view in self.views.values():
            view.from_start = False
        return x_BSD[:, -1:]

    def head(self, x_BSD: Tensor) -> Tensor:
        network = self.network
        h_BSD = network.norm(x_BSD)
        return F.linear(h_BSD, (network.embed if network.lm_head is None else network.lm_head).weight)
