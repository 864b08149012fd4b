"""One pass over a plan's steps, and which of its tensors live how long: as `archspec.runtime.passes` and `network` do.

The hidden states that enter the first layer, new keys and values, what readers see of a slot, positions and RoPE tables
live until a pass ends, hidden states of a layer until the next one's, everything else for a moment.

Legend: B batch, S new tokens, T keys in a view, C allocated positions of a slot, D hidden.
"""

from dataclasses import dataclass, field

from archspec.memory.attending import Seen, attend
from archspec.memory.operations import FLOAT32, INT64, Operations, rotary_dim
from archspec.plan import AttentionPlan, CacheSlot, IterationGroup, LayerPlan, Plan, RetentionPlan, Step
from archspec.spec.model import Rope

LIVE_BUCKET = 128
"""Views of what a buffer holds have a multiple of this length, unless the buffer ends."""


@dataclass(frozen=True)
class Peak:
    """Bytes at the peak of a pass."""

    nbytes: int
    rope_bytes: int
    """Of these, the tables of cosines and sines."""


@dataclass
class Walk:
    """One pass of `ops.tokens` tokens over a cache that holds `cached` of `context`."""

    plan: Plan
    cached: int
    context: int
    ops: Operations
    num_new: int = 0
    """Tokens of the pass, before and after the prefill exit."""
    keep: bool = True
    """Slots take up what is written."""
    hidden: int = 0
    """Bytes of the hidden states, which are counted as alive; 0 for those that entered the first layer."""
    views: dict[object, Seen] = field(default_factory=dict)
    """What readers see of a slot, by slot, or by slot and what they see of it."""
    shown: set[int] = field(default_factory=set)
    """Slots whose new keys and values have been computed."""
    written: dict[int, int] = field(default_factory=dict)
    joined: dict[int, int] = field(default_factory=dict)
    """Bytes of new keys and values, and of what views have in memory of their own, by slot."""

    def run(self, steps: tuple[Step, ...]) -> Peak:
        self.num_new = self.ops.tokens
        self.embed()
        rope = self._tables()
        self.steps(tuple(step for step in steps if step.op not in ("embed", "head")))
        if steps[-1].op == "head":
            self.head()
        return Peak(self.ops.peak, rope)

    def _tables(self) -> int:
        """Positions, cosines and sines; places, frequencies and angles for a moment."""
        ropes: set[tuple[Rope, int, int | None]] = {
            (slot.rope, rotary_dim(slot.rope, slot.head_dim), None) for slot in self.plan.slots
        }
        for layer in self.plan.layers:
            mixer = layer.mixer
            if mixer is not None:
                turning = rotary_dim(mixer.rope, mixer.head_dim)
                ropes.add((mixer.rope, turning, None))
                if isinstance(mixer, AttentionPlan) and mixer.sinks and mixer.window is not None:
                    ropes.add((mixer.rope, turning, mixer.sinks + mixer.window))
        tokens = self.ops.tokens
        table = sum(tokens * turning * FLOAT32 for _, turning, _ in ropes)
        self._keep(tokens * INT64 + table)
        self.ops.touch(max((tokens * turning // 2 * FLOAT32 for _, turning, _ in ropes), default=0))
        return table

    def _keep(self, size: int) -> None:
        self.ops.live += size
        self.ops.touch()

    def steps(self, steps: tuple[Step, ...]) -> None:
        done = 0
        while done < len(steps):
            step = steps[done]
            done += 1
            match step.op:
                case "write":
                    slot = self.plan.slots[step.idx]
                    follows = steps[done : done + 1] == (Step("layer", slot.writer_idx),)
                    if follows and self._can_fuse(slot):
                        self.own(slot)
                        done += 1
                    else:
                        self.write(slot)
                case "layer":
                    self.layer(self.plan.layers[step.idx])
                case "iterate":
                    self.iterate(self.plan.groups[step.idx])
                case "last":
                    self._last()

    def _can_fuse(self, slot: CacheSlot) -> bool:
        return not slot.projected and (self.start == 0 or self._in_place)

    @property
    def start(self) -> int:
        """Position of the first row of the hidden states."""
        return self.cached + self.num_new - self.ops.tokens

    @property
    def _in_place(self) -> bool:
        """Single rows are written into their slot at once."""
        return self.ops.tokens == 1 and self.keep

    def _become(self, size: int, times: int = 1) -> None:
        """New hidden states take the place of the old ones."""
        self.ops.touch(times * size)
        self.ops.live += size - self.hidden
        self.hidden = size

    def embed(self) -> None:
        """Vectors from outside stay alive, and so does what enters the first layer."""
        plan, ops = self.plan, self.ops
        size = ops.rows * plan.hidden_size * ops.element
        scaled = plan.embed_scale != 1
        if plan.inputs == "vectors":
            self._keep(size)
            self._become(size if scaled else 0)
        else:
            self._become(size, times=2 if scaled else 1)
        if plan.positions is not None:
            self._become(size, times=2)
        if plan.embed_norm.kind != "none":
            self._become(ops.norm(plan.embed_norm, plan.hidden_size, ops.rows))
        self.hidden = 0

    def head(self) -> None:
        ops, plan = self.ops, self.plan
        normed = ops.norm(plan.final_norm, plan.hidden_size, ops.rows)
        if plan.outputs == "logits":
            with ops.hold(normed):
                logits = ops.rows * plan.vocab_size * ops.element
                ops.touch(logits * (3 if plan.final_softcap is not None else 2 if plan.logit_scale != 1 else 1))

    def _last(self) -> None:
        """One row goes on; views of slots are no longer those of its own positions, in order."""
        self.ops.tokens = 1
        self._become(self.ops.rows * self.plan.hidden_size * self.ops.element)
        self.views = {key: Seen(seen.keys) for key, seen in self.views.items() if isinstance(key, int)}

    def layer(self, layer: LayerPlan) -> None:
        """The layer's input stays alive until its output is there, what a part was given until the next one's is."""
        ops, width = self.ops, self.plan.hidden_size
        size = ops.rows * width * ops.element
        pre, post = layer.placement != "post", layer.placement != "pre"
        normed = inner = 0
        if layer.mixer is not None:
            normed = ops.norm(layer.norm, width, ops.rows) if pre else 0
            with ops.hold(normed):
                self.mix(layer.mixer)
                self._add(layer, size, post)
            # The state after the last position waits for the layer's end.
            inner = size + (ops.state(layer.mixer) if isinstance(layer.mixer, RetentionPlan) else 0)
        if layer.ffn is not None:
            with ops.hold(inner):
                if not layer.one_norm:
                    with ops.hold(normed):
                        again = ops.norm(layer.norm, width, ops.rows) if pre else 0
                    normed = again
                with ops.hold(normed):
                    ops.feed_forward(layer.ffn, width)
                    self._add(layer, size, post)
        if layer.mixer is not None or layer.ffn is not None:
            with ops.hold(inner if layer.ffn is not None else 0):
                self._become(size)
            if layer.layer_scalar:
                ops.touch(size)

    def _add(self, layer: LayerPlan, size: int, post: bool) -> None:
        """What a part of the layer gave is normed, scaled and added to the hidden states."""
        ops = self.ops
        with ops.hold(size):
            normed = ops.norm(layer.norm, self.plan.hidden_size, ops.rows) if post else 0
        ops.touch(normed or size, size, size if layer.residual_scale != 1 else 0)

    def mix(self, mixer: AttentionPlan | RetentionPlan) -> None:
        ops, width = self.ops, self.plan.hidden_size
        if isinstance(mixer, RetentionPlan):
            ops.retention(mixer, width)
            return
        slot = self.plan.slots[mixer.slot_idx]
        seen = self.view(mixer, slot)
        unturned, turned, size = ops.queries(mixer)
        with ops.hold(unturned, turned):
            out = attend(ops, mixer, slot, seen, size)
            with ops.hold(out.nbytes):
                ops.touch(0 if mixer.sees_self else out.nbytes)
                joined = 0 if out.joined else ops.rows * mixer.num_heads * mixer.head_dim * ops.element
                with ops.hold(joined):
                    gate = ops.rows * mixer.num_heads * mixer.head_dim * ops.element if mixer.output_gate else 0
                    ops.touch(2 * gate)
                    ops.touch(gate, ops.rows * width * ops.element)

    def view(self, mixer: AttentionPlan, slot: CacheSlot) -> Seen:
        """What a reader sees of a slot now."""
        if slot.idx not in self.views:
            self.views[slot.idx] = self._stored(slot, self._live_len(slot, self.start))
        seen, window = self.views[slot.idx], mixer.window
        if seen.front is not None or self.ops.tokens == 1 or window is None or slot.idx not in self.shown:
            return seen
        key = slot.idx, window, mixer.sinks
        if key not in self.views:
            self.views[key], size = self._before(slot, window, mixer.sinks)
            self._keep(size)
        return self.views[key]

    def _stored(self, slot: CacheSlot, length: int) -> Seen:
        """A view of the slot itself: positions stay, what they are made from does not."""
        self.ops.touch(self._found(slot, length))
        self._replace(self.joined, slot, length * INT64)
        return Seen(length)

    @staticmethod
    def _found(slot: CacheSlot, length: int) -> int:
        """Places, what is computed from them on the way to positions, and those."""
        return length * (2 * INT64 + 1 if slot.window is None else 4 * INT64 + 2 if slot.sinks else 3 * INT64)

    def _live_len(self, slot: CacheSlot, seen: int) -> int:
        return min(max(1, -(-seen // LIVE_BUCKET)) * LIVE_BUCKET, slot.cache_len(self.context))

    def _normed(self, slot: CacheSlot) -> int:
        writer = self.plan.layers[slot.writer_idx]
        if slot.projected or writer.placement == "post":
            return 0
        return self.ops.norm(writer.norm, self.plan.hidden_size, self.ops.rows)

    def write(self, slot: CacheSlot) -> None:
        """New keys and values, and what readers then see."""
        ops = self.ops
        with ops.hold(self._normed(slot)):
            chunk = ops.keys_values(slot, self.plan.hidden_size)
        if self._in_place:
            ops.touch(chunk, chunk)
            self.views[slot.idx] = self._stored(slot, self._live_len(slot, self.start + 1))
        else:
            self.take(slot, chunk)

    def own(self, slot: CacheSlot) -> None:
        """A slot's write and its writer at once."""
        ops, writer = self.ops, self.plan.layers[slot.writer_idx]
        with ops.hold(self._normed(slot)):
            chunk = ops.keys_values(slot, self.plan.hidden_size)
        if self._in_place:
            ops.touch(chunk, chunk)
            length = self._live_len(slot, self.start + 1)
            ops.touch(self._found(slot, length))
            with ops.hold(length * INT64):
                self.views[slot.idx] = Seen(length)
                self.layer(writer)
            if slot.readers != (slot.writer_idx,):
                self._stored(slot, length)
            return
        with ops.hold(chunk):
            self.views[slot.idx] = Seen(ops.tokens, front=0)
            self.layer(writer)
        self.take(slot, chunk)

    def take(self, slot: CacheSlot, chunk: int) -> None:
        """New keys and values stay to the end of the pass; so does a view that joins them to older ones."""
        ops = self.ops
        self._replace(self.written, slot, chunk)
        if self.keep and self.start and slot.window is None:
            ops.touch(chunk)
            self._show(slot)
            self.views[slot.idx] = self._stored(slot, self.start + ops.tokens)._replace(tail=True)
            return
        self.join(slot)
        if self.keep:
            kept = ops.tokens if slot.window is None else min(ops.tokens, slot.window)
            ops.touch(chunk * kept // ops.tokens)

    def join(self, slot: CacheSlot) -> None:
        """Readers see new keys and values behind those that are stored."""
        self._show(slot)
        if self.start == 0:
            self.views[slot.idx] = Seen(self.ops.tokens, front=0)
            return
        if slot.window is None:
            length = self.start + self.ops.tokens
            size = self.ops.batch * length * slot.elements_per_token * self.ops.element + length * INT64
            self.views[slot.idx] = Seen(length, tail=True)
        else:
            self.views[slot.idx], size = self._before(slot, slot.window, slot.sinks)
        self._replace(self.joined, slot, size)

    def _show(self, slot: CacheSlot) -> None:
        self.shown.add(slot.idx)
        self.views = {
            key: seen for key, seen in self.views.items() if not (isinstance(key, tuple) and slot.idx == key[0])
        }

    def _before(self, slot: CacheSlot, window: int, sinks: int) -> tuple[Seen, int]:
        """A copy, in order, of what a window leaves to see and of the new keys and values; its bytes."""
        ops, start = self.ops, self.start
        early = start < sinks
        old = start if early else sinks + window - 1
        length = old + ops.tokens
        elements = ops.batch * slot.elements_per_token * ops.element
        ops.touch(old * elements, length * elements, length * INT64)
        size = length * (elements + INT64)
        return (Seen(length) if early else Seen(length, window - 1, sinks)), size

    def _replace(self, kept: dict[int, int], slot: CacheSlot, size: int) -> None:
        """The new is there before the old is gone."""
        self._keep(size)
        self.ops.live -= kept.pop(slot.idx, 0)
        kept[slot.idx] = size

    def iterate(self, group: IterationGroup) -> None:
        """All passes start from the same hidden states, which stay alive, as does the output of the pass before."""
        ops, start, before = self.ops, self.hidden, 0
        for idx in group.late_slots:
            zeros = ops.rows * self.plan.slots[idx].elements_per_token * ops.element
            self._keep(zeros)
            self.written[idx] = zeros
        for number in range(min(group.num_passes, 3)):
            self.keep, self.hidden = number == min(group.num_passes, 3) - 1, 0
            self.once(group)
            ops.live -= before
            before = self.hidden
        ops.live -= start

    def once(self, group: IterationGroup) -> None:
        """One pass; the late keys and values that it is given stay alive until it ends."""
        given = 0
        for idx in group.late_slots:
            given += self.written.pop(idx)
            self.join(self.plan.slots[idx])
        self.steps(group.steps)
        self.ops.live -= given
