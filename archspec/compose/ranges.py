"""Taking layers out of layer lists. Nothing is unfolded, so that a range of a billion layers costs what others do."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace

from archspec.syntax import tree

NO_END = 10**18
"""Stands for `last` where the total is not known."""
MAX_STEPPED = 100_000
"""Layers of a stepped range that are looked at one by one; no model has more."""

MAX_PIECES = 150_000
"""Pieces into which layer lists may fall; beyond that nothing more is taken out of them."""

Interval = tuple[int, int]


class Taken:
    """Layers that a list names, as sorted intervals that do not touch."""

    def __init__(self, items: Sequence[tree.Item], total: int) -> None:
        intervals = sorted(interval for item in items for interval in _intervals(item, total))
        self.starts: list[int] = []
        self.ends: list[int] = []
        for first, last in intervals:
            if self.ends and first <= self.ends[-1] + 1:
                self.ends[-1] = max(self.ends[-1], last)
            else:
                self.starts.append(first)
                self.ends.append(last)
        self.total = total
        self.pieces = 0

    def within(self, first: int, last: int) -> list[Interval]:
        """The intervals that overlap a range."""
        idx = max(bisect_right(self.starts, first) - 1, 0)
        end = bisect_right(self.starts, last)
        self.pieces += max(end - idx, 0)
        if self.pieces > MAX_PIECES:
            return []
        return [(a, b) for a, b in zip(self.starts[idx:end], self.ends[idx:end], strict=True) if b >= first]

    def left_of(self, item: tree.Item) -> tuple[tree.Item, ...]:
        """What is left of an item. Each piece stands where the item stands."""
        ends = ends_of(item, self.total)
        if ends is None:
            return (item,)
        first, last = ends
        overlapping = self.within(first, last)
        if not overlapping:
            return (item,)
        pieces = []
        for a, b in overlapping:
            if first < a:
                pieces.append(_piece(item, first, min(a - 1, last), item.step))
            first += -(-max(b + 1 - first, 0) // item.step) * item.step  # the next layer of the item behind b
        if first <= last:
            pieces.append(_piece(item, first, last, item.step, is_tail=True))
        return tuple(piece for piece in pieces if piece is not None)


def ends_of(item: tree.Item, total: int) -> Interval | None:
    """First and last layer; None for what is no range, or a broken one, which later phases report."""
    if item.kind == "rest" or item.first is None or item.last is None or item.step < 1:
        return None
    first = total if item.first == "last" else item.first
    last = total if item.last == "last" else item.last
    return (first, last) if first <= last else None


def _intervals(item: tree.Item, total: int) -> Iterator[Interval]:
    ends = ends_of(item, total)
    if ends is None:
        return
    first, last = ends
    if item.step == 1:
        yield ends
    else:
        numbers = range(first, last + 1, item.step)[:MAX_STEPPED]
        yield from ((number, number) for number in numbers)


def _piece(item: tree.Item, first: int, last: int, step: int, is_tail: bool = False) -> tree.Item | None:
    """The layers of an item from `first` to `last`, without a step where there is but one."""
    if is_tail and item.last == "last":
        return replace(item, first=first, last="last")
    last -= (last - first) % step if not is_tail else 0
    return replace(item, first=first, last=last, step=step if last > first else 1)
