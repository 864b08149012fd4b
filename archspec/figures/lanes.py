"""Lanes: parallel lines from shared stores to their readers, so that no two of them lie on each other."""

from collections.abc import Sequence

from archspec.figures.model import Store


def span(store: Store) -> tuple[int, int]:
    """The first and the last item that a store's line touches."""
    return min(store.writer_idx, *store.readers), max(store.writer_idx, *store.readers)


def lanes_of(stores: Sequence[Store]) -> dict[int, int]:
    """Store -> lane, for shared stores: each the first that is free where it runs; short ones first."""
    lanes: list[list[tuple[int, int]]] = []
    found: dict[int, int] = {}
    shared = [idx for idx, store in enumerate(stores) if store.shared]
    for idx in sorted(shared, key=lambda idx: (span(stores[idx])[1] - span(stores[idx])[0], idx)):
        first, last = span(stores[idx])
        lane = next((n for n, taken in enumerate(lanes) if all(last < a or b < first for a, b in taken)), len(lanes))
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((first, last))
        found[idx] = lane
    return found
