"""Peak bytes of activations of prefill and decode, estimated from a plan by walking its steps as the runtime does.

What lives how long is that of `archspec.runtime.passes`: new keys and values, what readers see of a slot, masks and
RoPE tables live until a pass ends, hidden states until the next layer's, everything else for a moment. Weights, caches
and the token ids themselves are not counted. The runtime keeps no RoPE table between passes: `rope_bytes` is the part
of a pass's peak that its tables take.

Estimated is the run that is not compiled; a compiled one fuses operations and mostly needs less.
"""

from dataclasses import dataclass, field, replace

from archspec.levels_plan import LevelsPlan
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


def prefill_peak(plan: Plan | LevelsPlan, batch: int, context: int, element: int, chunk: int | None = None) -> Peak:
    """A prefill of `context` tokens into an empty cache of that length, at most `chunk` tokens at a time.

    The costliest chunks are the last whole one and what is left behind it.
    """
    chunk = min(chunk or context, context)
    whole, left = divmod(context, chunk)
    ends = [(chunk, whole * chunk), (left, context)] if left else [(chunk, context)]
    return _highest([_chunk_peak(plan, batch, new, end, context, element) for new, end in ends])


def _chunk_peak(plan: Plan | LevelsPlan, batch: int, new: int, end: int, context: int, element: int) -> Peak:
    """`new` tokens, after which the cache holds `end`."""
    if isinstance(plan, Plan):
        return _peak(plan, batch, new, end - new, context, element)
    blocks = plan.num_blocks(new)
    cached = max(plan.num_blocks(end) - blocks, 0)
    ids = batch * blocks * plan.block_length * INT64
    found = _peak(plan.blocks, batch, blocks, cached, plan.num_blocks(context), element)
    rows = batch * blocks * plan.block_length * plan.lookup.size * element
    summed = batch * blocks * plan.blocks.hidden_size * element if plan.lookup.merge == "sum" else 0
    lookup = Peak(ids + rows + summed, 0)
    return _highest([replace(found, nbytes=found.nbytes + ids), lookup, _start(plan, batch, element)])


def decode_peak(plan: Plan | LevelsPlan, batch: int, context: int, element: int) -> Peak:
    """One more token, the last that fits `context`; in a model of levels the costliest of a block's tokens."""
    if isinstance(plan, Plan):
        return _peak(plan, batch, 1, context - 1, context, element)
    blocks, positions = plan.num_blocks(context), plan.block_positions
    return _highest(
        [
            _peak(plan.blocks, batch, 1, blocks - 1, blocks, element),
            _start(plan, batch, element),
            _peak(plan.tokens, batch, 1, positions - 1, positions, element),
        ]
    )


def _start(plan: LevelsPlan, batch: int, element: int) -> Peak:
    """The first of a block: the context's vectors, and the token level over them."""
    vectors = plan.num_context if plan.take == "prefix" else 1
    expanded = batch * plan.num_context * plan.tokens.hidden_size * element
    found = _peak(plan.tokens, batch, vectors, 0, plan.block_positions, element)
    return replace(found, nbytes=found.nbytes + expanded)


def _highest(peaks: list[Peak]) -> Peak:
    return max(peaks, key=lambda peak: peak.nbytes)


def _peak(plan: Plan, batch: int, tokens: int, cached: int, context: int, element: int) -> Peak:
    walk = _Walk(plan, cached, context, Operations(batch, tokens, element))
    steps = plan.prefill_steps() if tokens > 1 else plan.decode_steps()
    return walk.run(steps)


@dataclass
class _Walk:
    """One pass of `ops.tokens` tokens over a cache that holds `cached` of `context`."""

    plan: Plan
    cached: int
    context: int
    ops: Operations
    new_tokens: int = 0
    hidden: int = 0
    """Bytes of the hidden states, which are counted as alive."""
    views: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Keys that readers of a slot see, and what kind of view it is."""
    written: dict[int, int] = field(default_factory=dict)
    joined: dict[int, int] = field(default_factory=dict)
    """Bytes of new keys and values, and of views in memory of their own, by slot."""
    masks: set[tuple[object, ...]] = field(default_factory=set)

    def run(self, steps: tuple[Step, ...]) -> Peak:
        self.new_tokens = self.ops.tokens
        rope = self._tables()
        for step in steps:
            self.step(step)
        return Peak(self.ops.peak, rope)

    def _tables(self) -> int:
        """Positions, cosines and sines; frequencies and angles for a moment."""
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

    def step(self, step: Step) -> None:
        ops, plan = self.ops, self.plan
        match step.op:
            case "embed":
                self.embed()
            case "write":
                self.write(plan.slots[step.idx], keep=True)
            case "layer":
                self.layer(plan.layers[step.idx])
            case "iterate":
                self.iterate(plan.groups[step.idx])
            case "last":
                ops.tokens = 1
                self.masks = set()
            case "head":
                self.head()

    def _become(self, size: int, times: int = 1) -> None:
        """New hidden states take the place of the old ones."""
        self.ops.touch(times * size)
        self.ops.live += size - self.hidden
        self.hidden = size

    def embed(self) -> None:
        """Vectors from outside stay alive; rows of an embedding do until they are scaled."""
        size = self.ops.rows * self.plan.hidden_size * self.ops.element
        scaled = self.plan.embed_scale != 1
        if self.plan.inputs == "vectors":
            self._keep(size)
            self._become(size if scaled else 0)
        else:
            self._become(size, times=2 if scaled else 1)
        if self.plan.positions is not None:
            self._become(size, times=2)
        if self.plan.embed_norm.kind != "none":
            self._become(self.ops.norm(self.plan.embed_norm, self.plan.hidden_size, self.ops.rows))

    def head(self) -> None:
        ops, plan = self.ops, self.plan
        normed = ops.norm(plan.final_norm, plan.hidden_size, ops.rows)
        if plan.outputs == "logits":
            with ops.hold(normed):
                logits = ops.rows * plan.vocab_size * ops.element
                ops.touch(logits * (3 if plan.final_softcap is not None else 2 if plan.logit_scale != 1 else 1))

    def layer(self, layer: LayerPlan) -> None:
        """The layer's input stays alive until its output is there."""
        ops, width = self.ops, self.plan.hidden_size
        size = ops.rows * width * ops.element
        pre, post = layer.placement != "post", layer.placement != "pre"
        inner = 0
        if layer.mixer is not None:
            normed = ops.norm(layer.norm, width, ops.rows) if pre else 0
            with ops.hold(normed):
                self.mix(layer.mixer)
            with ops.hold(size):
                added = ops.norm(layer.norm, width, ops.rows) if post else 0
            ops.touch(added or size, size)
            inner = size
        if layer.ffn is not None:
            with ops.hold(inner):
                normed = ops.norm(layer.norm, width, ops.rows) if pre else 0
                with ops.hold(normed):
                    ops.feed_forward(layer.ffn, width)
                    with ops.hold(size):
                        added = ops.norm(layer.norm, width, ops.rows) if post else 0
                    ops.touch(added or size, size)
        if layer.mixer is not None or layer.ffn is not None:
            with ops.hold(inner if layer.ffn is not None else 0):
                self._become(size)

    def mix(self, mixer: AttentionPlan | RetentionPlan) -> None:
        ops, width = self.ops, self.plan.hidden_size
        if isinstance(mixer, RetentionPlan):
            ops.retention(mixer, width)
            return
        slot = self.plan.slots[mixer.slot_idx]
        keys, kind = self.view(slot)
        mask = self._new_mask(mixer, slot, keys, kind)
        positions = keys * INT64 if slot.idx not in self.views else 0
        with ops.hold(positions):
            ops.attention(mixer, slot, width, keys, mask, blind=not mixer.sees_self)
        ops.live += mask and ops.tokens * keys + positions  # a mask keeps the positions that it was made from

    def _new_mask(self, mixer: AttentionPlan, slot: CacheSlot, keys: int, kind: str) -> int:
        """Bytes while a mask is made, 0 if one like it is there: one for each kind of view and of sight."""
        key = (slot.window, slot.sinks, kind, mixer.window, mixer.sinks, mixer.sees_self)
        if key in self.masks:
            return 0
        self.masks.add(key)
        copies = 2 if mixer.window is None else 4 if mixer.sinks else 3
        return copies * self.ops.tokens * keys

    def view(self, slot: CacheSlot) -> tuple[int, str]:
        if slot.idx in self.views:
            return self.views[slot.idx]
        length = self._live_len(slot)
        self.ops.touch(self._found(length))
        return length, "stored before"

    @staticmethod
    def _found(length: int) -> int:
        """Places, whether each is filled, and the positions in them."""
        return length * (2 * INT64 + 1)

    def _live_len(self, slot: CacheSlot) -> int:
        seen = self.cached + self.new_tokens
        return min(-(-seen // LIVE_BUCKET) * LIVE_BUCKET, slot.cache_len(self.context))

    def write(self, slot: CacheSlot, keep: bool) -> None:
        """New keys and values stay to the end of the pass; so does a view that joins them to older ones."""
        ops = self.ops
        writer = self.plan.layers[slot.writer_idx]
        normed = 0
        if not slot.projected and writer.placement != "post":
            normed = ops.norm(writer.norm, self.plan.hidden_size, ops.rows)
        with ops.hold(normed):
            chunks = ops.keys_values(slot, self.plan.hidden_size)
        self._replace(self.written, slot, chunks)
        if keep and (slot.window is None or ops.tokens == 1):
            length = self._live_len(slot)
            ops.touch(chunks)
            self._see(slot, length, "stored")
            ops.touch(self._found(length))
            self._replace(self.joined, slot, length * INT64)
        else:
            self._join(slot)
            if keep:
                self.ops.touch(slot.cache_len(self.context) * ops.batch * slot.elements_per_token // 2 * ops.element)

    def _join(self, slot: CacheSlot) -> None:
        """A view in memory of its own: what the slot held, all of a ring, and the new tokens behind it."""
        old = self._live_len(slot) if slot.window is None else slot.cache_len(self.context)
        length = old + self.new_tokens
        self._see(slot, length, "stored and new")
        size = self.ops.batch * length * slot.elements_per_token * self.ops.element + length * INT64
        self._replace(self.joined, slot, size)

    def _see(self, slot: CacheSlot, length: int, kind: str) -> None:
        self.views[slot.idx] = length, kind

    def _replace(self, kept: dict[int, int], slot: CacheSlot, size: int) -> None:
        """The new is there before the old is gone."""
        self._keep(size)
        self.ops.live -= kept.pop(slot.idx, 0)
        kept[slot.idx] = size

    def iterate(self, group: IterationGroup) -> None:
        """All passes but the last leave only the late slots' keys and values."""
        ops = self.ops
        late = sum(ops.rows * self.plan.slots[idx].elements_per_token * ops.element for idx in group.late_slots)
        with ops.hold(late):
            if group.num_passes > 1:
                self._trial().once(group, keep=False, late=late)
            self.once(group, keep=True, late=late)

    def _trial(self) -> "_Walk":
        return replace(self, views=dict(self.views), written={}, joined={}, masks=set())

    def once(self, group: IterationGroup, keep: bool, late: int) -> None:
        """One pass from the same hidden states, which stay alive."""
        ops, before = self.ops, self.ops.live
        start, self.hidden = self.hidden, 0
        for idx in group.late_slots:
            self._join(self.plan.slots[idx])
        for step in group.steps:
            if step.op == "write":
                self.write(self.plan.slots[step.idx], keep)
            else:
                self.step(step)
        ops.touch(late)
        if keep:
            ops.live -= start
        else:
            ops.live = before
            self.hidden = start
