"""E02xx: every reader reads keys and values that exist when it runs."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping

from archspec.checks import reader_errors, source_errors
from archspec.checks.context import Context, Readers, cache_name
from archspec.diagnostics import MAX_LABELS, Diagnostic, Edit, is_slip, layer_numbers, suggest
from archspec.graph.layer_graph import CacheNode, LayerNode
from archspec.graph.lower import place
from archspec.source import Span
from archspec.spec.model import DECAYS, CacheRef, CacheStatement, LayersStatement, PrefillExitStatement

_KV_HEADS = (8, 4, 2, 1)
_MOST_NAMES = 200
"""Among more names than these, none is proposed: comparing them all takes time."""


def check(context: Context) -> Iterator[Diagnostic]:
    """What is declared, what is named, then what stands at the other end."""
    yield from _declarations(context)
    yield from _references(context)
    names = _named_layers(context)
    in_cycle: set[int] = set()
    for cycle in context.graph.reader_cycles(names):
        in_cycle.update(cycle)
        yield _cycle(context, cycle)
    roots = _roots(context, names)
    for readers in context.readers:
        if readers.ref.layer == "below":
            if readers.cache is None and not context.misses("layers", "cache"):
                span = context.source_span(readers.idx)
                yield reader_errors.NothingBelow(span=span, readers=readers.shown)
        elif readers.cache is not None:
            yield from _too_early(context, readers, readers.cache)
        elif names.get(readers.layers[0].number, 0) not in in_cycle:
            yield from _no_cache(context, readers, roots)


def _declarations(context: Context) -> Iterator[Diagnostic]:
    seen: dict[str, Span] = {}
    for idx, statement in enumerate(context.spec.statements):
        if not isinstance(statement, CacheStatement):
            continue
        number, span = place(context.spec, statement.layer), context.head(idx)
        key = statement.name or f"cache@{number}"
        if _is_outside(context, number):
            yield _beyond(context, number, span)
        elif key in seen:
            yield source_errors.CacheDeclaredTwice(span=span, cache=key, number=number, first=seen[key])
        seen.setdefault(key, span)


def _references(context: Context) -> Iterator[Diagnostic]:
    """References to what cannot exist, from readers and from `prefill exit`."""
    for idx, statement in enumerate(context.spec.statements):
        ref = None
        if isinstance(statement, LayersStatement):
            ref = statement.source
        elif isinstance(statement, PrefillExitStatement):
            ref = statement.after
        problem = None if ref is None else _reference(context, ref, context.source_span(idx))
        if problem is not None:
            yield problem


def _reference(context: Context, ref: CacheRef, span: Span) -> Diagnostic | None:
    graph = context.graph
    if ref.name is not None:
        if context.misses("cache") or context.references.cache(ref) is not None:
            return None
        return _unknown(context, ref.name, span)
    if ref.layer == "below":
        return None
    number = place(context.spec, ref.layer)
    if _is_outside(context, number):
        declared = f"cache@{number}" in graph.caches  # and so reported where it is declared
        return None if declared else _beyond(context, number, span)
    named = context.references.candidates(ref)
    if not named:
        return None
    candidates = tuple((key, context.head(graph.caches[key].statement)) for key in named[:MAX_LABELS])
    return source_errors.AmbiguousCache(span=span, number=number, candidates=candidates, count=len(named))


def _unknown(context: Context, name: str, span: Span) -> Diagnostic:
    names = context.cache_names
    guess = suggest(name, names) if len(names) <= _MOST_NAMES else None
    sure = guess is not None and is_slip(name, guess, names)
    shown = names[:MAX_LABELS] if guess is None else (guess,)
    known = tuple((key, context.head(context.graph.caches[key].statement)) for key in shown)
    return source_errors.UnknownCache(span=span, name=name, known=known, guess=guess, sure=sure)


def _is_outside(context: Context, number: int) -> bool:
    return number < 1 or (number > context.spec.num_layers and context.total_known)


def _beyond(context: Context, number: int, span: Span) -> Diagnostic:
    total = context.spec.num_layers
    total_span = context.spans.total
    return source_errors.CacheBeyondModel(
        span=span, number=number, total=total, total_span=total_span, stack=context.stack
    )


def _named_layers(context: Context) -> dict[int, int]:
    """Reader -> the layer it names as source, where that layer is a reader and no cache comes of it."""
    names: dict[int, int] = {}
    for readers in context.readers:
        source = context.graph.layers.get(context.references.place(readers.ref) or 0)
        if readers.cache is None and source is not None and source.mixer == "cross-attend":
            names.update((layer.number, source.number) for layer in readers.layers if layer.number != source.number)
    return names


def _roots(context: Context, names: Mapping[int, int]) -> dict[int, str]:
    """Reader -> what the chain of readers that it names ends in, if that is a cache."""
    roots: dict[int, str] = {}
    done: set[int] = set()
    for start in names:
        chain, number = [], start
        while number in names and number not in done:
            done.add(number)
            chain.append(number)
            number = names[number]
        end = context.graph.layers.get(number)
        root = str(end.source) if end is not None and number in context.graph.sources else roots.get(number)
        if root is not None:
            roots.update((link, root) for link in chain)
    return roots


def _cycle(context: Context, cycle: list[int]) -> Diagnostic:
    start = cycle.index(min(cycle))
    numbers = tuple(cycle[start:] + cycle[:start])
    pairs = zip(numbers, (*numbers[1:], numbers[0]), strict=True)
    reads = tuple(
        (reader, source, context.source_span(context.graph.layers[reader].statement)) for reader, source in pairs
    )
    return reader_errors.ReaderCycle(span=reads[0][2], reads=reads)


def _too_early(context: Context, readers: Readers, cache: CacheNode) -> Iterator[Diagnostic]:
    if context.misses("iterate"):
        return
    waiting = [layer for layer in readers.layers if layer.number not in context.iterated]
    early = [layer for layer in waiting if layer.number < cache.layer]
    at = [layer for layer in waiting if layer.number == cache.layer]
    if early or (at and cache.projected):
        yield reader_errors.ReaderBeforeSource(
            span=context.source_span(readers.idx),
            readers=layer_numbers([layer.number - 1 for layer in early + at], short=True),
            first=(early + at)[0].number,
            cache=cache_name(cache),
            layer=cache.layer,
            source_span=context.head(cache.statement),
            own_output=not early,
            whole=len(early) + len(at) == len(readers.layers),
            iterate=_iterate_line(context, readers.idx, (early + at)[0].number),
        )


def _iterate_line(context: Context, idx: int, number: int) -> tuple[str, Edit | None]:
    """The statement that makes readers of a later cache legal, and where it goes: after theirs."""
    cycle = context.cycle_of[number]
    line = f"iterate layers {cycle.layers[0]}-{cycle.layers[-1]}: 7 forward, 2 backward"
    span = context.places(idx).whole
    end = span.source.text.find("\n", span.end) + 1
    start = span.source.text.rfind("\n", 0, span.start) + 1
    indent = span.source.text[start : span.start]
    if end == 0 or indent.strip():
        return line, None
    return line, Edit(Span(span.source, end, end), f"{indent}{line}\n")


def _no_cache(context: Context, readers: Readers, roots: Mapping[int, str]) -> Iterator[Diagnostic]:
    """What stands at the other end of a reference that is no cache."""
    span, source = (
        context.source_span(readers.idx),
        context.graph.layers.get(context.references.place(readers.ref) or 0),
    )
    if source is None or context.references.candidates(readers.ref):
        return
    if context.doubts(source.statement, "mixer") or context.misses("cache"):
        return
    number, head = source.number, context.head(source.statement)
    if any(layer.number == number for layer in readers.layers):
        if not readers.statement.ranges and context.doubts(readers.idx, "ranges"):
            return
        mixer = _mixer_span(context, readers.idx)
        yield reader_errors.ReadsItself(span=span, number=number, alone=len(readers.layers) == 1, mixer=mixer)
    elif source.mixer == "cross-attend":
        root = roots.get(number) or (str(source.source) if number in context.graph.sources else None)
        yield _reads_reader(context, span, source, readers.shown, root)
    elif source.mixer in DECAYS:
        insertion = _projection_line(context, readers.layers[0], number)
        yield source_errors.SourceKeepsState(
            span=span, readers=readers.shown, number=number, source_span=head, insertion=insertion
        )
    else:
        nearest = _nearest(context, number, readers.layers[0].number)
        yield source_errors.SourceWithoutAttention(
            span=span, readers=readers.shown, number=number, source_span=head, nearest=nearest
        )


def _mixer_span(context: Context, idx: int) -> Span:
    places = context.places(idx)
    return places.mixer.to(places.source) if places.mixer and places.source else places.whole


def _reads_reader(context: Context, span: Span, source: LayerNode, readers: str, root: str | None) -> Diagnostic:
    statement = context.spec.statements[source.statement]
    head = context.head(source.statement)
    if isinstance(statement, LayersStatement) and statement.settings.kv_heads is not None:
        return reader_errors.UnusedOwnKeys(
            span=span,
            readers=readers,
            number=source.number,
            owner_source=str(source.source),
            kv_span=context.spans.setting(source.statement, "kv_heads"),
        )
    return reader_errors.ReadsReader(
        span=span, readers=readers, number=source.number, source_span=head, named=str(source.source), root=root
    )


def _nearest(context: Context, number: int, reader: int) -> tuple[int, ...]:
    """The owners of keys and values next to a layer, one on each side, that run before the reader."""
    idx = bisect_left(context.owners, number)
    return tuple(owner for owner in context.owners[max(idx - 1, 0) : idx + 1] if owner < reader)


def _projection_line(context: Context, reader: LayerNode, number: int) -> tuple[str, Edit | None]:
    """A `cache@N:` statement that fits the reader, and where its line goes: before the reader's."""
    heads, stated = reader.heads, context.spec.defaults.kv_heads
    if stated is None:
        count = next(count for count in _KV_HEADS if heads is None or heads.count % count == 0)
        size = heads.head_dim if heads is not None and heads.head_dim else 128
    else:
        count, size = stated.count, stated.head_dim or (heads.head_dim if heads is not None else None) or 128
    line = f"cache@{number}: kv heads {count} x {size}"
    span = context.places(reader.statement).whole
    start = span.source.text.rfind("\n", 0, span.start) + 1
    indent = span.source.text[start : span.start]
    if indent.strip():
        return line, None
    return line, Edit(Span(span.source, start, start), f"{indent}{line}\n")
