"""E03xx: every layer has what it needs, and queries fit the keys they read."""

from collections.abc import Iterable, Iterator

from archspec.checks import shape_errors as errors
from archspec.checks.context import Context, cache_name
from archspec.diagnostics import MAX_LABELS, Diagnostic, Label, layer_numbers
from archspec.graph.layer_graph import CacheNode, LayerNode
from archspec.source import Span
from archspec.spec.elaborate import HEADER
from archspec.spec.model import Heads, LayersStatement, Rope
from archspec.spec.spans import without

_EXAMPLES = {"heads": "heads 8 x 64", "ffn": "ffn swiglu(4096)", "kv heads": "kv heads 8 x 128"}


def check(context: Context) -> Iterator[Diagnostic]:
    """Layers are judged a statement at a time: all layers of one are alike, but for the cache they read."""
    yield from _lacking(context)
    yield from _one_norm(context)
    served = _named_by_readers(context)
    for idx, layers in context.by_statement.items():
        if layers[0].mixer == "ffn-only":
            yield from _empty(context, idx, layers)
        elif _heads_known(context, idx):
            yield from _statement(context, idx, layers, served)
    for cache in context.graph.caches.values():
        if cache.projected and cache.kv_heads is not None and context.sure(cache.statement, "kv_heads", "rope"):
            yield from _rotation(cache.kv_heads, cache.rope, _kv_span(context, cache))


def _lacking(context: Context) -> Iterator[Diagnostic]:
    """Settings that are made nowhere: one message a setting, whatever the number of statements without it."""
    layers = context.by_statement.items()
    no_ffn = [idx for idx, nodes in layers if nodes[0].ffn is None and context.sure(idx, "ffn")]
    no_heads = [
        idx
        for idx, nodes in layers
        if nodes[0].mixer != "ffn-only" and _stated_heads(context, idx) is None and context.sure(idx, "heads")
    ]
    for setting, statements in (("ffn", no_ffn), ("heads", no_heads)):
        if statements:
            numbers = [layer.number - 1 for idx in statements for layer in context.by_statement[idx]]
            yield _lacks(context, layer_numbers(numbers, short=True), f"`{setting}`", _EXAMPLES[setting], statements)
    for cache in context.graph.caches.values():
        if cache.projected and (cache.kv_heads is None or cache.kv_heads.head_dim is None):
            yield from _unsized(context, cache)


def _lacks(context: Context, who: str, setting: str, example: str, statements: list[int]) -> Diagnostic:
    heads = [context.head(idx) for idx in statements]
    others = tuple(Label(head, "nor here") for head in heads[1:MAX_LABELS])
    return errors.LacksSetting(span=heads[0], who=who, setting=setting, example=example, others=others)


def _unsized(context: Context, cache: CacheNode) -> Iterator[Diagnostic]:
    """A projection whose kv heads follow from nothing: neither it nor the header has heads with a size."""
    if not context.sure(cache.statement, "kv_heads") or not context.sure(HEADER, "heads", "width"):
        return
    default = context.spec.defaults.heads
    if default is not None:
        span = context.spans.settings["heads"]
        yield errors.WidthNotDivisible(span=span, heads=default.count, width=context.spec.hidden_size)
        return
    setting = "`kv heads`" if cache.kv_heads is None else "the size of its `kv heads`"
    yield _lacks(context, f"`{cache_name(cache)}`", setting, _EXAMPLES["kv heads"], [cache.statement])


def _one_norm(context: Context) -> Iterator[Diagnostic]:
    """Layers that share the norm before mixer and ffn, and have none there."""
    for idx, layers in context.by_statement.items():
        layer = layers[0]
        if layer.residual != "parallel-one-norm" or layer.placement != "post":
            continue
        if context.sure(idx, "residual", "placement"):
            shown = layer_numbers([layer.number - 1 for layer in layers], short=True)
            residual, placement = (context.spans.setting(idx, key) for key in ("residual", "placement"))
            yield errors.NoNormToShare(span=residual, layers=shown, placement=placement)


def _empty(context: Context, idx: int, layers: tuple[LayerNode, ...]) -> Iterator[Diagnostic]:
    if layers[0].ffn is not None and layers[0].ffn.kind == "none" and context.sure(idx, "ffn"):
        shown = layer_numbers([layer.number - 1 for layer in layers], short=True)
        yield errors.EmptyLayer(span=context.head(idx), layers=shown)


def _stated_heads(context: Context, idx: int) -> Heads | None:
    statement = context.spec.statements[idx]
    assert isinstance(statement, LayersStatement)
    return statement.settings.heads or context.spec.defaults.heads


def _heads_known(context: Context, idx: int) -> bool:
    """Whether the heads of a layer are stated, and their size, if it follows from the width, is known."""
    stated = _stated_heads(context, idx)
    if stated is None or not context.sure(idx, "heads"):
        return False
    return stated.head_dim is not None or context.sure(HEADER, "width")


def _statement(
    context: Context, idx: int, layers: tuple[LayerNode, ...], served: frozenset[int]
) -> Iterator[Diagnostic]:
    layer, stated = layers[0], _stated_heads(context, idx)
    heads_span = context.spans.setting(idx, "heads")
    if layer.heads is None:
        assert stated is not None
        yield errors.WidthNotDivisible(span=heads_span, heads=stated.count, width=context.spec.hidden_size)
        return
    if layer.mixer == "cross-attend":
        caches = [readers.cache for readers in context.readers_by_statement.get(idx, ()) if readers.cache is not None]
        if caches and served.isdisjoint(layer.number for layer in layers):
            yield from _kv_heads_of_a_reader(context, idx, caches[0])
        yield from _fits(context, idx, layer.heads, caches)
        return
    if context.sure(idx, "rope"):
        yield from _rotation(layer.heads, layer.rope, heads_span)
    own = context.graph.source_of(layer.number)
    if own is not None:
        yield from _fits(context, idx, layer.heads, [own])


def _fits(context: Context, idx: int, heads: Heads, caches: list[CacheNode]) -> Iterator[Diagnostic]:
    """The first cache that does not fit; others of the same statement would say the same again."""
    for cache in caches:
        if cache.kv_heads is not None and context.sure(cache.statement, "kv_heads"):
            if cache.projected or _heads_known(context, cache.statement):
                found = list(_fit(context, idx, heads, cache))
                if found:
                    yield from found
                    return


def _named_by_readers(context: Context) -> frozenset[int]:
    """Layers that readers name as source in vain: if they are readers with kv heads, that is what is reported."""
    named = (context.references.place(readers.ref) for readers in context.readers if readers.cache is None)
    return frozenset(number for number in named if number is not None)


def _kv_heads_of_a_reader(context: Context, idx: int, cache: CacheNode) -> Iterator[Diagnostic]:
    span = context.places(idx).settings.get("kv_heads")
    if span is None or cache.kv_heads is None:
        return
    yield errors.ReaderStatesKvHeads(
        span=span,
        cache=cache_name(cache),
        cache_heads=cache.kv_heads.count,
        layer=cache.layer,
        cache_span=_kv_span(context, cache),
        removal=without(span),
    )


def _kv_span(context: Context, cache: CacheNode) -> Span:
    """Where the kv heads of a cache were decided; a layer's own follow from its heads if not stated."""
    own, header = context.places(cache.statement), context.spans.settings
    keys = ("kv_heads",) if cache.projected else ("kv_heads", "heads")
    stated = [places[key] for key in keys for places in (own.settings, header) if key in places]
    return stated[0] if stated else own.head


def _fit(context: Context, idx: int, heads: Heads, cache: CacheNode) -> Iterator[Diagnostic]:
    """Query heads against kv heads. The place to look at is what a statement says itself, rather than the header."""
    kv = cache.kv_heads
    assert kv is not None
    if heads.head_dim == kv.head_dim and heads.count % kv.count == 0:
        return
    heads_span, kv_span = context.spans.setting(idx, "heads"), _kv_span(context, cache)
    heads_above, kv_above = (_is_in_header(context, span) for span in (heads_span, kv_span))
    both = heads_above and kv_above
    facts = errors.HeadsAndKeys(
        heads=heads.count,
        head_dim=heads.head_dim or 0,
        kv_heads=kv.count,
        kv_head_dim=kv.head_dim or 0,
        cache="" if both else cache_name(cache),
        layer=0 if both else cache.layer,
        heads_span=heads_span,
        kv_span=kv_span,
    )
    span = kv_span if heads_above and not kv_above else heads_span
    if facts.head_dim != facts.kv_head_dim and facts.kv_head_dim:
        yield errors.HeadDimDiffers(span=span, facts=facts)
    if heads.count % kv.count:
        yield errors.HeadsNotMultiple(span=span, facts=facts)


def _is_in_header(context: Context, span: Span) -> bool:
    return any(span is other for other in context.spans.settings.values())


def _rotation(heads: Heads, rope: Rope, span: Span) -> Iterable[Diagnostic]:
    if rope.kind == "none" or heads.head_dim is None:
        return
    rotated = heads.head_dim * rope.percent // 100
    if rope.kind == "proportional" and heads.head_dim % 2:  # pairs go over the whole head
        yield errors.OddRotation(span=span, head_dim=heads.head_dim, rotated=heads.head_dim)
    elif rotated % 2 or rotated == 0:
        yield errors.OddRotation(span=span, head_dim=heads.head_dim, rotated=rotated)
