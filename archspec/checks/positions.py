"""E04xx: queries and the keys they are compared with know the same positions."""

from collections.abc import Iterator

from archspec.checks.context import Context, Readers, cache_name
from archspec.diagnostics import Diagnostic, Help, Label, zero_based
from archspec.source import Span
from archspec.spec.elaborate import HEADER
from archspec.spec.format import rope_text
from archspec.spec.model import LayersStatement, Rope
from archspec.spec.spans import without


class _RopeConflict(Diagnostic):
    cache: str
    keys: str
    queries: str
    cache_span: Span

    layer: int

    def remark(self) -> str:
        return f"queries with `{self.queries}`"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.cache_span, f"{zero_based(self.layer)}: keys in {self.cache} with `{self.keys}`"),)

    def helps(self) -> tuple[Help, ...]:
        text = f"leave `{self.span.text}` out: a reader rotates its queries as the cache's keys were rotated"
        return (Help(text, without(self.span)),)


class RopeAnglesDiffer(_RopeConflict):
    """Queries rotated by other angles than the keys.

    What: the base, the share of rotated dimensions or the scaling differ between a reader and its cache.
    Why it is bad: scores would compare unlike angles; the model trains badly and nobody sees why.
    Example:
        layers 1-2 attend, rope 10000
        layers 3-4 cross-attend to cache@2, rope 1000000
    Mended:
        layers 1-2 attend, rope 10000
        layers 3-4 cross-attend to cache@2
    """

    code = "E0401"

    def message(self) -> str:
        return (
            f"keys in {self.cache} were rotated with `{self.keys}`; queries with `{self.queries}` compare unlike angles"
        )


class RopeOnOneSide(_RopeConflict):
    """Rotated keys and queries that are not, or the reverse.

    What: a cache keeps its keys as they were rotated when they were written.
    Why it is bad: a rotated key compared with a plain query gives a score that depends on the position of one of them.
    Example:
        layers 1-2 attend, rope 10000
        layers 3-4 cross-attend to cache@2, no rope
    Mended:
        layers 1-2 attend, rope 10000
        layers 3-4 cross-attend to cache@2
    """

    code = "E0402"

    def message(self) -> str:
        one, other = ("not rotated", "rotated") if self.keys == "no rope" else ("rotated", "not rotated")
        return f"keys in {self.cache} are {one}, but the reader's queries are {other}"


class RopeLayoutDiffers(_RopeConflict):
    """Interleaved against half-split rotation.

    What: pairs (2i, 2i + 1) on one side, (i, i + d / 2) on the other.
    Why it is bad: the angles belong to different dimensions, so that their difference says nothing about distance.
    Example:
        layers 1-2 attend, rope interleaved(10000)
        layers 3-4 cross-attend to cache@2, rope 10000
    Mended:
        layers 1-2 attend, rope interleaved(10000)
        layers 3-4 cross-attend to cache@2
    """

    code = "E0403"

    def message(self) -> str:
        return f"keys in {self.cache} and the reader's queries rotate different pairs of dimensions"


class NormOnOneSide(Diagnostic):
    """Normed queries over keys that are not, or the reverse.

    What: `qk-norm` of a cache norms its keys where they are made, `qk-norm` of a reader norms its queries. The two are
    stated apart, and only one of them is here.
    Why it is bad: norms keep scores in bounds together; with one side unbounded, training may diverge. Published models
    norm both or neither.
    Example:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2, qk-norm
    Mended:
        layers 1-2 attend, qk-norm
        layers 3-4 cross-attend to cache@2, qk-norm
    Source: query-key normalisation, arXiv 2010.04245.
    """

    code = "W0406"
    severity = "warning"
    readers: str
    cache: str
    layer: int
    cache_span: Span
    normed: bool
    """The keys are."""

    def message(self) -> str:
        if self.normed:
            return f"keys in {self.cache} are normed, but the queries of {self.readers} are not"
        return f"{self.readers} norm{_verb(self.readers)} queries, but the keys in {self.cache} are not normed"

    def labels(self) -> tuple[Label, ...]:
        keys = "normed" if self.normed else "as they are"
        return (Label(self.cache_span, f"{zero_based(self.layer)}: keys in {self.cache} {keys}"),)

    def helps(self) -> tuple[Help, ...]:
        if self.normed:
            return (Help("write `qk-norm` for the readers as well"),)
        return (Help(f"write `qk-norm` where the keys of {self.cache} are made as well, or leave it out here"),)


def _verb(layers: str) -> str:
    return "" if layers.startswith("layers") else "s"


class NoPositions(Diagnostic):
    """A model that never says how it knows positions.

    What: neither the header nor any statement has `rope` or `no rope`, nor the header `positions`.
    Why it is bad: attention without positions is a choice that should be made, not an omission.
    Example:
        model m {
          layers 4, width 64, vocab 100, heads 4 x 16, ffn swiglu(128)
          layers 1-4 attend
        }
    Mended:
        model m {
          layers 4, width 64, vocab 100, heads 4 x 16, ffn swiglu(128), rope 10000
          layers 1-4 attend
        }
    """

    code = "W0408"
    severity = "warning"
    level: str = ""

    def message(self) -> str:
        return f"no layer{self.level} knows positions: `rope` is stated nowhere"

    def helps(self) -> tuple[Help, ...]:
        return (Help("write `rope 10000` in the header, or `no rope` if this is meant"),)


_PAIRS = {"half": "halves", "proportional": "halves", "interleaved": "pairs", "interleaved-linspace": "pairs"}
"""Which two dimensions a kind of rope rotates together."""


def check(context: Context) -> Iterator[Diagnostic]:
    """Ropes that readers state for themselves, against those of their caches."""
    for readers in context.readers:
        idx, stated, cache = readers.idx, readers.statement.settings.rope, readers.cache
        if stated is None or cache is None or not context.sure(idx, "rope"):
            continue
        if stated != cache.rope and context.sure(cache.statement, "rope"):
            yield _conflict(stated, cache.rope)(
                span=context.spans.setting(idx, "rope"),
                cache=cache_name(cache),
                layer=cache.layer,
                keys=rope_text(cache.rope),
                queries=rope_text(stated),
                cache_span=context.spans.setting(cache.statement, "rope"),
            )
    for readers in context.readers:
        yield from _norms(context, readers)
    yield from _no_positions(context)


def _norms(context: Context, readers: Readers) -> Iterator[Diagnostic]:
    idx, cache = readers.idx, readers.cache
    if cache is None or not context.sure(idx, "qk_norm") or not context.sure(cache.statement, "qk_norm"):
        return
    normed = cache.k_norm.kind != "none"
    if normed != (readers.layers[0].qk_norm.kind != "none"):
        own = context.places(idx).settings
        yield NormOnOneSide(
            span=own.get("qk_norm", context.source_span(idx)),
            readers=readers.shown,
            cache=cache_name(cache),
            layer=cache.layer,
            cache_span=context.spans.setting(cache.statement, "qk_norm"),
            normed=normed,
        )


def _conflict(queries: Rope, keys: Rope) -> type[_RopeConflict]:
    if "none" in (queries.kind, keys.kind):
        return RopeOnOneSide
    return RopeAnglesDiffer if _PAIRS[queries.kind] == _PAIRS[keys.kind] else RopeLayoutDiffers


def _no_positions(context: Context) -> Iterator[Diagnostic]:
    if not {"rope", "positions"}.isdisjoint(context.spans.settings):
        return
    if any("rope" in places.settings for places in context.spans.statements):
        return
    attends = any(
        isinstance(statement, LayersStatement) and statement.mixer == "attend" for statement in context.spec.statements
    )
    complete = all(context.sure(idx, "rope") for idx in range(len(context.spec.statements)))
    if attends and complete and context.sure(HEADER, "rope") and not context.misses("layers", "cache"):
        yield NoPositions(span=context.spans.name, level=" of this level" if context.is_level else "")
