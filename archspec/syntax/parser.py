"""Text -> located syntax tree, with every syntax error of the file.

Contract: `parse_text` never raises for any text. The only module that knows lark; what happens after an error is in
`archspec.syntax.recovery`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

import lark.lexer
from lark import Lark, Token, Transformer, UnexpectedInput, v_args
from lark.tree import Meta

from archspec.diagnostics import Diagnostic, Edit
from archspec.source import Source, Span
from archspec.syntax import errors, expecting, missing, scan, tree
from archspec.syntax.lexemes import Lexeme
from archspec.syntax.recovery import Recovery


@cache
def _lark() -> Lark:
    grammar = files("archspec").joinpath("grammars/archspec.lark").read_text("utf-8")
    with _no_collision_checks():
        return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=False)


@contextmanager
def _no_collision_checks() -> Iterator[None]:
    """With interegular installed, lark compares every terminal with every other: 0.3 s that belong in a test."""
    wanted = getattr(lark.lexer, "has_interegular", False)
    lark.lexer.has_interegular = False
    try:
        yield
    finally:
        lark.lexer.has_interegular = wanted


@cache
def keywords() -> Mapping[str, str]:
    """Every word that the grammar itself knows, with its terminal: those with a word boundary behind them."""
    found = ((re.match(r"([a-z-]+)\(\?!\[", terminal.pattern.value), terminal.name) for terminal in _lark().terminals)
    return {word[1]: name for word, name in sorted(found, key=lambda pair: pair[1]) if word}


@cache
def grammar_rules() -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """The expansions of every nonterminal, as names of nonterminals and terminals."""
    rules: dict[str, tuple[tuple[str, ...], ...]] = {}
    for rule in _lark().rules:
        name = str(rule.origin.name)
        rules[name] = (*rules.get(name, ()), tuple(str(symbol.name) for symbol in rule.expansion))
    return rules


@cache
def terminal_words() -> Mapping[str, str]:
    """The text of every terminal that has only one."""
    words = {name: word for word, name in keywords().items()}
    return words | {t.name: t.pattern.value for t in _lark().terminals if t.pattern.type == "str"}


_DISPLAY = {
    "NAME": "a word",
    "MODEL_NAME": "a name for the model",
    "TOTAL": "a number",
    "RANGE": "a range such as `1-12`",
    "FLOAT": "a number",
    "INT": "a number",
    "_PERCENT": "`%`",
    "ONE_PLUS": "`1+w`",
    "_AT": "`@`",
    "_DOT": "`.`",
    "_COLON": "`:`",
    "_COMMA": "`,`",
    "_LPAR": "`(`",
    "_RPAR": "`)`",
    "_LBRACE": "`{`",
    "_RBRACE": "`}`",
    "_NL": "the end of the line",
    "$END": "the end of the file",
}


def _expected(terminals: frozenset[str]) -> tuple[str, ...]:
    """Expected terminals in the language's words, tokens first, then keywords."""
    if terminals in ({"NAME", "_COMMA"}, {"NAME", "_COMMA", "_STEP"}):  # after a layer list
        return ("`,`", "a mixer such as `attend`")
    if "_MODEL" in terminals:
        return ("`model`",)
    if terminals == {"BLOCKS", "_CACHE", "TOKENS"}:
        return ("a cache such as `cache@4`",)
    if "_RBRACE" not in terminals and len(terminals) > 1:
        terminals -= {"_NL"}  # a comma may be followed by a line end, but that is not what is missing
    words = sorted(f"`{word}`" for word, terminal in keywords().items() if terminal in terminals)
    if {"_HEADS", "_ROPE", "_NORM"} <= terminals:
        words = ["a statement" if "_CACHE" in terminals else "a setting such as `heads 8 x 64`"]
    return (*sorted({_DISPLAY[name] for name in terminals if name in _DISPLAY}), *words)


def parse_text(source: Source) -> tuple[tree.Model | None, list[Diagnostic]]:
    """Parse one file. The tree is None if no `model NAME { ... }` could be made out at all."""
    if (position := source.text.find("\0")) >= 0:
        return None, [errors.StrayCharacter(span=Span(source, position, position + 1), character="\0")]
    slips = list(scan.slips(source.text))
    text, odd = scan.read_through(scan.mended(source.text, slips))
    recovery = Recovery(source, text, keywords(), _expected, _token)
    try:
        parsed = _lark().parse(text, on_error=recovery.on_error)
    except UnexpectedInput:
        return None, recovery.found + _read_as(source, slips, odd, recovery)
    builder = _TreeBuilder(source, frozenset(recovery.lost), tuple(sorted(recovery.holes)))
    model = builder.transform(parsed)
    if model is None and not recovery.found:
        recovery.found.append(errors.NoModel(span=Span(source, 0, 0)))
    return model, recovery.found + _read_as(source, slips, odd, recovery)


def lexemes(text: str) -> list[Lexeme]:
    """The tokens of a text without syntax errors; blanks, line ends and comments lie between them."""
    parser: Any = _lark().parse_interactive(text)
    state = parser.parser_state
    state.parse_conf = copy(state.parse_conf)
    state.parse_conf.callbacks = {}  # no tree is built
    found: list[Lexeme] = []
    after_line_end = False
    for token in parser.lexer_thread.lex(state):
        state.feed_token(token)
        if token.type != "_NL":
            may_end_line = "_NL" in parser.choices()
            found.append(Lexeme(token.type, str(token), token.start_pos, token.end_pos, after_line_end, may_end_line))
        after_line_end = token.type == "_NL"
    return found


MAX_PLACES = 10_000
"""Places of one character that a message knows; a file with more of them is no spec."""


def _read_as(
    source: Source, slips: list[scan.Slip], odd: Mapping[str, list[int]], recovery: Recovery
) -> list[Diagnostic]:
    """What was read as what it looks like: slips, then characters, one message a kind.

    Not in statements that were dropped, nor where another message stands already.
    """
    if any(isinstance(diagnostic, errors.NoModel) for diagnostic in recovery.found):
        return []
    found: list[Diagnostic] = [
        _slip(source, slip) for slip in slips[:MAX_PLACES] if not recovery.was_dropped(slip.start)
    ]
    covered = {
        place for d in (*recovery.found, *found) for place in range(d.span.start, min(d.span.end, d.span.start + 99))
    }
    for character, places in odd.items():
        free = (place for place in places if place not in covered and not recovery.was_dropped(place))
        kept = list(islice(free, MAX_PLACES))
        if kept:
            first, *others = (Span(source, place, place + len(character)) for place in kept)
            found.append(errors.StrayCharacter(span=first, character=character, others=tuple(others)))
    return found


def expected_at(text: str, offset: int) -> expecting.Expected | None:
    """What the grammar accepts at an offset of a text that need not be whole; None in a comment."""

    def attempt(known: str, on_error: expecting.ErrorHandler) -> None:
        try:
            _lark().parse(known, on_error=on_error)
        except UnexpectedInput:
            pass  # the handler has what it wants, or there is nothing to be had

    def make_recovery(source: Source, known: str) -> Recovery:
        return Recovery(source, known, keywords(), _expected, _token)

    return expecting.expected(text, offset, attempt, keywords(), make_recovery)


def _slip(source: Source, slip: scan.Slip) -> Diagnostic:
    span = Span(source, slip.start, slip.end)
    if slip.kind == "cache":
        return missing.MissingAt(span=span, written=span.text, fixed=slip.fixed)
    what = "a range" if slip.kind == "range" else "a list"
    hint, edit = f"{what} is written `{slip.fixed}`", Edit(span, slip.fixed)
    return errors.UnexpectedText(span=span, written=f"`{span.text}`", expected=(what,), hint=hint, edit=edit)


def _token(terminal: str, text: str, start: int, end: int) -> Token:
    """A token that is not in the text. Lines and columns are not used: spans have offsets."""
    return Token(terminal, text, start, 1, 1, 1, 1, end)


def _number(token: Token) -> int | float:
    text = str(token).replace("_", "")
    return float(text) if token.type == "FLOAT" else int(text)


@v_args(meta=True)
class _TreeBuilder(Transformer[Token, Any]):
    """lark's tree -> archspec.syntax.tree; builds nodes and nothing more."""

    def __init__(self, source: Source, lost: frozenset[str], holes: tuple[int, ...]) -> None:
        super().__init__()
        self.source = source
        self.lost = lost
        self.holes = holes

    def _at(self, meta: Meta) -> Span:
        return Span(self.source, meta.start_pos, meta.end_pos)

    def _atom(self, token: Token) -> tree.Atom:
        span = Span(self.source, token.start_pos or 0, token.end_pos or 0)
        return tree.Atom(_number(token) if token.type in ("INT", "FLOAT", "TOTAL") else str(token), span)

    def _place(self, token: Token) -> Any:
        return str(token) if token.type in ("LAST", "BELOW") else _number(token)

    def start(self, meta: Meta, children: list[Any]) -> tree.Model | None:
        return children[0] if children else None

    def model(self, meta: Meta, children: list[Any]) -> tree.Model:
        return tree.Model(self._atom(children[0]), tuple(children[1:]), self._at(meta), self.lost, self.holes)

    def header(self, meta: Meta, children: list[Any]) -> tree.Header:
        return tree.Header(tuple(children), self._at(meta))

    def layers(self, meta: Meta, children: list[Any]) -> tree.Layers:
        items, mixer, *clauses = children
        span = self._at(meta)
        return tree.Layers(items, mixer, tuple(clauses), span, Span(self.source, span.start, items[-1].span.end))

    def cache(self, meta: Meta, children: list[Any]) -> tree.Cache:
        (name, layer, head), *clauses = children
        return tree.Cache(layer, name, tuple(clauses), self._at(meta), head)

    def cache_head(self, meta: Meta, children: list[Token]) -> tuple[str | None, Any, Span]:
        name = str(children[0]) if len(children) == 2 else None
        return name, self._place(children[-1]), self._at(meta)

    def cache_ref(self, meta: Meta, children: list[Token]) -> tree.Reference:
        token = children[-1]
        level = self._atom(children[0]) if len(children) == 2 else None
        if token.type == "NAME":
            return tree.Reference(None, str(token), self._at(meta), level)
        return tree.Reference(self._place(token), None, self._at(meta), level)

    def iterate(self, meta: Meta, children: list[Token]) -> tree.Iterate:
        layers, forward, backward = children
        span = Span(self.source, layers.start_pos or 0, layers.end_pos or 0)
        first, last = _range_ends(str(layers)) if layers.type == "RANGE" else _range_ends(f"{layers}-{layers}")
        item = tree.Item("range", first, last, 1, span)
        return tree.Iterate(item, self._atom(forward), self._atom(backward), self._at(meta))

    def prefill_exit(self, meta: Meta, children: list[Any]) -> tree.PrefillExit:
        return tree.PrefillExit(children[0], self._at(meta))

    def blocks_head(self, meta: Meta, children: list[Token]) -> tuple[str, tree.Atom, Span]:
        return "blocks", self._atom(children[1]), self._at(meta)

    def tokens_head(self, meta: Meta, children: list[Token]) -> tuple[str, None, Span]:
        return "tokens", None, self._at(meta)

    def level(self, meta: Meta, children: list[Any]) -> tree.Level:
        (kind, length, head), *statements = children
        return tree.Level(kind, length, tuple(statements), self._at(meta), head)

    def emit(self, meta: Meta, children: list[Token]) -> tree.Emit:
        return tree.Emit(self._atom(children[0]), self._at(meta))

    def door(self, meta: Meta, children: list[Token]) -> tuple[tree.Atom, tree.Atom, Span]:
        return self._atom(children[0]), self._atom(children[1]), self._at(meta)

    def take(self, meta: Meta, children: list[Any]) -> tree.Take:
        kind, *length, (level, name, span) = children
        return tree.Take(
            "prefix" if kind.type == "PREFIX" else "summation",
            self._atom(length[0]) if length else None,
            level,
            name,
            self._at(meta),
            span,
        )

    def mixer(self, meta: Meta, children: list[Any]) -> tree.Mixer:
        source = children[1] if len(children) == 2 else None
        return tree.Mixer(self._atom(children[0]), source, self._at(meta))

    def layer_list(self, meta: Meta, children: list[Any]) -> tuple[tree.Item, ...]:
        return tuple(child if isinstance(child, tree.Item) else self._item(child) for child in children)

    def layer_range(self, meta: Meta, children: list[Token]) -> tree.Item:
        first, last = _range_ends(str(children[0]))
        step = int(_number(children[1])) if len(children) == 2 else 1
        return tree.Item("range", first, last, step, self._at(meta))

    def _item(self, token: Token) -> tree.Item:
        span = Span(self.source, token.start_pos or 0, token.end_pos or 0)
        if token.type == "REST":
            return tree.Item("rest", None, None, 1, span)
        if token.type == "OPEN_RANGE":
            first, last = _range_ends(str(token))
            return tree.Item("range", first, last, 1, span)
        place = self._place(token)
        return tree.Item("range", place, place, 1, span)

    def sqrt_width(self, meta: Meta, children: list[Any]) -> tree.Atom:
        return tree.Atom("sqrt(width)", self._at(meta))

    def lacking(self, meta: Meta, children: list[Token]) -> tree.Atom:
        return tree.Atom(f"no {children[0]}", self._at(meta))

    def rsqrt(self, meta: Meta, children: list[Token]) -> tree.Atom:
        return tree.Atom(f"rsqrt({children[0]})", self._at(meta))

    def __default__(self, data: str, children: list[Any], meta: Meta) -> tree.Clause:
        parts = tuple(child for child in children if isinstance(child, tree.Clause))
        values = (child for child in children if not isinstance(child, tree.Clause))
        args = tuple(child if isinstance(child, tree.Atom) else self._atom(child) for child in values)
        return tree.Clause(str(data), args, self._at(meta), parts)


def _range_ends(text: str) -> tuple[Any, Any]:
    """`13-24`, `13..last`, `13-`, `-24` -> ends; an absent end is None."""
    for dash in ("..", "–", "—", "-"):
        if dash in text:
            first, _, last = (part.strip() for part in text.partition(dash))
            return (int(first) if first else None), (last if last == "last" else int(last) if last else None)
    raise AssertionError(text)
