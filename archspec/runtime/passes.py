"""One execution of a plan's steps: what has been written so far and what readers see of it.

Legend: B batch, S query tokens, T keys in a view, D hidden, V vocab.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from archspec.plan import CacheSlot, IterationGroup, Step
from archspec.runtime.attention import PLAIN, Layout, Sight, View, Visibility, cap
from archspec.runtime.cache import (
    LiveLens,
    Storage,
    keep_newest,
    reach,
    stored_positions,
    write_in_place,
)
from archspec.runtime.layers import Attention, Block
from archspec.runtime.retention import Retention
from archspec.runtime.rope import Rotation, Table

if TYPE_CHECKING:
    from archspec.runtime.network import Network

Late = Sequence[Tensor]
"""Keys and values of the new positions of a group's late slots: k, v, k, v, ...; (B, K, S, H) each."""


@dataclass(frozen=True)
class Pass:
    """What one execution of steps knows besides the hidden states.

    Only the contents of its dictionaries change: of an object that a compiled loop has seen, the compiler no longer
    notices that an attribute is set (torch 2.13).
    """

    network: "Network"
    start: Tensor
    storage: Storage | None
    live_lens: LiveLens
    pad_lens: Tensor | None
    positions: Tensor
    """Positions of the rows of the hidden states."""
    tables: dict[Rotation, Table]
    keep: bool = True
    """Slots and states take up what is computed; otherwise they stay as they are."""
    views: dict[int, View] = field(default_factory=dict)
    """What readers see of a slot, by slot index; a slot that is not here holds what earlier passes stored."""
    written: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """New keys and values as they were last computed, by slot index."""
    visibilities: dict[tuple[Layout, Sight], Visibility] = field(default_factory=dict)

    def steps(self, steps: tuple[Step, ...], x: Tensor) -> Tensor:
        """`x` after all steps."""
        current = self
        for step in steps:
            if step.op == "last":
                current, x = current.last(), x[:, -1:]
            else:
                x = current.step(step, x)
        return x

    def step(self, step: Step, x: Tensor) -> Tensor:
        plan = self.network.plan
        match step.op:
            case "embed":
                return self.embed(x)
            case "write":
                self.write(plan.slots[step.idx], x)
                return x
            case "layer":
                return self.layer(self.network.layers[step.idx], x)  # type: ignore[arg-type]
            case "iterate":
                return self.iterate(plan.groups[step.idx], x)
            case "head":
                return self.head(x)
            case "last":
                raise ValueError("`last` changes the pass itself: see `steps`")

    def embed(self, inputs: Tensor) -> Tensor:
        """What enters the first layer, given tokens or vectors."""
        network, plan = self.network, self.network.plan
        x_BSD = network.embed(inputs) if plan.inputs == "tokens" and network.embed is not None else inputs
        x_BSD = x_BSD if plan.embed_scale == 1 else x_BSD * plan.embed_scale
        if network.positions is not None and plan.positions is not None:
            x_BSD = x_BSD + network.positions(self.places() + plan.positions.first_row)
        out: Tensor = network.embed_norm(x_BSD)
        return out

    def places(self) -> Tensor:
        """Positions without the padding before them, (S,) or (B, S); padding itself counts as the first place."""
        return self.positions if self.pad_lens is None else (self.positions - self.pad_lens[:, None]).clamp(min=0)

    def iterate(self, group: IterationGroup, x_BSD: Tensor) -> Tensor:
        """All passes of a group, each from `x_BSD`; the last one's output, and its keys and values are kept."""
        num_passes = group.num_passes
        alike = num_passes - 1 if not torch.is_grad_enabled() else min(group.forward, num_passes - 1)
        late = self.repeat(group, x_BSD, self.zeros(group, x_BSD), alike)
        y_BSD = x_BSD
        for number in range(alike + 1, num_passes + 1):
            with torch.no_grad() if number <= group.forward else nullcontext():
                y_BSD, late = self.once(group, x_BSD, late, keep=number == num_passes)
        return y_BSD

    def repeat(self, group: IterationGroup, x_BSD: Tensor, late: Late, count: int) -> Late:
        """Passes without gradient that leave nothing but the keys and values of late slots."""

        def body(number: Tensor, *late: Tensor) -> tuple[Tensor, ...]:
            # A pass of its own: what it notes must not leave the body of a loop.
            trial = replace(self, views=dict(self.views), visibilities={}, written={})
            return number + 1, *trial.once(group, x_BSD, late, keep=False)[1]

        with torch.no_grad():
            number = torch.zeros((), dtype=torch.int64)
            if count > 1 and torch.compiler.is_compiling():
                # Unrolled, many passes would take minutes to compile.
                return while_loop(lambda number, *_: number < count, body, (number, *late))[1:]
            for _ in range(count):
                _, *late = body(number, *late)
        return late

    def once(self, group: IterationGroup, x_BSD: Tensor, late: Late, keep: bool) -> tuple[Tensor, Late]:
        """One pass of a group, given the late keys and values of the pass before: its output, and its own."""
        for idx, chunks in zip(group.late_slots, zip(late[::2], late[1::2], strict=True), strict=True):
            self.views[idx] = self.joined(self.network.plan.slots[idx], chunks)
        y_BSD = replace(self, keep=keep).steps(group.steps, x_BSD)
        return y_BSD, tuple(tensor.contiguous() for idx in group.late_slots for tensor in self.written[idx])

    def zeros(self, group: IterationGroup, x_BSD: Tensor) -> Late:
        """Keys and values of new positions before the first pass."""
        slots = [self.network.plan.slots[idx] for idx in group.late_slots]
        shapes = [(x_BSD.shape[0], slot.num_kv_heads, x_BSD.shape[1], slot.head_dim) for slot in slots]
        return tuple(x_BSD.new_zeros(shape) for shape in shapes for _ in range(2))

    def write(self, slot: CacheSlot, x_BSD: Tensor) -> None:
        norm, project = self.network._writers[slot.idx]
        chunks = project(x_BSD if norm is None else norm(x_BSD), self.tables)
        self.written[slot.idx] = chunks
        self.views[slot.idx] = self.store(slot, chunks) if self.keep else self.joined(slot, chunks)

    def store(self, slot: CacheSlot, chunks: tuple[Tensor, Tensor]) -> View:
        """Put new keys and values into the slot's buffers, if any; what readers see of it from now on."""
        if self.storage is None or (slot.window is not None and self.positions.shape[0] > 1):
            view = self.joined(slot, chunks)
            if self.storage is not None and slot.window is not None:
                keep_newest(
                    self.storage.slots[slot.idx],
                    (view.keys, view.values),
                    self.start,
                    self.positions,
                    slot.window,
                    slot.sinks,
                )
            return view
        buffer = self.storage.slots[slot.idx]
        write_in_place(buffer, torch.stack(chunks, dim=2), self.positions, slot.window, slot.sinks)
        return self.stored(slot, self.storage, self.positions[-1:] + 1, "stored", self.live_lens[reach(slot)])

    def joined(self, slot: CacheSlot, chunks: tuple[Tensor, Tensor]) -> View:
        """What readers see of a slot if new keys and values are put behind it, in memory of their own."""
        if self.storage is None:
            return View(*chunks, positions=self.positions, layout=Layout(None, 0, "new"), from_start=True)
        # All of a ring, filled or not: `keep_newest` gathers from it.
        length = self.live_lens[reach(slot)] if slot.window is None else self.storage.slots[slot.idx].shape[3]
        old = self.stored(slot, self.storage, self.start, "stored before", length)
        return View(
            torch.cat((old.keys, chunks[0]), dim=2),
            torch.cat((old.values, chunks[1]), dim=2),
            torch.cat((old.positions, self.positions)),
            Layout(slot.window, slot.sinks, "stored and new"),
        )

    def stored(self, slot: CacheSlot, storage: Storage, num_written: Tensor, kind: str, length: int) -> View:
        """What lies in the first `length` places of the slot's buffers after `num_written` tokens."""
        buffer = storage.slots[slot.idx]
        positions = stored_positions(num_written, length, slot.window, slot.sinks)
        layout = Layout(slot.window, slot.sinks, kind)
        return View(buffer[:, :, 0, :length], buffer[:, :, 1, :length], positions, layout)

    def view(self, slot_idx: int) -> View:
        """What readers of a slot see now; before its `write`, that is what earlier passes stored."""
        if slot_idx not in self.views:
            if self.storage is None:
                raise RuntimeError(f"slot {slot_idx} is read before its write, outside an iteration and without cache")
            slot = self.network.plan.slots[slot_idx]
            return self.stored(slot, self.storage, self.start, "stored before", self.live_lens[reach(slot)])
        return self.views[slot_idx]

    def layer(self, block: Block, x_BSD: Tensor) -> Tensor:
        input_BSD = h_BSD = x_BSD
        if block.mixer is not None:
            h_BSD = block.mixer_norm(x_BSD)
            x_BSD = block.added(x_BSD, block.mixer_post_norm(self.mix(block.mixer, h_BSD)))
        if block.ffn is not None:
            if not block.one_norm:
                h_BSD = block.ffn_norm(input_BSD if block.is_parallel else x_BSD)
            x_BSD = block.added(x_BSD, block.ffn_post_norm(block.ffn(h_BSD)))
        return x_BSD if block.scalar is None else x_BSD * block.scalar

    def mix(self, mixer: Attention | Retention, h_BSD: Tensor) -> Tensor:
        if isinstance(mixer, Attention):
            view = self.view(mixer.slot_idx)
            out: Tensor = mixer(h_BSD, self.tables, view, self.visibility(mixer, view), self.network.attend)
            return out
        kept = None if self.storage is None else self.storage.states[mixer.state_idx]
        out, state = mixer(h_BSD, self.tables, kept, self.padding())
        if kept is not None and self.keep:
            kept.copy_(state)
        return out

    def padding(self) -> Tensor | None:
        """Boolean (B, S), true for rows of the hidden states that are padding; None if there are none."""
        return None if self.pad_lens is None else self.positions < self.pad_lens[:, None]

    def visibility(self, mixer: Attention, view: View) -> Visibility:
        key = (view.layout, mixer.sight)
        if key not in self.visibilities:
            causal = view.from_start and mixer.sight == PLAIN and self.pad_lens is None
            self.visibilities[key] = Visibility(self.positions, view.positions, mixer.sight, causal, self.pad_lens)
        return self.visibilities[key]

    def last(self) -> "Pass":
        """The same for the last position alone."""
        return replace(
            self,
            positions=self.positions[-1:],
            tables={r: (cos[-1:], sin[-1:]) for r, (cos, sin) in self.tables.items()},
            views={idx: replace(view, from_start=False) for idx, view in self.views.items()},
            visibilities={},
        )

    def head(self, x_BSD: Tensor) -> Tensor:
        network, plan = self.network, self.network.plan
        h_BSD: Tensor = network.norm(x_BSD)
        matrix = network.output_matrix()
        if matrix is None:
            return h_BSD
        logits_BSV = F.linear(h_BSD, matrix, None if network.lm_head is None else network.lm_head.bias)
        return cap(logits_BSV if plan.logit_scale == 1 else logits_BSV * plan.logit_scale, plan.final_softcap)
