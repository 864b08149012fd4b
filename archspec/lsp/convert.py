"""Offsets and spans <-> the protocol's positions and values."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from lsprotocol import types
from pygls.uris import from_fs_path

from archspec.diagnostics import Diagnostic, Help
from archspec.lsp.complete import Kind, Suggestion
from archspec.lsp.navigate import Symbol, SymbolKind
from archspec.source import Source, Span

_LINE_END = re.compile(r"\r\n|\n|\r")
SOURCE = "archspec"

_UNITS: dict[types.PositionEncodingKind, Callable[[str], int]] = {
    types.PositionEncodingKind.Utf8: lambda text: len(text.encode("utf-8", "surrogatepass")),
    types.PositionEncodingKind.Utf16: lambda text: len(text) + sum(char > "\uffff" for char in text),
    types.PositionEncodingKind.Utf32: len,
}
"""How many units of an encoding a text takes."""

_SYMBOL_KINDS: dict[SymbolKind, types.SymbolKind] = {
    "model": types.SymbolKind.Class,
    "level": types.SymbolKind.Namespace,
    "layers": types.SymbolKind.Array,
    "cache": types.SymbolKind.Variable,
    "iterate": types.SymbolKind.Event,
    "exit": types.SymbolKind.Event,
    "door": types.SymbolKind.Interface,
}
_COMPLETION_KINDS: dict[Kind, types.CompletionItemKind] = {
    "statement": types.CompletionItemKind.Keyword,
    "setting": types.CompletionItemKind.Property,
    "word": types.CompletionItemKind.Keyword,
    "mixer": types.CompletionItemKind.Function,
    "kind": types.CompletionItemKind.EnumMember,
    "cache": types.CompletionItemKind.Variable,
    "name": types.CompletionItemKind.Variable,
}


class Positions:
    """Offsets of a text <-> lines and characters, counted in the units that were agreed with the client.

    Lines end where the protocol says: at `\\n`, `\\r\\n` and `\\r`. Positions outside of the text count as its nearest.
    """

    def __init__(self, text: str, encoding: types.PositionEncodingKind = types.PositionEncodingKind.Utf16) -> None:
        self._text = text
        self._units = _UNITS[encoding]

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(end.end() for end in _LINE_END.finditer(self._text))]

    def position(self, offset: int) -> types.Position:
        """The position of an offset."""
        line = bisect_right(self._starts, offset) - 1
        return types.Position(line, self._units(self._text[self._starts[line] : offset]))

    def offset(self, position: types.Position) -> int:
        """The offset of a position; inside of a character that takes several units, the place before it."""
        if position.line >= len(self._starts):
            return len(self._text)
        start = self._starts[position.line]
        last = position.line + 1 == len(self._starts)
        line = self._text[start:] if last else _LINE_END.sub("", self._text[start : self._starts[position.line + 1]])
        if line.isascii():
            return start + min(position.character, len(line))
        units = 0
        for idx, char in enumerate(line):
            units += self._units(char)
            if units > position.character:
                return start + idx
        return start + len(line)

    def range(self, start: int, end: int) -> types.Range:
        """The range between two offsets."""
        return types.Range(self.position(start), self.position(end))


class Places:
    """Places of one document, and of the files that it uses, as the client knows them."""

    def __init__(self, uri: str, source: Source, encoding: types.PositionEncodingKind) -> None:
        self.uri = uri
        self.source = source
        self.positions = Positions(source.text, encoding)
        self._encoding = encoding
        self._others: dict[str, Positions] = {}

    def is_own(self, span: Span) -> bool:
        """Whether a span lies in the document."""
        return span.source.name == self.source.name

    def range(self, span: Span) -> types.Range:
        """The range of a span, in whichever file it lies."""
        if self.is_own(span):
            return self.positions.range(span.start, span.end)
        other = self._others.setdefault(span.source.name, Positions(span.source.text, self._encoding))
        return other.range(span.start, span.end)

    def location(self, span: Span) -> types.Location:
        """A span with the file that it lies in."""
        uri = self.uri if self.is_own(span) else from_fs_path(str(Path(span.source.name).absolute()))
        return types.Location(uri or self.uri, self.range(span))


def diagnostic(found: Diagnostic, places: Places) -> types.Diagnostic:
    """One finding. What lies in another file is shown where this one meets it, with the place as related."""
    labels = [(label.span, label.text) for label in found.labels()]
    own = found.span
    if not places.is_own(own):
        labels.insert(0, (found.span, found.remark() or "here"))
        own = next((span for span, _ in labels if places.is_own(span)), Span(places.source, 0, 0))
    return types.Diagnostic(
        range=places.range(own),
        message=_message(found),
        severity=types.DiagnosticSeverity.Error if found.severity == "error" else types.DiagnosticSeverity.Warning,
        code=found.code,
        source=SOURCE,
        related_information=[
            types.DiagnosticRelatedInformation(places.location(span), text or "see here") for span, text in labels
        ],
    )


def _message(found: Diagnostic) -> str:
    """The message with what to type: an editor shows nothing else of a finding."""
    lines = [found.message()]
    if found.remark():
        lines.append(found.remark())
    lines += [f"help: {help_.text}" for help_ in found.helps()]
    lines += [f"note: {note}" for note in found.notes()]
    return "\n".join(lines)


def code_actions(
    findings: Iterable[Diagnostic], wanted: types.Range, places: Places, version: int | None
) -> list[types.CodeAction]:
    """What can be typed for the findings that touch a range, done at a click."""
    actions = []
    for found in findings:
        shown = diagnostic(found, places)
        if shown.range.end < wanted.start or wanted.end < shown.range.start:
            continue
        for rank, help_ in enumerate(found.helps()):
            edit = _workspace_edit(help_, places, version)
            if edit is not None:
                actions.append(
                    types.CodeAction(
                        title=help_.text,
                        kind=types.CodeActionKind.QuickFix,
                        diagnostics=[shown],
                        is_preferred=rank == 0,
                        edit=edit,
                    )
                )
    return actions


def _workspace_edit(help_: Help, places: Places, version: int | None) -> types.WorkspaceEdit | None:
    """All edits of a help, in whatever files they are; None if it has none."""
    changes: dict[str, types.TextDocumentEdit] = {}
    for edit in help_.edits:
        location = places.location(edit.span)
        document = types.OptionalVersionedTextDocumentIdentifier(
            uri=location.uri, version=version if places.is_own(edit.span) else None
        )
        change = changes.setdefault(location.uri, types.TextDocumentEdit(document, []))
        change.edits = [*change.edits, types.TextEdit(location.range, edit.text)]
    return types.WorkspaceEdit(document_changes=list(changes.values())) if changes else None


def symbol(found: Symbol, places: Places) -> types.DocumentSymbol:
    """One entry of the outline, with those below it."""
    return types.DocumentSymbol(
        name=found.name or "?",
        detail=found.detail,
        kind=_SYMBOL_KINDS[found.kind],
        range=places.range(found.span),
        selection_range=places.range(found.head),
        children=[symbol(child, places) for child in found.children],
    )


def completion(found: Suggestion, places: Places, offset: int, rank: int) -> types.CompletionItem:
    """One entry of a completion list, kept in the order that it has."""
    return types.CompletionItem(
        label=found.text,
        kind=_COMPLETION_KINDS[found.kind],
        detail=found.detail or None,
        documentation=types.MarkupContent(types.MarkupKind.Markdown, found.documentation)
        if found.documentation
        else None,
        sort_text=f"{rank:04}",
        filter_text=found.text,
        text_edit=types.TextEdit(places.positions.range(found.start, offset), found.text),
    )
