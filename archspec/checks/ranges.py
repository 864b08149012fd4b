"""E01xx: every layer of the model is declared exactly once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from archspec.checks import range_errors as errors
from archspec.checks.context import Context
from archspec.diagnostics import Diagnostic, Edit, layer_numbers
from archspec.source import Span
from archspec.spec.model import IterateStatement, LayerRange, LayersStatement


class _Place(NamedTuple):
    """A range of a statement."""

    statement: int
    item: int


def check(context: Context) -> Iterator[Diagnostic]:
    """Each range by itself, then overlaps, then gaps."""
    problems = list(_broken_ranges(context))
    yield from problems
    yield from _overlaps(context)
    guessed = any(context.doubts(idx, "ranges") for idx in range(len(context.spec.statements)))
    if not problems and not guessed and not context.misses("layers"):
        yield from _gaps(context)


def _broken_ranges(context: Context) -> Iterator[Diagnostic]:
    for idx, statement in enumerate(context.spec.statements):
        if isinstance(statement, LayersStatement):
            for part, span in zip(statement.ranges, context.places(idx).items, strict=False):
                problem = _check_range(context, part, span)
                if problem is not None:
                    yield problem
        elif isinstance(statement, IterateStatement):
            part = LayerRange(first=statement.first, last=statement.last)
            problem = _check_range(context, part, context.places(idx).items[0])
            if problem is not None:
                yield problem


def _check_range(context: Context, part: LayerRange, span: Span) -> Diagnostic | None:
    total = context.spec.num_layers
    first = total if part.first == "last" else part.first
    last = total if part.last == "last" else part.last
    if first > last:
        fixed = LayerRange(first=part.last, last=part.first, step=part.step)
        return errors.ReversedRange(span=span, fixed=str(fixed))
    if first < 1:
        return _layer_zero(context, part, span)
    if last > total:
        return _beyond(context, part, span) if context.total_known else None
    if (last - first) % part.step:
        numbers = tuple(range(first, last + 1, part.step))
        reached = str(LayerRange(first=first, last=numbers[-1], step=part.step if len(numbers) > 1 else 1))
        next_ = numbers[-1] + part.step
        return errors.UnevenStep(span=span, numbers=numbers, end=last, reached=reached, next_=next_)
    return None


def _layer_zero(context: Context, part: LayerRange, span: Span) -> Diagnostic:
    """`0-11` was probably counted from 0 at both ends, unless it then ends after the model."""
    last = part.last
    if isinstance(last, int) and (last < context.spec.num_layers or last < 1):
        last = max(last + 1, 1)
    others = len(context.spec.statements) > 1
    return errors.LayerZero(span=span, fixed=str(LayerRange(first=1, last=last, step=part.step)), others=others)


def _beyond(context: Context, part: LayerRange, span: Span) -> Diagnostic:
    total = context.spec.num_layers
    last = part.last if isinstance(part.last, int) else total
    inside = isinstance(part.first, int) and part.first <= total
    fixed = str(LayerRange(first=part.first, last=total, step=part.step)) if inside else None
    return errors.RangeBeyondModel(
        span=span, number=last, total=total, total_span=context.spans.total, fixed=fixed, stack=context.stack
    )


def _overlaps(context: Context) -> Iterator[Diagnostic]:
    owner: dict[int, _Place] = {}
    for idx, ranges in context.unfolded.items():
        if context.doubts(idx, "ranges"):
            continue
        for item, numbers in enumerate(ranges):
            place = _Place(idx, item)
            clashes: dict[_Place, list[int]] = {}
            for number in numbers:
                first = owner.setdefault(number, place)
                if first is not place:
                    clashes.setdefault(first, []).append(number)
            for first, clashing in clashes.items():
                yield _declared_twice(context, place, first, numbers, clashing)


def _declared_twice(
    context: Context, place: _Place, first: _Place, numbers: Sequence[int], clashing: list[int]
) -> Diagnostic:
    """The later range starts with the clash if one of the two ends was miscounted; then it can be cut."""
    span, count = _item_span(context, place), len(clashing)
    edit = None
    if clashing == list(numbers[:count]) and count < len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1:
        edit = Edit(span, str(LayerRange(first=numbers[count], last=numbers[-1])))
    layers = layer_numbers([number - 1 for number in clashing], short=True)
    return errors.DeclaredTwice(span=span, layers=layers, first=_item_span(context, first), cut=edit)


def _item_span(context: Context, place: _Place) -> Span:
    """One range of a list, or `layers 13-24` if it is the only one."""
    places = context.places(place.statement)
    return places.items[place.item] if len(places.items) > 1 else places.head


def _gaps(context: Context) -> Iterator[Diagnostic]:
    for idx, statement in enumerate(context.spec.statements):
        if isinstance(statement, LayersStatement) and not statement.ranges and idx not in context.by_statement:
            yield from _empty_rest(context, idx)
    total, declared = context.spec.num_layers, list(context.graph.layers)
    last = declared[-1] if declared else 0
    missing = sorted(set(range(1, last)) - set(declared))
    if missing:
        yield _gap(context, missing)
    if last < total and context.total_known:
        last_span = context.head(context.graph.layers[last].statement) if last else None
        yield errors.TotalMismatch(span=context.spans.total, total=total, last=last, last_span=last_span)


def _empty_rest(context: Context, idx: int) -> Iterator[Diagnostic]:
    """`layers rest` twice is an overlap, and reported as one."""
    if not any(context.unfolded[idx]):
        yield errors.EmptyRest(span=context.head(idx), total=context.spec.num_layers)


def _gap(context: Context, missing: list[int]) -> Diagnostic:
    """One message for all gaps. The statement after the first one may be off by one."""
    layers = context.graph.layers
    following = layers[next(number for number in layers if number > missing[0])]
    before = layers.get(missing[0] - 1)
    places = context.places(following.statement)
    span = context.head(before.statement) if before is not None else context.head(following.statement)
    fixed, target = None, places.head
    statement = context.spec.statements[following.statement]
    if len(missing) == 1 and isinstance(statement, LayersStatement):
        for part, item in zip(statement.ranges, places.items, strict=False):
            if part.first == following.number and part.step == 1:
                end = missing[0] if part.first == part.last else part.last
                fixed, target = str(LayerRange(first=missing[0], last=end)), item
    return errors.MissingLayers(
        span=span,
        layers=layer_numbers([number - 1 for number in missing], short=True),
        declared=layer_numbers([number - 1 for number in layers], short=True),
        following=target if before is not None else None,
        fixed=fixed,
    )
