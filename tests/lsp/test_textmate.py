"""The TextMate grammar colours every word of the language, and the extension starts the server."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from archspec.lsp import textmate
from archspec.lsp.words import CHOICES
from archspec.spec.elaborate import MIXERS
from archspec.syntax.parser import keywords

FOLDER = Path(__file__).parents[2] / "editors/vscode"
FILE = FOLDER / "syntaxes/archspec.tmLanguage.json"
SPECS = sorted((Path(__file__).parents[2] / "specs").rglob("*.arch"))


def grammar() -> dict[str, Any]:
    return json.loads(FILE.read_text("utf-8"))


def tokens(line: str) -> list[tuple[str, str]]:
    """Pieces of a line with their scopes, as TextMate finds them: the leftmost match, the first pattern among those."""
    patterns = [(re.compile(each["match"]), each) for each in grammar()["patterns"]]
    found, place = [], 0
    while place < len(line):
        matches = [
            (match.start(), idx, match)
            for idx, (pattern, _) in enumerate(patterns)
            if (match := pattern.search(line, place))
        ]
        if not matches:
            found.append((line[place:], ""))
            break
        start, idx, match = min(matches, key=lambda each: each[:2])
        assert match.end() > start, f"{patterns[idx][0].pattern} matches nothing"
        if start > place:
            found.append((line[place:start], ""))
        captures = patterns[idx][1].get("captures")
        if captures is None:
            found.append((match[0], patterns[idx][1]["name"]))
        else:
            pieces = [
                (match.span(int(key)), each["name"]) for key, each in captures.items() if match[int(key)] is not None
            ]
            found += [(line[first:last], name) for (first, last), name in sorted(pieces)]
        place = match.end()
    return found


def test_the_file_is_up_to_date() -> None:
    if os.environ.get("UPDATE_GOLDENS"):
        FILE.write_text(textmate.text(), "utf-8")
    written = FILE.read_text("utf-8")
    words = {*keywords(), *MIXERS, *(word for known in CHOICES.values() for word in known)}
    missing = sorted(word for word in words if not re.search(rf"[(|:]{re.escape(word)}[)|]", written))
    renew = "UPDATE_GOLDENS=1 pytest tests/lsp/test_textmate.py writes the file anew"
    assert missing == [], f"words that are not coloured: {missing}; {renew}"
    assert json.loads(written) == textmate.grammar(), renew


def test_every_word_has_the_colour_of_what_it_is() -> None:
    kinds = {word for known in CHOICES.values() for word in known} - set(MIXERS) - set(keywords())
    for word in keywords():
        ((text, scope),) = tokens(word)
        assert text == word
        assert scope.startswith(("keyword.", "support.type.")), (word, scope)
    for words, wanted in ((MIXERS, textmate.MIXER), (kinds, textmate.KIND)):
        for word in words:
            assert tokens(f"x, {word},")[-2] == (word, wanted)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("model m-1.5 {", [("model", textmate.STATEMENT), ("m-1.5", textmate.NAME)]),
        ("cache main@13: norm rms", [("main", textmate.CACHE), ("13", textmate.CACHE), ("norm", textmate.SETTING)]),
        ("layers 1-2 cross-attend to cache@below", [("cross-attend", textmate.MIXER), ("below", textmate.CACHE)]),
        ("prefix 2 from blocks.context", [("2", textmate.NUMBER), ("context", textmate.CACHE)]),
        ("norm rms(1e-6, 1+w) # layers", [("1e-6", textmate.NUMBER), ("1+w", textmate.KIND)]),
        ("rope 10000 on 25%", [("10000", textmate.NUMBER), ("25%", textmate.NUMBER)]),
    ],
)
def test_lines(line: str, wanted: list[tuple[str, str]]) -> None:
    assert set(wanted) <= set(tokens(line))


@pytest.mark.parametrize("text", ["layersfoo", "my-layers", "layers-x", "attend_", "foo"])
def test_other_words_have_none(text: str) -> None:
    assert all(not scope.startswith(("keyword.control", "support.")) for _, scope in tokens(text))


def test_nothing_in_the_shipped_specs_is_without_colour() -> None:
    for path in SPECS:
        for line in path.read_text("utf-8").splitlines():
            bare = [text for text, scope in tokens(line) if not scope and text.strip()]
            assert bare == [], (path, line)


def test_patterns_are_read_alike_everywhere() -> None:
    """Nothing that Oniguruma and Python read differently: classes such as \\h, \\G, possessive quantifiers, flags."""
    for each in grammar()["patterns"]:
        assert not re.search(r"\\[hHGKRXzZAQE]|\(\?[imsx>#P]|[*+?}]\+", each["match"]), each["match"]


def test_the_extension_names_files_that_exist() -> None:
    package = json.loads((FOLDER / "package.json").read_text("utf-8"))
    language = package["contributes"]["languages"][0]
    named = [package["main"], language["configuration"], package["contributes"]["grammars"][0]["path"]]
    assert all((FOLDER / name).is_file() for name in named)
    configuration = json.loads((FOLDER / "language-configuration.json").read_text("utf-8"))
    opens = re.compile(configuration["indentationRules"]["increaseIndentPattern"])
    assert opens.search("model m { # yes")
    assert not opens.search("# model {")
    word = re.compile(configuration["wordPattern"])
    assert word.match("cross-attend")[0] == "cross-attend"  # type: ignore[index]


STUBS = {
    "vscode": """
        const settings = { command: "~/bin/archspec", arguments: ["lsp"] };
        module.exports = {
          workspace: {
            getConfiguration: () => ({ get: (key, otherwise) => settings[key] ?? otherwise }),
            createFileSystemWatcher: (glob) => ({ glob, dispose() {} }),
            onDidChangeConfiguration: () => ({}),
          },
          commands: { registerCommand: (name) => ({ name }) },
          window: { showErrorMessage: (text) => console.log("error", text) },
        };""",
    "vscode-languageclient/node": """
        exports.LanguageClient = class {
          constructor(id, name, server, options) { console.log(JSON.stringify({ id, server, options })); }
          async start() { if (process.env.FAIL) throw new Error("ENOENT"); }
          async stop() { console.log("stopped"); }
        };""",
}


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("fails", [False, True])
def test_the_extension_starts_the_server(tmp_path: Path, fails: bool) -> None:
    for name, code in STUBS.items():
        file = tmp_path / "node_modules" / name / "index.js"
        file.parent.mkdir(parents=True)
        file.write_text(code)
    shutil.copy(FOLDER / "extension.js", tmp_path)
    script = "const e = require('./extension.js'); e.activate({ subscriptions: [] }).then(() => e.deactivate())"
    env = {**os.environ, "HOME": "/home/me", **({"FAIL": "1"} if fails else {})}
    done = subprocess.run(
        ["node", "-e", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=60
    )
    first, last = done.stdout.splitlines()
    started = json.loads(first)
    assert started["server"] == {"command": "/home/me/bin/archspec", "args": ["lsp"]}
    assert started["options"]["documentSelector"] == [{"language": "archspec"}]
    assert last == "stopped" if not fails else last.startswith("error archspec: `/home/me/bin/archspec` did not start")
