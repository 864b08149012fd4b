"""A real client that talks to `archspec lsp` over stdio."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.uris import from_fs_path
from pytest_lsp import LanguageClient

ROOT = Path(__file__).parents[2]
PATIENCE = 60
"""Seconds until a test gives up waiting; nothing is asserted about time."""


class Session:
    """One client with one server, and what the server said unasked."""

    def __init__(self, client: LanguageClient) -> None:
        self.client = client
        self.published: list[types.PublishDiagnosticsParams] = []
        self.logged: list[types.LogMessageParams] = []
        self.news = asyncio.Event()
        self.texts: dict[str, str] = {}
        self.versions: dict[str, int] = {}

        def publish(params: types.PublishDiagnosticsParams) -> None:
            self.published.append(params)
            self.news.set()

        def log(params: types.LogMessageParams) -> None:
            self.logged.append(params)

        client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(publish)
        client.feature(types.WINDOW_LOG_MESSAGE)(log)

    def open(self, text: str, path: Path | str = "/nowhere/buffer.arch", version: int = 1) -> str:
        uri = from_fs_path(str(path))
        assert uri is not None
        self.texts[uri], self.versions[uri] = text, version
        item = types.TextDocumentItem(uri, "archspec", version, text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return uri

    def change(self, uri: str, text: str) -> int:
        self.texts[uri] = text
        self.versions[uri] += 1
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(self.versions[uri], uri),
                [types.TextDocumentContentChangeWholeDocument(text)],
            )
        )
        return self.versions[uri]

    async def diagnostics(self, uri: str, version: int | None = None) -> list[types.Diagnostic]:
        """What is published for a version, the newest if none is given."""
        wanted = self.versions[uri] if version is None else version
        while True:
            for params in reversed(self.published):
                if params.uri == uri and params.version == wanted:
                    return list(params.diagnostics)
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), PATIENCE)

    def place(self, uri: str, mark: str, occurrence: int = 0, behind: bool = False) -> types.Position:
        """The position of a piece of text, in UTF-16 units."""
        text = self.texts[uri]
        offset = -1
        for _ in range(occurrence + 1):
            offset = text.index(mark, offset + 1)
        offset += len(mark) if behind else 0
        line = text.count("\n", 0, offset)
        before = text[text.rfind("\n", 0, offset) + 1 : offset]
        return types.Position(line, len(before.encode("utf-16-le")) // 2)

    def piece(self, uri: str, found: types.Range) -> str:
        """The text of a range."""
        lines = self.texts[uri].split("\n")
        assert found.start.line == found.end.line
        units = lines[found.start.line].encode("utf-16-le")
        return units[2 * found.start.character : 2 * found.end.character].decode("utf-16-le")

    def at(self, kind: Any, uri: str, position: types.Position, **more: Any) -> Any:
        """Parameters of a request about a position."""
        return kind(text_document=types.TextDocumentIdentifier(uri), position=position, **more)


def capabilities(*encodings: types.PositionEncodingKind) -> types.ClientCapabilities:
    """Those of an editor such as VS Code."""
    return types.ClientCapabilities(
        general=types.GeneralClientCapabilities(position_encodings=list(encodings)) if encodings else None,
        text_document=types.TextDocumentClientCapabilities(
            hover=types.HoverClientCapabilities(content_format=[types.MarkupKind.Markdown]),
            publish_diagnostics=types.PublishDiagnosticsClientCapabilities(
                related_information=True, version_support=True
            ),
            document_symbol=types.DocumentSymbolClientCapabilities(hierarchical_document_symbol_support=True),
            formatting=types.DocumentFormattingClientCapabilities(),
            completion=types.CompletionClientCapabilities(
                completion_item=types.ClientCompletionItemOptions(
                    documentation_format=[types.MarkupKind.Markdown],
                )
            ),
            code_action=types.CodeActionClientCapabilities(
                code_action_literal_support=types.ClientCodeActionLiteralOptions(
                    types.ClientCodeActionKindOptions([types.CodeActionKind.QuickFix])
                ),
                is_preferred_support=True,
            ),
        ),
        workspace=types.WorkspaceClientCapabilities(
            workspace_edit=types.WorkspaceEditClientCapabilities(document_changes=True)
        ),
    )


def run(scenario: Callable[[Session], Awaitable[None]], *encodings: types.PositionEncodingKind) -> None:
    """Start a server, say hello, run a scenario, say goodbye. The server must end in order and without a complaint."""

    async def whole() -> None:
        client = LanguageClient()
        session = Session(client)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        await client.start_io(sys.executable, "-m", "archspec.cli.main", "lsp", env=env)
        try:
            await client.initialize_session(types.InitializeParams(capabilities=capabilities(*encodings)))
            await scenario(session)
            assert [entry.message for entry in session.logged if entry.type == types.MessageType.Error] == []
            await asyncio.wait_for(client.shutdown_session(), PATIENCE)
            assert client._server is not None
            assert client._server.returncode == 0
        finally:
            if client._server is not None and client._server.returncode is None:
                client._server.kill()
            await client.stop()

    asyncio.run(whole())
