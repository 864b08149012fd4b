"""E025x: layers that read later caches are iterated, and nothing else is."""

from collections.abc import Iterator

from archspec.checks.context import Context, cache_name
from archspec.diagnostics import Diagnostic, Edit, Help, Label
from archspec.graph.iteration import Cycle, covers, touches
from archspec.graph.lower import place
from archspec.source import Span
from archspec.spec.model import IterateStatement


class NothingToIterate(Diagnostic):
    """An `iterate` over layers that read no later cache.

    What: passes are needed only where a layer reads what a later one writes.
    Why it is bad: the statement would cost nothing and do nothing; the layout is not what it seems.
    Example:
        layers 1 attend
        layers 2-4 cross-attend to cache@1
        iterate layers 1-4: 7 forward, 2 backward
    Mended:
        layers 1 attend
        layers 2-4 cross-attend to cache@1
    """

    code = "E0251"
    layers: str
    removal: Edit

    def message(self) -> str:
        return f"nothing to iterate: no layer of {self.layers} reads a cache that is written later"

    def helps(self) -> tuple[Help, ...]:
        return (Help("leave this statement out", self.removal),)


class IterationTooNarrow(Diagnostic):
    """An `iterate` that leaves out a reader or the layer it reads.

    What: all layers from the first reader to the layer that writes the cache take part in every pass.
    Why it is bad: what stands outside would not see the passes' keys and values.
    Example:
        layers 1, 4 attend
        layers 2-3 cross-attend to cache@4
        iterate layers 2-3: 7 forward, 2 backward
    Mended:
        layers 1, 4 attend
        layers 2-3 cross-attend to cache@4
        iterate layers 2-4: 7 forward, 2 backward
    Source: LCKV, arXiv 2405.10637, section 2.2.
    """

    code = "E0252"
    layers: str
    needed: str
    reader: int
    cache: str
    reader_span: Span

    def message(self) -> str:
        return f"`iterate layers {self.layers}` must cover layers {self.needed}"

    def remark(self) -> str:
        return f"does not reach from layer {self.reader} to {self.cache}"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.reader_span, f"layer {self.reader} reads {self.cache} before it is written"),)

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"write `{self.needed}`", Edit(self.span, self.needed)),)


class TooFewPasses(Diagnostic):
    """Passes that cannot do what an iteration is for.

    What: `forward` passes run without gradient and let the keys and values settle, `backward` passes are trained
    through. At least one of each: pass 1 reads zeros, and without a backward pass nothing is learnt.
    Why it is bad: the readers would see zeros, or the weights get no gradient.
    Example:
        layers 1, 4 attend
        layers 2-3 cross-attend to cache@4
        iterate layers 2-4: 0 forward, 2 backward
    Mended:
        layers 1, 4 attend
        layers 2-3 cross-attend to cache@4
        iterate layers 2-4: 7 forward, 2 backward
    Source: LCKV, arXiv 2405.10637, section 2.2, uses 7 and 2.
    """

    code = "E0253"
    which: str

    def message(self) -> str:
        return f"an iteration needs at least 1 {self.which} pass"

    def helps(self) -> tuple[Help, ...]:
        return (Help("LCKV uses `7 forward, 2 backward`"),)


class IterationsInterleave(Diagnostic):
    """Two `iterate` statements for layers that depend on one another.

    What: readers and sources whose ranges overlap settle together, in the same passes.
    Why it is bad: neither statement alone says how many passes the group takes.
    Example:
        layers 1 cross-attend to cache@3
        layers 2 cross-attend to cache@4
        layers 3-4 attend
        iterate layers 1-2: 7 forward, 2 backward
        iterate layers 3-4: 3 forward, 1 backward
    Mended:
        layers 1 cross-attend to cache@3
        layers 2 cross-attend to cache@4
        layers 3-4 attend
        iterate layers 1-4: 7 forward, 2 backward
    """

    code = "E0254"
    layers: str
    count: int
    first: Span
    passes: int

    def message(self) -> str:
        return f"layers {self.layers} depend on one another, but two statements iterate parts of them"

    def remark(self) -> str:
        return "the second of them"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.first, "the first"),)

    def helps(self) -> tuple[Help, ...]:
        cost = f"{self.passes} passes x {self.count} layers = {self.passes * self.count} layer runs"
        return (Help(f"write one `iterate layers {self.layers}: ...`; with the first one's passes it costs {cost}"),)


def check(context: Context) -> Iterator[Diagnostic]:
    """Each statement by itself, then each group of layers against the statements that touch it."""
    statements = [(idx, s) for idx, s in enumerate(context.spec.statements) if isinstance(s, IterateStatement)]
    for idx, statement in statements:
        yield from _alone(context, idx, statement)
    for cycle in context.cycles:
        touching = [(idx, s) for idx, s in statements if touches(context.spec, s, cycle)]
        runs_forward = all(_ends(context, statement)[0] <= _ends(context, statement)[1] for _, statement in touching)
        covered = any(covers(context.spec, statement, cycle) for _, statement in touching)
        if touching and runs_forward and (not covered or len(touching) > 1):
            yield _uncovered(context, cycle, touching)


def _alone(context: Context, idx: int, statement: IterateStatement) -> Iterator[Diagnostic]:
    places = context.places(idx)
    for which in ("forward", "backward"):
        if getattr(statement, which) < 1:
            yield TooFewPasses(span=places.settings[which], which=which)
    first, last = _ends(context, statement)
    if not 1 <= first <= last:
        return  # reported as a range
    if not any(touches(context.spec, statement, cycle) for cycle in context.cycles) and not context.misses("layers"):
        whole = places.whole
        shown = f"{statement.first}-{statement.last}"
        yield NothingToIterate(span=whole, layers=shown, removal=Edit(whole, ""))


def _ends(context: Context, statement: IterateStatement) -> tuple[int, int]:
    return place(context.spec, statement.first), place(context.spec, statement.last)


def _uncovered(context: Context, cycle: Cycle, touching: list[tuple[int, IterateStatement]]) -> Diagnostic:
    needed = f"{cycle.layers[0]}-{cycle.layers[-1]}"
    if len(touching) > 1:
        (first, statement), (second, _) = touching[:2]
        return IterationsInterleave(
            span=context.places(second).whole,
            layers=needed,
            count=len(cycle.layers),
            first=context.places(first).whole,
            passes=statement.forward + statement.backward,
        )
    idx, statement = touching[0]
    number, key = cycle.late[0]
    return IterationTooNarrow(
        span=context.places(idx).items[0],
        layers=f"{statement.first}-{statement.last}",
        needed=needed,
        reader=number,
        cache=cache_name(context.graph.caches[key]),
        reader_span=context.source_span(context.graph.layers[number].statement),
    )
