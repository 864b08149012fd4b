"""The language server: the protocol on one side, questions about documents on the other.

Contract: no buffer ends it. What goes wrong inside is sent to the client's log, and the request has an empty answer.
One thread works on documents, so that the loop stays free to read what is typed meanwhile.
"""

import asyncio
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from archspec.diagnostics import Diagnostic
from archspec.files import read_source, source_of_text
from archspec.fmt import format_source
from archspec.lsp import convert
from archspec.lsp.complete import suggestions
from archspec.lsp.documents import Document
from archspec.lsp.hover import hover
from archspec.lsp.navigate import definitions, references, symbols
from archspec.source import Source

PAUSE = 0.15
"""Seconds without a key before a changed buffer is checked."""

_T = TypeVar("_T")


class ArchspecServer(LanguageServer):
    """Open documents, and which of them wait to be checked."""

    def __init__(self) -> None:
        super().__init__("archspec", _version(), text_document_sync_kind=types.TextDocumentSyncKind.Full)
        self.documents: dict[str, Document] = {}
        self.was_shut_down = False
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="archspec")
        self._checking: dict[str, asyncio.Task[None]] = {}

    def put(self, uri: str, document_version: int | None, text: str, pause: float = PAUSE) -> None:
        """Take the newest text of a buffer, and check it once nothing is typed for a while."""
        encoding = types.PositionEncodingKind(self.workspace.position_encoding or types.PositionEncodingKind.Utf16)
        self.documents[uri] = Document(uri, document_version, text, encoding, self.read)
        if uri not in self._checking:
            self._checking[uri] = asyncio.create_task(self._check(uri, pause))

    def drop(self, uri: str) -> None:
        """Forget a buffer and what was said about it."""
        self.documents.pop(uri, None)
        self._publish(uri, None, [])

    def read(self, path: Path) -> tuple[Source, Diagnostic | None]:
        """The text of a file as the editor has it, else as it lies on the disk."""
        resolved = path.resolve()
        for document in list(self.documents.values()):
            if document.path is not None and Path(document.path).resolve() == resolved:
                return source_of_text(str(path), document.text, path.parent)
        return read_source(path)

    def recheck(self, but: str | None = None) -> None:
        """Check every buffer again that may use a file which has changed, in the editor or on the disk."""
        for uri, document in list(self.documents.items()):
            if uri != but and document.uses_files:
                self.put(uri, document.version, document.text)

    async def ask(self, uri: str, question: Callable[[Document], _T], otherwise: _T) -> _T:
        """The answer to a question about a buffer as it is now. Never raises."""
        document = self.documents.get(uri)
        if document is None:
            return otherwise
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, question, document)
        except Exception:
            self.log_failure()
            return otherwise

    def report_server_error(self, error: Exception, source: object) -> None:
        """pygls calls this for messages that it cannot read; they belong into the log, not into people's faces."""
        self.window_log_message(types.LogMessageParams(types.MessageType.Error, f"archspec: {error}"))

    def log_failure(self) -> None:
        """Send the exception that is being handled to the client's log."""
        message = f"archspec: internal error, please report it\n{traceback.format_exc()}"
        self.window_log_message(types.LogMessageParams(types.MessageType.Error, message))

    async def _check(self, uri: str, pause: float) -> None:
        """Publish what is found in a buffer; at most one of these runs a buffer, and only its newest text counts."""
        try:
            while (document := self.documents.get(uri)) is not None:
                await asyncio.sleep(pause)
                pause = PAUSE
                if self.documents.get(uri) is not document:
                    continue
                nothing: list[types.Diagnostic] = []
                found = await self.ask(uri, _diagnostics, nothing)
                if self.documents.get(uri) is document:
                    self._publish(uri, document.version, found)
                    return
        finally:
            del self._checking[uri]

    def _publish(self, uri: str, document_version: int | None, found: list[types.Diagnostic]) -> None:
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, found, document_version))


def _version() -> str:
    try:
        return version("archspec-lm")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0"


def _diagnostics(document: Document) -> list[types.Diagnostic]:
    return [convert.diagnostic(found, document.places) for found in document.analysis.diagnostics]


def did_open(ls: ArchspecServer, params: types.DidOpenTextDocumentParams) -> None:
    item = params.text_document
    ls.put(item.uri, item.version, item.text, pause=0.0)
    ls.recheck(but=item.uri)


def did_change(ls: ArchspecServer, params: types.DidChangeTextDocumentParams) -> None:
    if params.content_changes:  # each is the whole text
        ls.put(params.text_document.uri, params.text_document.version, params.content_changes[-1].text)
        ls.recheck(but=params.text_document.uri)


def did_save(ls: ArchspecServer, params: types.DidSaveTextDocumentParams) -> None:
    ls.recheck(but=params.text_document.uri)


def watched_files_changed(ls: ArchspecServer, params: types.DidChangeWatchedFilesParams) -> None:
    ls.recheck()


def did_close(ls: ArchspecServer, params: types.DidCloseTextDocumentParams) -> None:
    ls.drop(params.text_document.uri)
    ls.recheck()


def on_shutdown(ls: ArchspecServer, params: None) -> None:
    ls.was_shut_down = True


async def on_hover(ls: ArchspecServer, params: types.HoverParams) -> types.Hover | None:
    def question(document: Document) -> types.Hover | None:
        found = hover(document.view, document.places.positions.offset(params.position))
        if found is None:
            return None
        content = types.MarkupContent(types.MarkupKind.Markdown, found.text)
        return types.Hover(content, document.places.range(found.span))

    return await ls.ask(params.text_document.uri, question, None)


async def on_definition(ls: ArchspecServer, params: types.DefinitionParams) -> list[types.Location]:
    def question(document: Document) -> list[types.Location]:
        offset = document.places.positions.offset(params.position)
        return [document.places.location(span) for span in definitions(document.view, offset)]

    return await ls.ask(params.text_document.uri, question, [])


async def on_references(ls: ArchspecServer, params: types.ReferenceParams) -> list[types.Location]:
    def question(document: Document) -> list[types.Location]:
        offset = document.places.positions.offset(params.position)
        found = references(document.view, offset, params.context.include_declaration)
        return [document.places.location(span) for span in found]

    return await ls.ask(params.text_document.uri, question, [])


async def on_highlight(ls: ArchspecServer, params: types.DocumentHighlightParams) -> list[types.DocumentHighlight]:
    def question(document: Document) -> list[types.DocumentHighlight]:
        found = references(document.view, document.places.positions.offset(params.position))
        return [types.DocumentHighlight(document.places.range(span)) for span in found if document.places.is_own(span)]

    return await ls.ask(params.text_document.uri, question, [])


async def on_symbols(ls: ArchspecServer, params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
    def question(document: Document) -> list[types.DocumentSymbol]:
        return [convert.symbol(found, document.places) for found in symbols(document.view)]

    return await ls.ask(params.text_document.uri, question, [])


async def on_completion(ls: ArchspecServer, params: types.CompletionParams) -> types.CompletionList:
    def question(document: Document) -> types.CompletionList:
        offset = document.places.positions.offset(params.position)
        found = suggestions(document.view, offset)
        items = [convert.completion(each, document.places, offset, rank) for rank, each in enumerate(found)]
        return types.CompletionList(is_incomplete=True, items=items)

    return await ls.ask(params.text_document.uri, question, types.CompletionList(is_incomplete=True, items=[]))


async def on_code_action(ls: ArchspecServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    def question(document: Document) -> list[types.CodeAction]:
        found = document.analysis.diagnostics
        return convert.code_actions(found, params.range, document.places, document.version)

    return await ls.ask(params.text_document.uri, question, [])


async def on_formatting(ls: ArchspecServer, params: types.DocumentFormattingParams) -> list[types.TextEdit]:
    def question(document: Document) -> list[types.TextEdit]:
        formatted = format_source(document.analysis.source)
        if not formatted.ok or not formatted.changed:
            return []
        whole = document.places.positions.range(0, len(document.text))
        return [types.TextEdit(whole, formatted.text)]

    return await ls.ask(params.text_document.uri, question, [])


def make_server() -> ArchspecServer:
    """A server with all that it can do."""
    server = ArchspecServer()
    server.feature(types.TEXT_DOCUMENT_DID_OPEN)(did_open)
    server.feature(types.TEXT_DOCUMENT_DID_CHANGE)(did_change)
    server.feature(types.TEXT_DOCUMENT_DID_SAVE)(did_save)
    server.feature(types.TEXT_DOCUMENT_DID_CLOSE)(did_close)
    server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)(watched_files_changed)
    server.feature(types.SHUTDOWN)(on_shutdown)
    server.feature(types.TEXT_DOCUMENT_HOVER)(on_hover)
    server.feature(types.TEXT_DOCUMENT_DEFINITION)(on_definition)
    server.feature(types.TEXT_DOCUMENT_REFERENCES)(on_references)
    server.feature(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)(on_highlight)
    server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)(on_symbols)
    server.feature(types.TEXT_DOCUMENT_FORMATTING)(on_formatting)
    server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=["@", "."]))(
        on_completion
    )
    quick_fixes = types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])
    server.feature(types.TEXT_DOCUMENT_CODE_ACTION, quick_fixes)(on_code_action)
    return server


def serve() -> bool:
    """Speak LSP over standard input and output until the client says goodbye; whether it did so in order."""
    server = make_server()
    server.start_io()
    return server.was_shut_down
