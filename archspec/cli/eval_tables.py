"""What `archspec eval` prints."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archspec.cli.tables import Table, print_table

if TYPE_CHECKING:
    from archspec.evaluation import LossReport, RecallReport


@dataclass(frozen=True)
class Found:
    """What was found about one model."""

    folder: str
    parameters: int
    text: "LossReport | None"
    recall: "tuple[RecallReport, ...]"


def print_found(found: list[Found]) -> None:
    """Tables: a row a model, loss by position with a column a model, recall with a column a depth."""
    texts = [(each, each.text) for each in found if each.text is not None]
    if texts:
        rows = [
            (
                each.folder,
                f"{each.parameters:,}",
                f"{text.loss:.4f}",
                f"{text.perplexity:.5g}",
                _figure(text.bits_per_byte, 4),
                f"{text.tokens:,}",
                f"{text.text_bytes:,}",
            )
            for each, text in texts
        ]
        columns = ("model", ">parameters", ">loss", ">perplexity", ">bits per byte", ">tokens", ">bytes")
        print_table(Table(columns, tuple(rows)))
        print()
        print_table(_by_position([(each.folder, text) for each, text in texts]))
    if texts and any(each.recall for each in found):
        print()
    if any(each.recall for each in found):
        print_table(_recall(found))


def _by_position(texts: "list[tuple[str, LossReport]]") -> Table:
    by_model = [{(each.first, each.last): each.loss for each in text.bins()} for _, text in texts]
    # Two models may have contexts of different lengths, or begin later.
    ranges = sorted({place for losses in by_model for place in losses}, key=lambda place: (place[1], place[0]))
    rows = []
    for first, last in ranges:
        losses = [losses.get((first, last)) for losses in by_model]
        place = str(first) if first == last else f"{first}-{last}"
        rows.append((place, *("-" if loss is None else f"{loss:.4f}" for loss in losses)))
    return Table((">tokens of context", *(f">loss of {name}" for name, _ in texts)), tuple(rows))


def _recall(found: list[Found]) -> Table:
    reports = [(each.folder, report) for each in found for report in each.recall]
    depths = sorted({row.depth for _, report in reports for row in report.rows})
    rows = []
    for name, report in reports:
        by_depth = {row.depth: row.accuracy for row in report.rows}
        cells = ("-" if depth not in by_depth else f"{by_depth[depth]:.3f}" for depth in depths)
        how = "decoding" if report.cached else "forcing"
        rows.append(
            (name, report.task, f"{report.length:,}", how, *cells, f"{report.accuracy:.3f}", f"{report.asked:,}")
        )
    at = (f">at {depth:g}" for depth in depths)
    return Table(("model", "task", ">tokens", "by", *at, ">accuracy", ">questions"), tuple(rows))


def as_mapping(found: Found) -> dict[str, Any]:
    """All of it for JSON; losses by position in ranges."""
    mapping: dict[str, Any] = {"model": found.folder, "parameters": found.parameters}
    if (text := found.text) is not None:
        names = ("context", "stride", "documents", "tokens", "unpredicted", "text_bytes", "loss")
        mapping["text"] = {
            **{name: getattr(text, name) for name in names},
            "perplexity": _finite(text.perplexity),
            "bits_per_byte": _finite(text.bits_per_byte),
            "by_position": [each._asdict() for each in text.bins(per_doubling=4)],
        }
    if found.recall:
        mapping["recall"] = [
            {
                "task": report.task,
                "length": report.length,
                "cached": report.cached,
                "accuracy": report.accuracy,
                "questions": report.asked,
                "loss": report.nats,
                "by_depth": [{"depth": row.depth, "asked": row.asked, "right": row.right} for row in report.rows],
            }
            for report in found.recall
        ]
    return mapping


def csv_rows(found: list[Found]) -> list[dict[str, Any]]:
    """A row a position, or a row a depth of a task."""
    positions = [
        {"model": each.folder, "position": place.first, "loss": place.loss, "predictions": place.predictions}
        for each in found
        if each.text is not None
        for place in each.text.positions()
    ]
    recalled = [
        {
            "model": each.folder,
            "task": report.task,
            "length": report.length,
            "depth": row.depth,
            "asked": row.asked,
            "right": row.right,
        }
        for each in found
        for report in each.recall
        for row in report.rows
    ]
    return positions or recalled


def _figure(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None
