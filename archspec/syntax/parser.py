"""Text -> located syntax tree, with every syntax error of the file.

Contract: `parse_file` never raises for any text. Only this module, `archspec.syntax.lalr` and
`archspec.syntax.building` know lark; what happens after an error is in `archspec.syntax.recovery`.
"""

import re
from collections.abc import Mapping
from copy import copy
from functools import cache
from itertools import islice
from typing import Any

from lark import Lark, Token, UnexpectedInput

from archspec.diagnostics import Diagnostic, Edit
from archspec.source import Source, Span
from archspec.syntax import errors, expecting, missing, scan, tree
from archspec.syntax.building import TreeBuilder
from archspec.syntax.lalr import make_parser
from archspec.syntax.lexemes import Lexeme
from archspec.syntax.limits import beyond_limits
from archspec.syntax.recovery import Recovery
from archspec.syntax.words import NO_NAMES


@cache
def _lark() -> Lark:
    return make_parser({"IDENT": _reserved})


def _reserved(token: Token) -> Token:
    """Words of the language are never names of numbers, so that `width vocab 100` is reported at `vocab`."""
    word = str(token)
    if word in keywords():
        return Token.new_borrow_pos(keywords()[word], word, token)
    return Token.new_borrow_pos("NAME", word, token) if word in NO_NAMES else token


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
    "IDENT": "a name for a number",
    "CAPITALS": "a name for a number",
    "STRING": 'a file in quotes such as `"common.arch"`',
    "TOTAL": "a number",
    "_TOTAL_LAYERS": "`layers`",
    "RANGE": "a range such as `1-12`",
    "FLOAT": "a number",
    "INT": "a number",
    "_PERCENT": "`%`",
    "ONE_PLUS": "`1+w`",
    "_DASH": "`-`",
    "PLUS": "`+`",
    "MINUS": "`-`",
    "TIMES": "`*`",
    "SLASH": "`/`",
    "_EQUALS": "`=`",
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
    if {"NAME", "_COMMA"} <= terminals <= {"NAME", "_COMMA", "_STEP", "_DASH"}:  # after a layer list
        return ("`,`", "a mixer such as `attend`")
    if "_MODEL" in terminals:
        return ("`model`",)
    if terminals == {"BLOCKS", "_CACHE", "TOKENS"}:
        return ("a cache such as `cache@4`",)
    if "_RBRACE" not in terminals and len(terminals) > 1:
        terminals -= {"_NL"}  # a comma may be followed by a line end, but that is not what is missing
    terminals -= {"_TOTAL_LAYERS"}  # `_LAYERS`, by another name
    if "INT" in terminals:
        terminals -= {"IDENT", "CAPITALS", "_LPAR"}  # a number, however it is given
    words = sorted(f"`{word}`" for word, terminal in keywords().items() if terminal in terminals)
    if {"_HEADS", "_ROPE", "_NORM"} <= terminals:
        words = ["a statement" if "_CACHE" in terminals else "a setting such as `heads 8 x 64`"]
    return (*sorted({_DISPLAY[name] for name in terminals if name in _DISPLAY}), *words)


_NOTHING = tree.File(lost=frozenset({"any"}))


def parse_file(source: Source) -> tuple[tree.File, list[Diagnostic]]:
    """Parse one file. What could not be made out is not in the tree."""
    if (position := source.text.find("\0")) >= 0:
        return _NOTHING, [errors.StrayCharacter(span=Span(source, position, position + 1), character="\0")]
    if (excess := beyond_limits(source)) is not None:
        return _NOTHING, [excess]
    slips = list(scan.slips(source.text))
    text, odd = scan.read_through(scan.mended(source.text, slips))
    recovery = Recovery(source, text, keywords(), _expected, _token)
    try:
        parsed = _lark().parse(text, on_error=recovery.on_error)
    except UnexpectedInput:
        return _NOTHING, recovery.found + _read_as(source, slips, {**odd, **recovery.odd}, recovery)
    file = TreeBuilder(source, frozenset(recovery.lost), tuple(sorted(recovery.holes))).build(parsed)
    return file, recovery.found + _read_as(source, slips, {**odd, **recovery.odd}, recovery)


def parse_text(source: Source) -> tuple[tree.Model | None, list[Diagnostic]]:
    """The last model of a file, as it stands. None if there is none, which is an error if there is nothing else."""
    file, found = parse_file(source)
    if not file.models and not file.composed and not found:
        found.append(errors.NoModel(span=Span(source, 0, 0)))
    return file.models[-1] if file.models else None, found


def plain_lexemes(source: Source) -> list[Lexeme] | None:
    """The tokens of a text, found in one pass; None where `parse_text` may have something to say about it."""
    if "\0" in source.text or beyond_limits(source) is not None:
        return None
    if scan.read_through(source.text)[1] or any(True for _ in scan.slips(source.text)):
        return None
    try:
        found, whole = _lexed(source.text)
        return found if whole else None
    except UnexpectedInput:
        return None


def lexemes(text: str) -> list[Lexeme]:
    """The tokens of a text without syntax errors; blanks, line ends and comments lie between them."""
    return _lexed(text)[0]


def _lexed(text: str) -> tuple[list[Lexeme], bool]:
    """Tokens, and whether the text may end where it does and defines something."""
    parser: Any = _lark().parse_interactive(text)
    state = parser.parser_state
    state.parse_conf = copy(state.parse_conf)
    state.parse_conf.callbacks = {}  # no tree is built
    found: list[Lexeme] = []
    after_line_end = False
    for token in parser.lexer_thread.lex(state):
        state.feed_token(token)
        if token.type != "_NL":
            follows = parser.choices()
            ends, number = "_NL" in follows, "INT" in follows or "IDENT" in follows
            at = (token.start_pos, token.end_pos)
            found.append(Lexeme(token.type, str(token), *at, after_line_end, ends, number))
        after_line_end = token.type == "_NL"
    return found, bool(found) and "$END" in parser.accepts()


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
