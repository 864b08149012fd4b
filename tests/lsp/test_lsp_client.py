"""The language server through a real client over stdio."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest
from lsp_sessions import PATIENCE, ROOT, Session, run
from lsprotocol import types

from archspec.driver import analyse_text, check

YOCO = (ROOT / "specs/yoco/yoco_3b_window.arch").read_text("utf-8")
HEADER = "layers 4, width 256, vocab 32000, ffn swiglu(688), rope 10000, heads 8 x 32"
BROKEN = """# naïve 😀 × – comment
model m {  # 😀
  layers 4, width 256, vocab 32000, ffn swiglu(688), rope 10000, heads 8 × 32

  layers 1–2 attend, window 1024 # 😀 × – here
  layers 3–4 cross-attend to cache@2
}
"""


def test_findings_while_typing() -> None:
    async def scenario(session: Session) -> None:
        uri = session.open(BROKEN)
        (found,) = await session.diagnostics(uri)
        assert (found.code, found.severity, found.source) == ("E0501", types.DiagnosticSeverity.Error, "archspec")
        assert session.piece(uri, found.range) == "cache@2"
        assert "silently see 1024" in found.message
        assert "help: write `window 1024` for the readers" in found.message
        assert found.related_information
        (related,) = found.related_information
        assert related.location.uri == uri
        assert session.piece(uri, related.location.range) == "window 1024"

        session.change(uri, BROKEN.replace(", window 1024 #", " #"))
        assert await session.diagnostics(uri) == []
        session.change(uri, BROKEN)
        assert len(await session.diagnostics(uri)) == 1
        session.client.text_document_did_close(
            types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(uri)),
        )
        await session.client.text_document_hover_async(session.at(types.HoverParams, uri, types.Position(0, 0)))
        assert not session.published[-1].diagnostics

    run(scenario)


@pytest.mark.parametrize("encoding", list(types.PositionEncodingKind))
def test_positions_count_what_was_agreed(encoding: types.PositionEncodingKind) -> None:
    text = "model m {\n  layers 2, width 64, vocab 8, ffn swiglu(8), heads 4 × 16, rop 10000\n  layers 1–2 attend\n}\n"
    size = {"utf-8": len("×".encode()), "utf-16": 1, "utf-32": 1}[encoding.value]

    async def scenario(session: Session) -> None:
        uri = session.open(text)
        (found,) = await session.diagnostics(uri)
        column = text.split("\n")[1].index("rop") + size - 1
        assert found.range == types.Range(types.Position(1, column), types.Position(1, column + 3))

    run(scenario, encoding)


def test_a_burst_of_edits_leaves_what_check_finds() -> None:
    """Random edits of a real spec; requests in between. The last version counts, and nothing goes wrong inside."""
    chance = random.Random(20240508)
    pieces = [
        "cache@",
        "layers ",
        ",",
        "\n",
        "}",
        "{",
        "13",
        "-",
        " to ",
        "attend",
        "😀",
        "×",
        "@",
        "\u2028",
        "\r",
        "#",
        "\x0c",
    ]

    async def scenario(session: Session) -> None:
        uri = session.open(YOCO)
        text = YOCO
        for step in range(200):
            at = chance.randrange(len(text) + 1)
            end = min(len(text), at + chance.choice((0, 0, 1, 3)))
            text = text[:at] + chance.choice(pieces) + text[end:]
            if chance.random() < 0.05:
                text = YOCO
            session.change(uri, text)
            if step % 10 == 0:
                position = types.Position(chance.randrange(14), chance.randrange(60))
                await session.client.text_document_completion_async(session.at(types.CompletionParams, uri, position))
                await session.client.text_document_hover_async(session.at(types.HoverParams, uri, position))
        shown = await session.diagnostics(uri)
        wanted = analyse_text(text).diagnostics
        assert [(each.code, each.message.split("\n")[0]) for each in shown] == [
            (each.code, each.message()) for each in wanted
        ]
        assert len(session.published) < 200  # a burst does not pile up

    run(scenario)


def test_buffers_that_are_no_specs(tmp_path: Path) -> None:
    """Every buffer gets what `check` says of a file with that text."""
    texts = ["", " \n", "\0", "\ufeffmodel m {", "}" * 3000, "{" * 3000, "model " * 500, "# 😀", "x" * (1 << 20) + "yz"]

    async def scenario(session: Session) -> None:
        for idx, text in enumerate(texts):
            path = tmp_path / f"{idx}.arch"
            path.write_text(text, "utf-8", newline="")
            uri = session.open(text, path)
            shown = await session.diagnostics(uri)
            assert [each.code for each in shown] == [each.code for each in check(path)], idx
            for kind, ask in (
                (types.HoverParams, session.client.text_document_hover_async),
                (types.CompletionParams, session.client.text_document_completion_async),
                (types.DefinitionParams, session.client.text_document_definition_async),
            ):
                await ask(session.at(kind, uri, types.Position(0, 3)))

    run(scenario)


def test_hover_definition_references_outline() -> None:
    async def scenario(session: Session) -> None:
        client = session.client
        uri = session.open(YOCO)
        reader = session.place(uri, "cache@13, heads")

        hover = await client.text_document_hover_async(session.at(types.HoverParams, uri, reader))
        assert hover is not None
        assert isinstance(hover.contents, types.MarkupContent)
        assert "a projection of layer 13's output" in hover.contents.value
        assert "4,096 bytes a token" in hover.contents.value
        assert hover.range is not None
        assert session.piece(uri, hover.range) == "cache@13"

        found = await client.text_document_definition_async(session.at(types.DefinitionParams, uri, reader))
        assert isinstance(found, list)
        (place,) = found
        assert isinstance(place, types.Location)
        assert place.range.start == session.place(uri, "cache@13: kv")

        context = types.ReferenceContext(include_declaration=False)
        asked = session.at(types.ReferenceParams, uri, reader, context=context)
        places = await client.text_document_references_async(asked)
        assert places is not None
        wanted = [session.place(uri, "cache@13, heads"), session.place(uri, "cache@13\n")]
        assert [each.range.start for each in places] == wanted

        marked = await client.text_document_document_highlight_async(
            session.at(types.DocumentHighlightParams, uri, reader)
        )
        assert marked is not None
        assert len(marked) == 3

        outline = await client.text_document_document_symbol_async(
            types.DocumentSymbolParams(types.TextDocumentIdentifier(uri))
        )
        assert outline is not None
        (model,) = outline
        assert isinstance(model, types.DocumentSymbol)
        assert model.name == "yoco_3b_window"
        assert [child.name for child in model.children or ()] == [
            "layers 1-13",
            "cache@13",
            "layers 14-26",
            "prefill exit",
        ]

    run(scenario)


def test_completion_in_whole_and_in_broken_text() -> None:
    async def labels(session: Session, uri: str, mark: str) -> list[str]:
        found = await session.client.text_document_completion_async(
            session.at(types.CompletionParams, uri, session.place(uri, mark, behind=True))
        )
        assert isinstance(found, types.CompletionList)
        return [item.label for item in found.items]

    async def scenario(session: Session) -> None:
        uri = session.open(YOCO)
        assert (await labels(session, uri, "attend to "))[0] == "cache@13"
        broken = YOCO.replace("cross-attend to cache@13, heads 24 x 128", "cross-attend to cache@, haeds")
        session.change(uri, broken.removesuffix("}\n").replace("cache@13: kv heads 8 x 128, norm rms", "cache@13: kv "))
        assert (await labels(session, uri, "attend to cache@"))[0] == "cache@13"
        assert await labels(session, uri, "13: kv ") == ["heads"]

    run(scenario)


def test_used_files_are_read_as_the_editor_has_them(tmp_path: Path) -> None:
    """Findings and names come from the buffer of a used file, saved or not, and from the disk once it is closed."""
    common, root = tmp_path / "common.arch", tmp_path / "root.arch"
    saved = "let W = 1024\n"
    common.write_text(saved, "utf-8")
    text = f'use "common.arch"\nmodel m {{\n  {HEADER}\n  layers 1-4 attend, window W\n}}\n'
    root.write_text(text, "utf-8")

    async def newest(session: Session, uri: str, codes: list[str]) -> None:
        while not session.published or [each.code for each in _last(session, uri)] != codes:
            session.news.clear()
            await asyncio.wait_for(session.news.wait(), PATIENCE)

    async def scenario(session: Session) -> None:
        uri = session.open(text, root)
        assert await session.diagnostics(uri) == []
        used = session.open(saved, common)
        session.change(used, "let W = 0\n")
        await newest(session, uri, ["E0015"])
        session.change(used, "let W = 8\nlet M_LOCAL = 4\n")
        await newest(session, uri, [])
        place = session.at(types.CompletionParams, uri, session.place(uri, "window ", behind=True))
        offered = await session.client.text_document_completion_async(place)
        assert isinstance(offered, types.CompletionList)
        assert {"W", "M_LOCAL"} <= {item.label for item in offered.items}
        session.change(used, "let V = 8\n")
        await newest(session, uri, ["E0032"])
        closed = types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(used))
        session.client.text_document_did_close(closed)
        await newest(session, uri, [])

    run(scenario)


def _last(session: Session, uri: str) -> list[types.Diagnostic]:
    """What was published last for a buffer."""
    found = [params for params in session.published if params.uri == uri]
    return list(found[-1].diagnostics) if found else []


def test_quick_fixes() -> None:
    async def scenario(session: Session) -> None:
        text = YOCO.replace("norm rms(1e-5)", "nrom rms(1e-5)")
        uri = session.open(text)
        (found,) = await session.diagnostics(uri)
        actions = await session.client.text_document_code_action_async(
            types.CodeActionParams(
                types.TextDocumentIdentifier(uri),
                found.range,
                types.CodeActionContext([found]),
            )
        )
        assert actions
        action = actions[0]
        assert isinstance(action, types.CodeAction)
        assert list(action.diagnostics or ()) == [found]
        assert action.edit is not None
        assert action.edit.document_changes
        (change,) = action.edit.document_changes
        assert isinstance(change, types.TextDocumentEdit)
        assert change.text_document.version == 1
        (edit,) = change.edits
        assert isinstance(edit, types.TextEdit)
        assert (session.piece(uri, edit.range), edit.new_text) == ("nrom", "norm")

        nowhere = types.Range(types.Position(0, 0), types.Position(0, 1))
        asked = types.CodeActionParams(types.TextDocumentIdentifier(uri), nowhere, types.CodeActionContext([]))
        assert not await session.client.text_document_code_action_async(asked)

    run(scenario)


def test_formatting() -> None:
    """The text that `archspec fmt` writes; nothing for a text that is well laid out, or that does not parse."""
    crooked = YOCO.replace("  layers 1-13 attend, heads 24 x 128", "layers   1–13 attend ,heads 24×128 ").rstrip()

    async def scenario(session: Session) -> None:
        uri = session.open(crooked)
        options = types.FormattingOptions(tab_size=8, insert_spaces=False)
        asked = types.DocumentFormattingParams(types.TextDocumentIdentifier(uri), options)
        edits = await session.client.text_document_formatting_async(asked)
        assert edits
        (edit,) = edits
        last = crooked.split("\n")
        assert edit.range == types.Range(types.Position(0, 0), types.Position(len(last) - 1, len(last[-1])))
        assert edit.new_text == YOCO
        for text in (YOCO, "model m {\nlayers  3- {", "\0"):
            session.change(uri, text)
            assert not await session.client.text_document_formatting_async(asked)

    run(scenario)


def test_it_is_said_how_to_get_the_server() -> None:
    """Without pygls one line says what to install; without torch it starts."""
    code = (
        "import sys\n"
        "sys.modules['pygls'] = None\n"
        "sys.modules['lsprotocol'] = None\n"
        "sys.argv = ['archspec', 'lsp']\n"
        "from archspec.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "archspec-lm[lsp]" in done.stderr
    assert "Traceback" not in done.stderr

    code = (
        "import sys; import archspec.lsp.server; assert 'torch' not in sys.modules; assert 'sympy' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_client_that_goes_without_goodbye() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "archspec.cli.main", "lsp", "--stdio"],
        cwd=ROOT,
        input=b"",
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == b""
