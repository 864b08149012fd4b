"""Diagnostics -> plain values, every field of them."""

from collections.abc import Iterable
from typing import Any

from archspec.diagnostics import Diagnostic, Edit, Help
from archspec.source import Span

PAGES = "docs/diagnostics.md"
"""Where the pages stand in the repository, each under its code."""


def to_json(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    """The same facts as plain values; lines and columns count characters from 1, `end` is exclusive."""
    return [
        {
            "code": diagnostic.code,
            "severity": diagnostic.severity,
            "message": diagnostic.message(),
            "span": _span_json(diagnostic.span),
            "remark": diagnostic.remark(),
            "labels": [{"span": _span_json(label.span), "text": label.text} for label in diagnostic.labels()],
            "helps": [_help_json(help_) for help_ in diagnostic.helps()],
            "notes": list(diagnostic.all_notes()),
            "page": f"{PAGES}#{diagnostic.code.lower()}",
        }
        for diagnostic in diagnostics
    ]


def _help_json(help_: Help) -> dict[str, Any]:
    if help_.edit is None:
        return {"text": help_.text}
    return {
        "text": help_.text,
        "applicability": help_.applicability,
        "edit": _edit_json(help_.edit),
        "edits": [_edit_json(edit) for edit in help_.edits],
    }


def _edit_json(edit: Edit) -> dict[str, Any]:
    return {"span": _span_json(edit.span), "text": edit.text}


def _span_json(span: Span) -> dict[str, Any]:
    line, column = span.source.position(span.start)
    end_line, end_column = span.source.position(span.end)
    return {
        "file": span.source.name,
        "start": {"line": line, "column": column, "offset": span.start},
        "end": {"line": end_line, "column": end_column, "offset": span.end},
    }
