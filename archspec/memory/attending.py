"""The tensors that attention allocates between queries and outputs: as `backends`, `near`, `past` of the runtime do.

Every function is called with queries, keys and values alive and counted, and returns its output, which is not counted.

Assumptions: not compiled, CPU kernels of torch 2.13. Attention is the flash kernel, which takes a mask as numbers of
the model's dtype, unless queries and values differ in width (sinks) or scores are capped.

Legend: B batch, S query tokens, T keys in a view.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from archspec.memory.operations import FLOAT32, INT64, Operations
from archspec.plan import AttentionPlan, CacheSlot

SINK_DIMS = 8
"""Dimensions that queries and keys grow by for a sink."""
MOST_QUERIES, FEWEST_QUERIES = 256, 64
"""Bounds of the queries of a block that has a window; between them it is an eighth of the window."""
FAR_SCORES = 1 << 22
"""Scores of one head that there is a mask for at a time."""


class Seen(NamedTuple):
    """What readers see of a slot: how many keys, and of their order what `View` says too."""

    keys: int
    front: int | None = None
    sinks: int = 0
    tail: bool = False


class Output(NamedTuple):
    """Bytes of an output, and whether the heads of a token lie together, so that joining them is no copy."""

    nbytes: int
    joined: bool


@dataclass(frozen=True)
class Call:
    """Queries (B, heads, S, size) over keys (B, kv_heads, T, size) and values of `head_dim`."""

    batch: int
    tokens: int
    keys: int
    heads: int
    kv_heads: int
    size: int
    head_dim: int
    softcap: bool
    sink_logits: bool
    scattered: bool = False
    """The heads of a query lie apart, so that products copy the queries."""
    most_places: int | None = None
    """Bound of S x T, where T decides S."""

    @property
    def places(self) -> int:
        """Of a mask."""
        return self.tokens * self.keys if self.most_places is None else self.most_places

    @property
    def queries(self) -> int:
        return self.batch * self.heads * self.tokens * self.size

    @property
    def output(self) -> int:
        return self.batch * self.heads * self.tokens * self.head_dim

    @property
    def scores(self) -> int:
        return self.batch * self.heads * self.places

    @property
    def of_keys(self) -> int:
        """Elements of the keys."""
        return self.batch * self.kv_heads * self.keys * self.size


def attend(ops: Operations, mixer: AttentionPlan, slot: CacheSlot, seen: Seen, size: int) -> Output:
    """One layer's attention; queries are `size` wide."""
    softcap, sink_logits = mixer.softcap is not None, mixer.sink_logits
    heads = mixer.num_heads, slot.num_kv_heads
    call = Call(ops.batch, ops.tokens, seen.keys, *heads, size, mixer.head_dim, softcap, sink_logits)
    if size == mixer.head_dim:
        return _by_structure(ops, call, mixer, seen)
    apart = call.of_keys * ops.element
    ops.touch(apart, apart)  # with sinks hidden, and with all others; then joined
    with ops.hold(apart):
        return _by_structure(ops, call, mixer, seen)


def _by_structure(ops: Operations, call: Call, mixer: AttentionPlan, seen: Seen) -> Output:
    window, front = mixer.window, seen.front
    if call.tokens > 1 and window is not None and front is not None and seen.sinks in (0, mixer.sinks):
        if front == 0 or front >= window - 1:
            return _near(ops, call, mixer, window, seen)
    if call.tokens > 1 and front == 0 and window is None:
        if mixer.sees_self:
            return _kernel(ops, call, mask=0)
        # One place to the right; then a row of zeros in front.
        rest = replace(call, tokens=call.tokens - 1, keys=call.keys - 1)
        out = _kernel(ops, rest, mask=0).nbytes
        ops.touch(out, call.output * ops.element)
        return Output(call.output * ops.element, joined=False)
    if call.tokens > 1 and front is None:
        plain = window is None and mixer.sees_self and not call.softcap and call.size == call.head_dim
        return _past(ops, call) if plain and seen.tail else _far(ops, call, mixer)
    return _masked(ops, call, mixer)


def _masked(ops: Operations, call: Call, mixer: AttentionPlan) -> Output:
    window = mixer.window
    ops.touch((2 if window is None else 4 if mixer.sinks else 3) * call.places)  # on the way to one mask
    with ops.hold(call.places):
        return _kernel(ops, call, call.places)


def _past(ops: Operations, call: Call) -> Output:
    """Attention to what is before the queries and to their own keys, put together in float32 or wider."""
    out, wide = call.output * ops.element, call.output * ops.wide
    sums = call.batch * call.heads * call.tokens * FLOAT32
    with ops.hold(2 * out, 3 * sums):
        ops.touch(out, wide)
        ops.touch(2 * wide)
        ops.touch(wide, ops.narrowed(call.output))
    return Output(out, joined=True)


def _far(ops: Operations, call: Call, mixer: AttentionPlan) -> Output:
    """A block of queries at a time, into an output for all."""
    size, out = max(1, FAR_SCORES // call.keys), call.output * ops.element
    with ops.hold(out):
        if call.tokens <= size:
            _masked(ops, call, mixer)
        else:
            # As large as a block may be, so that more keys cost more.
            most = max(FAR_SCORES, call.keys)
            _masked(ops, replace(call, tokens=size, most_places=most, scattered=True), mixer)
    return Output(out, joined=True)


def turn_len(window: int) -> int:
    """Queries of a block."""
    return max(FEWEST_QUERIES, min(MOST_QUERIES, window // 8))


def _near(ops: Operations, call: Call, mixer: AttentionPlan, window: int, seen: Seen) -> Output:
    """The same for a window: a block looks at the keys near it, which are copied only to be put behind sinks."""
    size, out = turn_len(window), call.output * ops.element
    whole, left = divmod(call.tokens, size)
    with ops.hold(out):
        for tokens, begin in ((size, (whole - 1) * size), (left, whole * size)):
            if tokens == 0 or begin < 0:
                continue
            own = seen.sinks + (seen.front or 0) + begin
            first = max(seen.sinks, own - window + 1)
            apart = 0 < mixer.sinks < first
            near = own + tokens - (first if apart or not mixer.sinks else 0) + (mixer.sinks if apart else 0)
            of_heads = call.batch * call.kv_heads * near * ops.element
            with ops.hold(of_heads * (call.size + call.head_dim) + near * INT64 if apart else 0):
                block = replace(call, tokens=tokens, keys=near, scattered=call.tokens > size)
                _masked(ops, block, mixer)
    return Output(out, joined=True)


def _kernel(ops: Operations, call: Call, mask: int) -> Output:
    """From queries, keys and a mask of so many places to the output."""
    out = call.output * ops.element
    if call.softcap or (call.sink_logits and call.tokens == 1):
        _products(ops, call, mask)
        return Output(out, joined=call.tokens == 1)
    if call.sink_logits:
        _with_sink(ops, call, mask)
        return Output(out, joined=False)
    # One query row leaves the heads of a group together; several have K/V repeated for every head where scores are
    # products.
    grouped = call.kv_heads != call.heads
    if call.size != call.head_dim:
        _plain_products(ops, call, mask, repeated=grouped and call.tokens > 1)
        return Output(out, joined=call.tokens == 1)
    sums = call.batch * call.heads * call.tokens * FLOAT32
    ops.touch(mask * ops.element, out, sums)
    if call.tokens == 1 and grouped and call.kv_heads > 1:
        ops.touch(out, out)
    return Output(out, joined=True)


def _plain_products(ops: Operations, call: Call, mask: int, repeated: bool) -> None:
    """torch's products, in float32 or wider: scaled queries and keys, scores with and without mask."""
    of_keys = call.of_keys * (call.heads // call.kv_heads if repeated else 1)
    of_values = of_keys * call.head_dim // call.size
    kept = (of_keys + of_values if repeated else 0) + call.queries
    casts = ops.cast(call.queries + call.of_keys + call.of_keys * call.head_dim // call.size)
    with ops.hold(mask * ops.element, kept * ops.wide, casts):
        ops.touch((of_keys + call.scores) * ops.wide)
        ops.touch(2 * call.scores * ops.wide)


def _with_sink(ops: Operations, call: Call, mask: int) -> None:
    """Queries, keys and values with room for one key more: widened first, then put together with the sink's."""
    front = 0 if mask else 1
    size = call.size + SINK_DIMS
    rows = call.batch * call.heads * (call.tokens + front) * ops.element
    of_keys = call.batch * call.kv_heads * (call.keys + 1) * size * ops.element
    ops.touch(rows * call.size, rows * size)
    with ops.hold(rows * size):
        ops.touch(2 * of_keys)
        hidden = mask + mask // call.keys
        sums = call.batch * call.heads * (call.tokens + front) * FLOAT32
        with ops.hold(2 * of_keys, hidden):
            ops.touch(hidden * ops.element, rows * size, sums)


def _products(ops: Operations, call: Call, mask: int) -> None:
    """All scores at once: scaled, wide, divided by the cap, the tanh of it; then capped, masked and softmax.

    The heads of a group are rows beside their queries, so that no K/V is repeated.
    """
    scores, capped = call.scores, 2 if call.softcap else 0
    with ops.hold(call.queries * ops.element if call.scattered else 0):
        ops.touch(2 * scores * ops.element)
        ops.touch(scores * ops.element, ops.cast(scores), capped * scores * ops.wide)
        ops.touch(2 * scores * ops.wide, mask)
        ops.touch(2 * scores * ops.wide, ops.narrowed(scores))
        ops.touch(scores * (ops.wide + ops.element), call.output * ops.element)
