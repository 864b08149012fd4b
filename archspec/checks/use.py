"""E09xx: what is declared is used, and assertions hold."""

from collections.abc import Iterator

from archspec.checks.context import Context, cache_name
from archspec.diagnostics import Diagnostic, Edit, Help, Label
from archspec.source import Span
from archspec.spec.model import DECAYS, LayersStatement, PrefillExitStatement


class UnreadCache(Diagnostic):
    """A projection that no layer reads.

    What: a `cache` statement costs weights, and memory for every token.
    Why it is bad: it does nothing else; usually a reader names another cache than was meant.
    Example:
        layers 1-2 attend
        cache main@2: kv heads 2
        layers 3-4 cross-attend to cache@2
    Mended:
        layers 1-2 attend
        cache main@2: kv heads 2
        layers 3-4 cross-attend to cache main
    """

    code = "W0901"
    severity = "warning"
    cache: str
    token_bytes: int

    def message(self) -> str:
        cost = f": it costs {self.token_bytes} bytes a token in bfloat16 for nothing" if self.token_bytes else ""
        return f"no layer reads `{self.cache}`{cost}"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"read it with `cross-attend to {self.cache}`, or leave the statement out"),)


class PrefillExitElsewhere(Diagnostic):
    """A prefill exit that the layer graph does not have.

    What: prefill may stop computing all positions after the last cache or state that every prompt token must write.
    `prefill exit after cache@2` asserts where that is.
    Why it is bad: the speed that the spec promises would not be there.
    Example:
        layers 1-2, 4 attend
        layers 3 cross-attend to cache@2
        prefill exit after cache@2
    Mended:
        layers 1-2, 4 attend
        layers 3 cross-attend to cache@2
        prefill exit after cache@4
    Source: YOCO, arXiv 2405.05254, section 2.3.
    """

    code = "E0903"
    asserted: str
    exists: bool
    derived: str
    derived_span: Span | None
    is_cache: bool
    too_early: bool

    def message(self) -> str:
        if not self.exists:
            return f"prefill cannot exit after {self.asserted}: that layer has no keys and values"
        if self.too_early:
            return f"prefill cannot exit after {self.asserted}: {self.derived} must see every prompt token"
        return f"prefill exits earlier than after {self.asserted}: {self.derived} is the last to see every prompt token"

    def labels(self) -> tuple[Label, ...]:
        if self.derived_span is None:
            return ()
        return (Label(self.derived_span, f"{self.derived} is written for every token"),)

    def helps(self) -> tuple[Help, ...]:
        if self.derived_span is None:
            return (Help("leave the statement out: nothing is written for every prompt token"),)
        if not self.is_cache:
            return (Help(f"the exit is after {self.derived}, which is no cache: leave the statement out"),)
        return (Help(f"the exit is after {self.derived}", Edit(self.span, self.derived)),)


def check(context: Context) -> Iterator[Diagnostic]:
    """Caches without readers, then the asserted exit against the derived one."""
    if context.misses("layers", "cache"):
        return
    yield from _unread(context)
    if _is_whole(context):
        for idx, statement in enumerate(context.spec.statements):
            if isinstance(statement, PrefillExitStatement):
                yield from _exit(context, idx, statement)


def _unread(context: Context) -> Iterator[Diagnostic]:
    """Judged by what statements say, not by which layers they got: a broken range does not leave a cache unread."""
    read: set[str] = set()
    for idx, statement in enumerate(context.spec.statements):
        if not isinstance(statement, LayersStatement) or (
            statement.source is None and not context.doubts(idx, "mixer")
        ):
            continue
        if statement.source is not None and statement.source.layer == "below":
            read.update(r.cache.key for r in context.readers_by_statement.get(idx, ()) if r.cache is not None)
            continue
        key = None if statement.source is None else context.references.cache(statement.source)
        if key is None:
            return  # who reads what is unknown, and was reported
        read.add(key)
    for cache in context.graph.caches.values():
        if cache.projected and cache.key not in read and 1 <= cache.layer <= context.spec.num_layers:
            heads = cache.kv_heads if context.sure(cache.statement, "kv_heads") else None
            token_bytes = 4 * heads.count * (heads.head_dim or 0) if heads is not None else 0
            yield UnreadCache(span=context.head(cache.statement), cache=cache_name(cache), token_bytes=token_bytes)


def _is_whole(context: Context) -> bool:
    """Whether every layer is known, once, with its cache: the exit follows from all of them."""
    graph, statements = context.graph, range(len(context.spec.statements))
    if len(graph.layers) < context.spec.num_layers or not context.total_known:
        return False
    if any(context.doubts(idx, doubt) for idx in statements for doubt in ("mixer", "ranges")):
        return False
    declared = sum(len(numbers) for ranges in context.unfolded.values() for numbers in ranges)
    readers = sum(layer.mixer in ("attend", "cross-attend") for layer in graph.layers.values())
    return declared == len(graph.layers) and readers == len(graph.sources)


def _exit(context: Context, idx: int, statement: PrefillExitStatement) -> Iterator[Diagnostic]:
    graph, after = context.graph, statement.after
    key = context.references.cache(after)
    if key is None and context.references.place(after) not in graph.layers:
        return
    if context.references.candidates(after):
        return
    writes = [((c.layer, c.projected), cache_name(c), c.statement, True) for c in graph.caches.values()]
    writes += [
        ((layer.number, False), f"layer {layer.number}'s state", layer.statement, False)
        for layer in graph.layers.values()
        if layer.mixer in DECAYS
    ]
    last, derived, owner, is_cache = max(writes, default=((0, False), "", None, False))
    here = (graph.caches[key].layer, graph.caches[key].projected) if key is not None else None
    if here != last:
        yield PrefillExitElsewhere(
            span=context.source_span(idx),
            asserted=str(after),
            exists=here is not None,
            derived=derived,
            derived_span=None if owner is None else context.head(owner),
            is_cache=is_cache,
            too_early=here is not None and here < last,
        )
