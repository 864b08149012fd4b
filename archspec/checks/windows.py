"""E05xx: no reader looks further back than its cache keeps."""

from collections.abc import Iterator
from dataclasses import dataclass

from archspec.checks.context import Context, Readers, cache_name
from archspec.diagnostics import Diagnostic, Edit, Help, Label, zero_based
from archspec.graph.layer_graph import CacheNode
from archspec.source import Span


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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
    for readers in context.readers:
        cache, asked = readers.cache, readers.layers[0].window
        if cache is None or cache.window is None or (asked is not None and asked <= cache.window):
            continue
        if context.sure(readers.idx, "window") and context.sure(cache.statement, "window"):
            yield _too_far(context, readers, cache, cache.window)


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
