"""Findings as the protocol has them, several files included; and a server in which something goes wrong."""

import asyncio
from pathlib import Path

import pytest
from lsprotocol import types
from pygls.uris import from_fs_path

from archspec.diagnostics import Diagnostic, Edit, Help, Label
from archspec.lsp import convert
from archspec.lsp.documents import Document
from archspec.lsp.server import make_server
from archspec.source import Source, Span

ENCODING = types.PositionEncodingKind.Utf16
URI = "file:///folder/spec.arch"
SPEC = Source("/folder/spec.arch", "use 😀 common\nlayers 1\n")
COMMON = Source("/folder/parts/common.arch", "# × \n  define 😀 x\n")
PLACES = convert.Places(URI, SPEC, ENCODING)


class Made(Diagnostic):
    """A finding for tests; it has no code, and so is not registered."""

    others: tuple[Label, ...] = ()
    ways: tuple[Help, ...] = ()

    def message(self) -> str:
        return "something is wrong"

    def remark(self) -> str:
        return "this"

    def labels(self) -> tuple[Label, ...]:
        return self.others

    def helps(self) -> tuple[Help, ...]:
        return self.ways


def test_a_label_in_another_file_leads_there() -> None:
    label = Label(Span(COMMON, 7, 17), "defined here")
    found = convert.diagnostic(Made(span=Span(SPEC, 4, 5), others=(label,)), PLACES)
    assert found.range == types.Range(types.Position(0, 4), types.Position(0, 6))
    assert found.related_information
    (related,) = found.related_information
    assert related.location.uri == from_fs_path("/folder/parts/common.arch")
    assert related.location.range == types.Range(types.Position(1, 2), types.Position(1, 13))
    assert related.message == "defined here"


def test_a_finding_in_another_file_is_shown_where_this_one_meets_it() -> None:
    label = Label(Span(SPEC, 0, 3), "used here")
    found = convert.diagnostic(Made(span=Span(COMMON, 7, 13), others=(label,)), PLACES)
    assert found.range == types.Range(types.Position(0, 0), types.Position(0, 3))
    assert found.related_information
    assert [each.location.uri for each in found.related_information] == [from_fs_path(COMMON.name), URI]
    alone = convert.diagnostic(Made(span=Span(COMMON, 7, 13)), PLACES)
    assert alone.range == types.Range(types.Position(0, 0), types.Position(0, 0))


def test_a_quick_fix_may_edit_another_file() -> None:
    here, there = Edit(Span(SPEC, 13, 19), "layer"), Edit(Span(COMMON, 7, 13), "let")
    helps = (Help("say it so"), Help("here", here), Help("there", there))
    found = Made(span=Span(SPEC, 13, 19), ways=helps)
    actions = convert.code_actions([found], PLACES.range(found.span), PLACES, 7)
    assert [action.title for action in actions] == ["here", "there"]
    targets = []
    for action in actions:
        assert action.edit is not None
        assert action.edit.document_changes
        (change,) = action.edit.document_changes
        assert isinstance(change, types.TextDocumentEdit)
        targets.append((change.text_document.uri, change.text_document.version))
    assert targets == [(URI, 7), (from_fs_path(COMMON.name), None)]
    elsewhere = types.Range(types.Position(2, 0), types.Position(2, 0))
    assert convert.code_actions([found], elsewhere, PLACES, 7) == []


@pytest.mark.parametrize("uri", ["file:///folder/a%20b.arch", "untitled:Untitled-1", "vscode-vfs://host/a.arch"])
def test_a_document_is_named_by_its_path(uri: str) -> None:
    name = Document(uri, 1, "", ENCODING).name
    assert name == (str(Path("/folder/a b.arch")) if uri.startswith("file:") else uri)


def test_what_goes_wrong_inside_is_logged_and_answered_with_nothing() -> None:
    def question(document: Document) -> str:
        raise RuntimeError("this should not happen")

    async def scenario() -> None:
        server = make_server()
        logged: list[types.LogMessageParams] = []
        server.window_log_message = logged.append  # type: ignore[method-assign]
        server.documents[URI] = Document(URI, 1, "model m {}", ENCODING)
        assert await server.ask(URI, question, "nothing") == "nothing"
        assert await server.ask("file:///unknown", question, "nothing") == "nothing"
        (entry,) = logged
        assert entry.type == types.MessageType.Error
        assert "this should not happen" in entry.message
        assert await server.ask(URI, lambda document: document.text, "") == "model m {}"

    asyncio.run(scenario())
