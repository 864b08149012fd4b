"""Figures of a sweep: the points and the front, or one metric against one setting."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from archspec.sweep.grid import Point
from archspec.sweep.metrics import METRICS

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from archspec.units import format_bytes

COLUMN = (3.4, 2.6)
"""Inches: the width of a paper's column."""
FRONT, OTHER = "#0072B2", "#999999"
"""Okabe and Ito's blue, and grey: apart for every eye."""
MAX_LABELS = 12


def plot_points(found: Sequence[Point], front: frozenset[int], metrics: Sequence[str], path: Path, kind: str) -> None:
    """Two metrics against each other with the front, or one metric against the first setting. Effects: writes `path`.

    `kind` of file: png, svg, pdf. Errors: ValueError for one that cannot be written.
    """
    with plt.rc_context({"font.size": 8, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=COLUMN, layout="constrained")
        if len(metrics) > 1:
            _two_metrics(axes, found, front, metrics)
        else:
            _one_metric(axes, found, metrics[0])
        axes.grid(alpha=0.3, linewidth=0.5)
        figure.savefig(path, dpi=200, format=kind)
        plt.close(figure)


def _two_metrics(axes: Axes, found: Sequence[Point], front: frozenset[int], metrics: Sequence[str]) -> None:
    valid = [(idx, point) for idx, point in enumerate(found) if point.error is None]
    best = sorted((point.metrics[:2] for idx, point in valid if idx in front))
    rest = [point.metrics[:2] for idx, point in valid if idx not in front]
    if rest:
        axes.plot(*zip(*rest, strict=True), "o", markersize=3, color=OTHER, label="beaten by another")
    axes.plot(*zip(*best, strict=True), "o-", color=FRONT, markersize=4, linewidth=1, label="the front")
    if len(front) <= MAX_LABELS:
        for idx in sorted(front):
            text = ", ".join(f"{name} {value}" for name, value in found[idx].settings)
            x, y = found[idx].metrics[:2]
            axes.annotate(text, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=6)
    axes.margins(x=0.15, y=0.15)
    for axis, name in ((axes.xaxis, metrics[0]), (axes.yaxis, metrics[1])):
        _label(axis, name)
    axes.legend(frameon=False, fontsize=7)


def _one_metric(axes: Axes, found: Sequence[Point], metric: str) -> None:
    """A line for every combination of the other settings."""
    lines: dict[str, list[tuple[int, int]]] = {}
    for point in found:
        if point.error is None:
            (_, value), *others = point.settings
            label = ", ".join(f"{name} {other}" for name, other in others)
            lines.setdefault(label, []).append((value, point.metrics[0]))
    for label, pairs in lines.items():
        axes.plot(*zip(*sorted(pairs), strict=True), "o-", markersize=3, linewidth=1, label=label or None)
    axes.set_xlabel(found[0].settings[0][0])
    _label(axes.yaxis, metric)
    if len(lines) > 1 and len(lines) <= MAX_LABELS:
        axes.legend(frameon=False, fontsize=7)


def _label(axis: object, name: str) -> None:
    metric = METRICS[name]
    axis.set_label_text(metric.meaning)  # type: ignore[attr-defined]
    if metric.is_bytes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(round(value))))  # type: ignore[attr-defined]
