"""One execution of a plan's steps: which unit follows which, what has been written so far and what readers see of it.

Legend: B batch, S query tokens, T keys in a view, D hidden, V vocab.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archspec.plan import CacheSlot, IterationGroup, Step
from archspec.runtime import units
from archspec.runtime.attention import View
from archspec.runtime.cache import Cache, keep_newest, stored_view, view_before
from archspec.runtime.layers import Attention, Block
from archspec.runtime.retention import Retention
from archspec.runtime.units import Chunk, Env

if TYPE_CHECKING:
    from archspec.runtime.network import Network

Late = Sequence[Tensor]
"""Keys and values of the new positions of a group's late slots: k, v, k, v, ...; (B, K, S, H) each."""


@dataclass(frozen=True)
class Pass:
    """What one execution of steps knows besides the hidden states."""

    network: "Network"
    start: int
    """Position of the first token."""
    cache: Cache | None
    env: Env
    keep: bool = True
    """Slots and states take up what is computed; otherwise they stay as they are."""
    views: dict[object, View] = field(default_factory=dict)
    """What readers see of a slot, by slot index, or by index and window where readers see less than the slot keeps."""
    shown: dict[int, Chunk] = field(default_factory=dict)
    """The new keys and values in these views, by slot index."""
    written: dict[int, Chunk] = field(default_factory=dict)
    """New keys and values as they were last computed, by slot index."""

    @property
    def num_tokens(self) -> int:
        return self.env.positions.shape[0]

    def call(self, unit: Callable[..., Any], kind: object, *args: Any) -> Any:
        """The unit, which is another one for single rows, and where rows are padded.

        With checkpointing it runs once more in the backward pass.
        """
        network, kind = self.network, (kind, self.num_tokens == 1, self.env.pad_lens is None)
        if not (network.gradient_checkpointing and torch.is_grad_enabled()):
            return network.call(unit, kind, *args)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), network.call.settings()

        # No unit draws random numbers, whose state would have to be kept; and those that write into a cache, which must
        # not do so twice, run without gradient.
        return checkpoint(
            network.call, unit, kind, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
        )

    def steps(self, steps: tuple[Step, ...], x: Tensor) -> Tensor:
        """`x` after all steps between the ends of the stack."""
        current, done = self, 0
        while done < len(steps):
            step = steps[done]
            done += 1
            match step.op:
                case "write":
                    slot = self.network.plan.slots[step.idx]
                    if steps[done : done + 1] == (Step("layer", slot.writer_idx),) and current.can_fuse(slot):
                        x, done = current.own(slot, x), done + 1
                    else:
                        current.write(slot, x)
                case "layer":
                    x = current.layer(step.idx, x)
                case "iterate":
                    x = current.iterate(self.network.plan.groups[step.idx], x)
                case "last":
                    # A copy, so that its strides are those of any other single row.
                    current, x = current.last(), x[:, -1:].clone(memory_format=torch.contiguous_format)
                case "embed" | "head":
                    raise ValueError(f"`{step.op}` is an end of the stack: see `Network.run`")
        return x

    def can_fuse(self, slot: CacheSlot) -> bool:
        """Whether a layer's own keys and values are all that it attends to, or lie in the slot once written."""
        if slot.projected:
            return False
        return self.start == 0 or (self.num_tokens == 1 and self.keep)

    def own(self, slot: CacheSlot, x_BSD: Tensor) -> Tensor:
        """A slot's write and its writer, in one unit."""
        network, idx = self.network, slot.writer_idx
        block, kind = network.layers[idx], network.layer_kinds[idx]
        if self.num_tokens == 1 and self.cache is not None and self.keep:
            buffer, length = self.buffer(slot), self.cache.live_len(slot, self.start + 1)
            y_BSD: Tensor = self.call(units.own_row, kind, block, x_BSD, self.env, buffer, length, network.attend)
            if slot.readers != (idx,):
                self.views[slot.idx] = self.stored(slot, self.start + 1)
            return y_BSD
        y_BSD, *chunk = self.call(units.own_layer, kind, block, x_BSD, self.env, network.attend)
        self.take(slot, (chunk[0], chunk[1]))
        return y_BSD

    def write(self, slot: CacheSlot, x_BSD: Tensor) -> None:
        norm, project = self.network.writers[slot.idx]
        kind = self.network.slot_kinds[slot.idx]
        if self.num_tokens == 1 and self.cache is not None and self.keep:
            self.call(units.write_row, kind, norm, project, x_BSD, self.env, self.buffer(slot))
            self.views[slot.idx] = self.stored(slot, self.start + 1)
            return
        self.take(slot, self.call(units.write, kind, norm, project, x_BSD, self.env))

    def take(self, slot: CacheSlot, chunk: Chunk) -> None:
        """New keys and values: note what readers see, and keep them."""
        self.written[slot.idx] = chunk
        stored = self.keep and self.cache is not None and self.start > 0 and slot.window is None
        if not stored:
            self.show(slot, chunk)
        if self.keep and self.cache is not None:
            keep_newest(self.buffer(slot), chunk, slot, self.start)
        if stored:
            # Nothing is forgotten: once written, the slot itself is the view, and no older keys are copied.
            self.show(slot, chunk, self.stored(slot, self.start + self.num_tokens, exact=True))

    def show(self, slot: CacheSlot, chunk: Chunk, view: View | None = None) -> None:
        """Readers see these new keys and values from now on: in `view`, or joined to what was there before."""
        for key in [key for key in self.views if isinstance(key, tuple) and key[0] == slot.idx]:
            del self.views[key]
        self.shown[slot.idx] = chunk
        self.views[slot.idx] = self.joined(slot, chunk) if view is None else view

    def joined(self, slot: CacheSlot, chunk: Chunk) -> View:
        """What readers see of a slot if new keys and values are put behind it, in memory of their own."""
        if self.start == 0:
            return View(*chunk, positions=self.env.positions, front=0)
        if slot.window is not None:
            return view_before(self.buffer(slot), chunk, slot, slot.window, slot.sinks, self.start)
        old = self.stored(slot, self.start, exact=True)
        keys, values = torch.cat((old.keys, chunk[0]), dim=2), torch.cat((old.values, chunk[1]), dim=2)
        return View(keys, values, torch.cat((old.positions, self.env.positions)), line=True)

    def buffer(self, slot: CacheSlot) -> Tensor:
        if self.cache is None:
            raise RuntimeError(f"slot {slot.idx} is read before its write, outside an iteration and without cache")
        return self.cache.storage.slots[slot.idx]

    def stored(self, slot: CacheSlot, num_written: int, exact: bool = False) -> View:
        """What lies in the slot's buffer after `num_written` tokens."""
        buffer, cache = self.buffer(slot), self.cache
        length = num_written if exact else cache.live_len(slot, num_written)  # type: ignore[union-attr]
        # From the positions on the device: a number of the host's would be fixed in a graph that is replayed.
        written = self.env.positions[:1] + (num_written - self.start)
        return stored_view(buffer, written, length, slot.window, slot.sinks)

    def view(self, mixer: Attention) -> View:
        """What a reader of a slot sees now; before its `write`, that is what earlier passes stored."""
        slot = self.network.plan.slots[mixer.slot_idx]
        if slot.idx not in self.views:
            self.views[slot.idx] = self.stored(slot, self.start)
        view, sight = self.views[slot.idx], mixer.sight
        if view.front is not None or self.num_tokens == 1 or sight.window is None or slot.idx not in self.shown:
            return view
        # Readers with a window of a slot without one: what is near lies together, and the rest is not looked at.
        key = (slot.idx, sight.window, sight.sinks)
        if key not in self.views:
            args = slot, sight.window, sight.sinks, self.start
            self.views[key] = view_before(self.buffer(slot), self.shown[slot.idx], *args)
        return self.views[key]

    def layer(self, idx: int, x_BSD: Tensor) -> Tensor:
        kind = self.network.layer_kinds[idx]
        block: Block = self.network.layers[idx]  # type: ignore[assignment]
        if isinstance(block.mixer, Retention):
            state = None if self.cache is None else self.cache.storage.states[block.mixer.state_idx]
            if state is not None and self.keep:
                return self.call(units.retain_in_place, kind, block, x_BSD, self.env, state)
            return self.call(units.retain, kind, block, x_BSD, self.env, state)[0]
        view = None if block.mixer is None else self.view(block.mixer)
        # Of a slot, of a chunk, in order or not: what a compiled function may not be asked to serve alike.
        lie = self.network.call.lie
        seen = None if view is None else (*view[3:], *lie(view.keys), *lie(view.values))
        return self.call(units.layer, (kind, seen), block, x_BSD, self.env, view, self.network.attend)

    def last(self) -> "Pass":
        """The same for the last position alone."""
        views: dict[object, View] = {
            key: view._replace(front=None, sinks=0, line=view.line or view.from_start)
            for key, view in self.views.items()
            if isinstance(key, int)
        }
        return replace(self, env=self.env.last(), views=views, start=self.start + self.num_tokens - 1)

    def iterate(self, group: IterationGroup, x_BSD: Tensor) -> Tensor:
        """All passes of a group, each from `x_BSD`; the last one's output, and its keys and values are kept."""
        num_passes = group.num_passes
        late = self.zeros(group, x_BSD)
        y_BSD = x_BSD
        for number in range(1, num_passes + 1):
            with torch.no_grad() if number <= group.forward else nullcontext():
                y_BSD, late = self.once(group, x_BSD, late, keep=number == num_passes)
        return y_BSD

    def once(self, group: IterationGroup, x_BSD: Tensor, late: Late, keep: bool) -> tuple[Tensor, Late]:
        """One pass of a group, given the late keys and values of the pass before: its output, and its own."""
        for idx, chunk in zip(group.late_slots, zip(late[::2], late[1::2], strict=True), strict=True):
            self.show(self.network.plan.slots[idx], chunk)
        y_BSD = replace(self, keep=keep).steps(group.steps, x_BSD)
        return y_BSD, tuple(tensor for idx in group.late_slots for tensor in self.written[idx])

    def zeros(self, group: IterationGroup, x_BSD: Tensor) -> Late:
        """Keys and values of new positions before the first pass."""
        slots = [self.network.plan.slots[idx] for idx in group.late_slots]
        shapes = [(x_BSD.shape[0], slot.num_kv_heads, x_BSD.shape[1], slot.head_dim) for slot in slots]
        return tuple(x_BSD.new_zeros(shape) for shape in shapes for _ in range(2))
