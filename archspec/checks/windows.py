"""E05xx: no reader looks further back than its cache keeps."""

from collections.abc import Iterator

from archspec.checks.context import Context, Readers, cache_name
from archspec.diagnostics import Diagnostic, Edit, Help, Label, zero_based
from archspec.graph.layer_graph import CacheNode
from archspec.source import Span


class ReaderLooksTooFar(Diagnostic):
    """A reader that looks further back than the cache keeps.

    What: a windowed owner keeps the last W positions, the current one included. A reader without a window, or with a
    larger one, asks for positions that are gone.
    Why it is bad: the reader would silently see fewer tokens than its spec says.
    Example:
        layers 1-2 attend, window 1024
        layers 3-4 cross-attend to cache@2
    Mended:
        layers 1-2 attend, window 1024
        cache@2: kv heads 4 x 16
        layers 3-4 cross-attend to cache@2
    """

    code = "E0501"
    readers: str
    cache: str
    layer: int
    kept: int
    asked: int | None
    cache_span: Span
    edit: Edit
    full_cost: str
    projected: bool

    def message(self) -> str:
        verb = "" if self.readers.startswith("layers") else "s"
        asked = "everything" if self.asked is None else f"the last {self.asked}"
        return f"{self.cache} keeps the last {self.kept} tokens, but {self.readers} look{verb} back over {asked}"

    def remark(self) -> str:
        return f"would silently see {self.kept} tokens"

    def labels(self) -> tuple[Label, ...]:
        window = f"window {self.kept}, the current token and {self.kept - 1} before it"
        return (Label(self.cache_span, f"{zero_based(self.layer)}: {window}"),)

    def helps(self) -> tuple[Help, ...]:
        narrow = Help(f"write `window {self.kept}` for the readers", self.edit)
        if self.projected:
            return (narrow, Help(f"or keep everything: leave the window of {self.cache} out{self.full_cost}"))
        return (
            narrow,
            Help(f"or keep everything: a projection `{self.cache}: kv heads ...` without a window{self.full_cost}"),
        )


class SinksNotKept(Diagnostic):
    """A reader of more sinks than the cache keeps.

    What: `sinks S` keeps the first S positions beside the window.
    Why it is bad: the reader would look for first positions that the ring has overwritten.
    Example:
        layers 1-2 attend, window 1024
        layers 3-4 cross-attend to cache@2, window 1024, sinks 4
    Mended:
        layers 1-2 attend, window 1024, sinks 4
        layers 3-4 cross-attend to cache@2, window 1024, sinks 4
    Source: StreamingLLM, arXiv 2309.17453.
    """

    code = "E0407"
    readers: str
    cache: str
    asked: int
    kept: int
    cache_span: Span

    def message(self) -> str:
        kept = f"{self.kept} sinks" if self.kept else "no sinks"
        return f"{self.readers} look for the first {self.asked} tokens, but {self.cache} keeps {kept}"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.cache_span, f"{self.cache} is declared here"),)

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"write `sinks {self.asked}` where {self.cache} is declared"),)


class KeepsTooMuch(Diagnostic):
    """A cache that keeps more than any of its readers looks at.

    What: a projection without a window keeps every position, but all that read it have windows.
    Why it is bad: memory grows with the text for positions that nobody sees; or a reader lost its `no window`.
    Example:
        layers 1-2 attend
        cache@2: kv heads 4 x 16
        layers 3-4 cross-attend to cache@2, window 512
    Mended:
        layers 1-2 attend
        cache@2: kv heads 4 x 16, window 512
        layers 3-4 cross-attend to cache@2, window 512
    """

    code = "W0502"
    severity = "warning"
    cache: str
    kept: int | None
    widest: int
    readers: str
    reader_span: Span
    token_bytes: int
    edit: Edit

    def message(self) -> str:
        kept = "all tokens" if self.kept is None else f"the last {self.kept} tokens"
        return f"{self.cache} keeps {kept}, but no reader looks further back than {self.widest}"

    def remark(self) -> str:
        if not self.token_bytes:
            return ""
        beyond = f"each token beyond the last {self.widest}"
        return f"{self.token_bytes} bytes in bfloat16 for {beyond}, for nothing"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.reader_span, f"{self.readers}: window {self.widest}"),)

    def helps(self) -> tuple[Help, ...]:
        return (
            Help(f"write `window {self.widest}` for {self.cache}", self.edit),
            Help("or `no window` for the readers that shall see everything"),
        )


def check(context: Context) -> Iterator[Diagnostic]:
    """Compare each reader's window and sinks with what its cache keeps."""
    for readers in context.readers:
        cache, layer = readers.cache, readers.layers[0]
        if cache is not None and cache.window is not None and layer.sinks > cache.sinks:
            if context.sure(readers.idx, "window") and context.sure(cache.statement, "window"):
                yield SinksNotKept(
                    span=context.places(readers.idx).settings.get("window", context.source_span(readers.idx)),
                    readers=readers.shown,
                    cache=cache_name(cache),
                    asked=layer.sinks,
                    kept=cache.sinks,
                    cache_span=context.spans.setting(cache.statement, "window"),
                )
    yield from _kept_for_nobody(context)
    for readers in context.readers:
        cache, asked = readers.cache, readers.layers[0].window
        if cache is None or cache.window is None or (asked is not None and asked <= cache.window):
            continue
        if context.sure(readers.idx, "window") and context.sure(cache.statement, "window"):
            yield _too_far(context, readers, cache, cache.window)


def _kept_for_nobody(context: Context) -> Iterator[Diagnostic]:
    """Projections only: what a layer's own K/V keep, the layer itself looks at."""
    by_cache: dict[str, list[Readers]] = {}
    for readers in context.readers:
        if readers.cache is not None and readers.cache.projected:
            by_cache.setdefault(readers.cache.key, []).append(readers)
    if context.misses("layers", "cache"):
        return
    for group in by_cache.values():
        cache = group[0].cache
        assert cache is not None
        windows = [(readers.layers[0].window, readers) for readers in group]
        stated = [(window + readers.layers[0].sinks, readers) for window, readers in windows if window is not None]
        sure = all(context.sure(readers.idx, "window") for readers in group) and context.sure(cache.statement, "window")
        if not sure or len(stated) < len(group):
            continue
        places, span = context.places(cache.statement), context.places(cache.statement).settings.get("window")
        widest, readers = max(stated, key=lambda pair: pair[0])
        sinks = max(readers.layers[0].sinks for readers in group)
        if sinks or (cache.window is not None and cache.window <= widest):
            continue
        end = Span(places.whole.source, places.whole.end, places.whole.end)
        heads = cache.kv_heads
        comma = "," if places.settings else ""
        yield KeepsTooMuch(
            span=span or places.head,
            cache=cache_name(cache),
            kept=cache.window,
            widest=widest,
            readers=readers.shown,
            reader_span=context.spans.setting(readers.idx, "window"),
            token_bytes=4 * heads.count * heads.head_dim if heads and heads.head_dim else 0,
            edit=Edit(span or end, f"window {widest}" if span else f"{comma} window {widest}"),
        )


def _too_far(context: Context, readers: Readers, cache: CacheNode, kept: int) -> ReaderLooksTooFar:
    places, heads = context.places(readers.idx), cache.kv_heads
    stated = places.settings.get("window")
    end = Span(places.whole.source, places.whole.end, places.whole.end)
    elements = 2 * heads.count * heads.head_dim if heads and heads.head_dim else None
    return ReaderLooksTooFar(
        span=stated or context.source_span(readers.idx),
        readers=readers.shown,
        cache=cache_name(cache),
        layer=cache.layer,
        kept=kept,
        asked=readers.layers[0].window,
        cache_span=context.spans.setting(cache.statement, "window"),
        edit=Edit(stated, f"window {kept}") if stated else Edit(end, f", window {kept}"),
        full_cost=f", {2 * elements} bytes a token in bfloat16" if elements else "",
        projected=cache.projected,
    )
