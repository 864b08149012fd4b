"""The parser of the grammar, from a table that is made beforehand: making it takes longer than all else in a check.

`python -m archspec.syntax.lalr` writes the table. One that fits neither the grammar nor the lark at hand is not used.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import lark
import lark.lexer
from lark import Lark, Token
from lark.grammar import Rule
from lark.lexer import TerminalDef

GRAMMARS = files("archspec").joinpath("grammars")
TABLE = "archspec.lalr.json"
Callbacks = Mapping[str, Callable[[Token], Token]]


def make_parser(callbacks: Callbacks) -> Lark:
    """The parser of `archspec.lark`. `callbacks` may change tokens, by terminal."""
    grammar = GRAMMARS.joinpath("archspec.lark").read_text("utf-8")
    table = _stored()
    if table.get("made_of") != _made_of(grammar):
        return _build(grammar, callbacks)
    made: Lark = Lark._load_from_dict(table["data"], table["memo"], lexer_callbacks=dict(callbacks))  # type: ignore
    return made


def _build(grammar: str, callbacks: Callbacks) -> Lark:
    with _no_collision_checks():
        return Lark(
            grammar, parser="lalr", propagate_positions=True, maybe_placeholders=False, lexer_callbacks=dict(callbacks)
        )


@contextmanager
def _no_collision_checks() -> Iterator[None]:
    """With interegular installed, lark compares every terminal with every other: 0.3 s that belong in a test."""
    wanted = getattr(lark.lexer, "has_interegular", False)
    lark.lexer.has_interegular = False
    try:
        yield
    finally:
        lark.lexer.has_interegular = wanted


def _made_of(grammar: str) -> str:
    return f"lark {lark.__version__}, grammar {sha256(grammar.encode()).hexdigest()}"


def _stored() -> dict[str, Any]:
    """The table in the package, with numbers as keys again; empty if there is none that can be read."""
    try:
        table: dict[str, Any] = json.loads(GRAMMARS.joinpath(TABLE).read_bytes())
        parser = table["data"]["parser"]["parser"]
        parser["tokens"] = _numbered(parser["tokens"])
        parser["states"] = {int(state): _numbered(actions) for state, actions in parser["states"].items()}
        table["memo"] = _numbered(table["memo"])
        return table
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _numbered(entries: dict[str, Any]) -> dict[int, Any]:
    return {int(key): value for key, value in entries.items()}


def table_text() -> str:
    """The table of the grammar as it is now, as text."""
    grammar = GRAMMARS.joinpath("archspec.lark").read_text("utf-8")
    data, memo = _build(grammar, {}).memo_serialize([TerminalDef, Rule])
    table = {"made_of": _made_of(grammar), "data": data, "memo": memo}
    return json.dumps(table, separators=(",", ":"), default=list) + "\n"


if __name__ == "__main__":
    Path(str(GRAMMARS.joinpath(TABLE))).write_text(table_text(), encoding="utf-8")
