"""Diagnostics -> SARIF 2.1.0, the format of code scanners.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0. Columns count UTF-16 code units from 1
(section 3.30.6 with `columnKind`), ends are exclusive.
"""

from collections.abc import Iterable
from inspect import cleandoc
from pathlib import Path
from typing import Any
from urllib.parse import quote

from archspec.diagnostics import REGISTRY, Diagnostic, Edit, Help
from archspec.render.json import PAGES
from archspec.source import Source, Span

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_MADE_BY = "archspec"


def to_sarif(diagnostics: Iterable[Diagnostic], version: str) -> dict[str, Any]:
    """A log with one run: every finding as a result, every code among them as a rule with its page."""
    found = list(diagnostics)
    codes = sorted({diagnostic.code for diagnostic in found})
    driver = {"name": _MADE_BY, "version": version, "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "results": [_result(diagnostic, codes.index(diagnostic.code)) for diagnostic in found],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    kind = REGISTRY[code]
    title, _, page = cleandoc(kind.__doc__ or "").partition("\n")
    return {
        "id": code,
        "name": kind.__name__,
        "shortDescription": {"text": title},
        "help": {"text": page.strip()},
        "defaultConfiguration": {"level": kind.severity},
        "properties": {"page": f"{PAGES}#{code.lower()}"},
    }


def _result(diagnostic: Diagnostic, rule: int) -> dict[str, Any]:
    lines = [diagnostic.message(), *(f"help: {help_.text}" for help_ in diagnostic.helps())]
    lines += [f"note: {note}" for note in diagnostic.all_notes()]
    labels = [
        {"id": number, **_location(label.span, label.text)} for number, label in enumerate(diagnostic.labels(), start=1)
    ]
    fixes = [_fix(help_) for help_ in diagnostic.helps() if help_.edits]
    return {
        "ruleId": diagnostic.code,
        "ruleIndex": rule,
        "level": diagnostic.severity,
        "message": {"text": "\n".join(lines)},
        "locations": [_location(diagnostic.span, diagnostic.remark())],
        **({"relatedLocations": labels} if labels else {}),
        **({"fixes": fixes} if fixes else {}),
    }


def _location(span: Span, text: str) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": _artifact(span.source)}
    if span.source.text:
        place["region"] = _region(span)
    return {"physicalLocation": place, **({"message": {"text": text}} if text else {})}


def _artifact(source: Source) -> dict[str, str]:
    """A relative path stays relative, so that the log can be read on another machine."""
    path = Path(source.name)
    if path.is_absolute():
        return {"uri": path.as_uri()}
    return {"uri": quote(path.as_posix())}


def _region(span: Span) -> dict[str, int]:
    line, column = _position(span.source, span.start)
    end_line, end_column = _position(span.source, span.end)
    return {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}


def _position(source: Source, offset: int) -> tuple[int, int]:
    line, column = source.position(offset)
    before = source.text[offset - column + 1 : offset]
    return line, 1 + len(before.encode("utf-16-le", "surrogatepass")) // 2


def _fix(help_: Help) -> dict[str, Any]:
    by_source: dict[Source, list[Edit]] = {}
    for edit in help_.edits:
        by_source.setdefault(edit.span.source, []).append(edit)
    changes = [
        {"artifactLocation": _artifact(source), "replacements": [_replacement(edit) for edit in edits]}
        for source, edits in by_source.items()
    ]
    return {
        "description": {"text": help_.text},
        "artifactChanges": changes,
        "properties": {"applicability": help_.applicability},
    }


def _replacement(edit: Edit) -> dict[str, Any]:
    return {"deletedRegion": _region(edit.span), **({"insertedContent": {"text": edit.text}} if edit.text else {})}
