"""The combinations of a sweep, what each costs, and which of them no other beats."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from archspec.diagnostics import Diagnostic
from archspec.driver import analyse
from archspec.sweep.metrics import METRICS, Workload

MAX_POINTS = 100_000
"""Combinations of one sweep."""


@dataclass(frozen=True)
class Point:
    """One combination: values of the swept `let`s, and its metrics, or the first error that it gives."""

    settings: tuple[tuple[str, int], ...]
    metrics: tuple[int, ...] = ()
    error: Diagnostic | None = None


def points(
    path: Path,
    swept: Mapping[str, Sequence[int]],
    metrics: Sequence[str],
    workload: Workload,
) -> Iterator[Point]:
    """Every combination of `swept`, in order, the last one changing fastest.

    Errors: KeyError for an unknown metric; SettingError for a name that is no `let` of the file.
    """
    measure = [METRICS[name].measure for name in metrics]
    for values in product(*swept.values()):
        settings = dict(zip(swept, values, strict=True))
        analysis = analyse(path, settings=settings)
        error = next((found for found in analysis.diagnostics if found.severity == "error"), None)
        if error is not None:
            yield Point(tuple(settings.items()), error=error)
        else:
            plan = analysis.plan()
            yield Point(tuple(settings.items()), tuple(each(plan, workload) for each in measure))


def pareto(found: Sequence[Point]) -> frozenset[int]:
    """Indices of the points that no other point beats: none is at most as large in every metric and smaller in one."""
    valid = [(idx, point.metrics) for idx, point in enumerate(found) if point.error is None]
    front: list[tuple[int, tuple[int, ...]]] = []
    for idx, metrics in sorted(valid, key=lambda item: item[1]):
        # In this order only what came before can beat a point.
        if not any(beats(other, metrics) for _, other in front):
            front.append((idx, metrics))
    return frozenset(idx for idx, _ in front)


def beats(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether `one` is nowhere larger than `other`, and not the same."""
    return tuple(one) != tuple(other) and all(a <= b for a, b in zip(one, other, strict=True))
