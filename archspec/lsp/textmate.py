"""The TextMate grammar, made from the words that the grammar and the models know, so that it cannot go stale.

`python -m archspec.lsp.textmate > editors/vscode/syntaxes/archspec.tmLanguage.json` writes it. The patterns keep to
what Oniguruma, JavaScript and Python read alike.
"""

import json
import sys
from collections.abc import Iterable
from typing import Any

from archspec.lsp.words import CHOICES, VALUES
from archspec.spec.elaborate import MIXERS
from archspec.syntax.parser import expected_at, keywords

STATEMENT = "keyword.control.archspec"
SETTING = "support.type.property-name.archspec"
WORD = "keyword.operator.word.archspec"
MIXER = "support.function.mixer.archspec"
KIND = "support.constant.kind.archspec"
NAME = "entity.name.type.archspec"
LET = "variable.other.constant.archspec"
"""Numbers with a name are mostly written in capitals; others look like any word."""
CACHE = "variable.other.cache.archspec"
TEMPLATE = "entity.name.function.archspec"
CONSTANT = "variable.other.constant.archspec"
NUMBER = "constant.numeric.archspec"

_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*"
_BLANK = r"[ \t]*"
_GAP = r"[ \t]+"


def scopes() -> dict[str, str]:
    """Every word of the language -> its scope. A keyword of several uses counts as the first of them."""
    settings = _settings()
    statements = {word for text in ("", "model m {\n") for phrase in _phrases(text) for word in phrase.split()}
    found = {word: KIND for words in (*CHOICES.values(), VALUES) for word in words}
    found |= dict.fromkeys(MIXERS, MIXER)
    for word in keywords():
        found[word] = SETTING if word in settings else STATEMENT if word in statements else WORD
    return found


def _settings() -> set[str]:
    """Words of which settings consist, in layers and in the header; `layers`, which is a statement first, is not."""
    found = set()
    for before in ("model m {\nlayers 1-2 attend, ", "model m {\nwidth 1, "):
        for phrase in set(_phrases(before)) - {"layers"}:
            found |= {word for text in (phrase, *_phrases(f"{before}{phrase} ")) for word in text.split()}
    return found - {"last", "rest"}


def _phrases(text: str) -> list[str]:
    """Keywords that may follow a text."""
    at = expected_at(text, len(text))
    return [] if at is None else list(at.phrases.values())


def _either(words: Iterable[str]) -> str:
    """One of some words, whole; the longest first."""
    return rf"(?<![\w-])(?:{'|'.join(sorted(words, key=lambda word: (-len(word), word)))})(?![\w-])"


def _match(pattern: str, scope: str = "", **captures: str) -> dict[str, Any]:
    found: dict[str, Any] = {"match": pattern}
    if scope:
        found["name"] = scope
    if captures:
        found["captures"] = {key.removeprefix("c"): {"name": name} for key, name in captures.items()}
    return found


def grammar() -> dict[str, Any]:
    """The TextMate grammar as plain values."""
    words: dict[str, list[str]] = {}
    for word, scope in scopes().items():
        words.setdefault(scope, []).append(word)
    at = "punctuation.separator.at.archspec"
    patterns = [
        _match(r"#.*$", "comment.line.number-sign.archspec"),
        _match(rf"(?<![\w-])(model|extends){_GAP}([A-Za-z_][A-Za-z0-9_.-]*)", c1=STATEMENT, c2=NAME),
        _match(rf"(?<![\w-])(define|like){_GAP}({_NAME})", c1=STATEMENT, c2=TEMPLATE),
        _match(rf"(?<![\w-])(let){_GAP}([A-Za-z_][A-Za-z0-9_]*)", c1=STATEMENT, c2=CONSTANT),
        _match(
            rf"(?<![\w-])(cache)(?:{_GAP}({_NAME}))?{_BLANK}(@){_BLANK}(\d+|last|below)(?![\w-])",
            c1=STATEMENT,
            c2=CACHE,
            c3=at,
            c4=CACHE,
        ),
        _match(rf"(?<![\w-])(cache){_GAP}({_NAME})", c1=STATEMENT, c2=CACHE),
        _match(rf"(?<![\w-])(emit){_GAP}({_NAME})", c1=STATEMENT, c2=CACHE),
        _match(rf"(?<![\w-])(blocks|tokens)(\.)(?!cache(?![\w-]))({_NAME})", c1=STATEMENT, c2=at, c3=CACHE),
        _match(r"\"[^\"\n]*\"?", "string.quoted.double.archspec"),
        *(_match(_either(words[scope]), scope) for scope in sorted(words)),
        _match(r"1[ \t]*\+[ \t]*w(?![\w-])", KIND),
        _match(r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?%?", NUMBER),
        _match(r"\.\.|[-–—+*/×=]|x(?=[ \t]*\d)", "keyword.operator.archspec"),
        _match(r"[{}()]", "punctuation.section.archspec"),
        _match(r"[,:@.]", "punctuation.separator.archspec"),
        _match(r"(?<!\w)[A-Z][A-Z0-9_]*(?![\w-])", LET),
    ]
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "archspec",
        "scopeName": "source.archspec",
        "fileTypes": ["arch"],
        "patterns": patterns,
    }


def text() -> str:
    """The grammar as the file has it."""
    return json.dumps(grammar(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
