"""Error recovery of the LALR parser: report, repair or drop, and go on.

After an error the parser either gets the tokens that were probably meant (`repairs`), or loses the broken clause, or
the broken statement: states are popped until one from which the rest can be read. Written against lark's interactive
parser, which is handed in: this module does not import lark.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from archspec.diagnostics import Diagnostic, Edit
from archspec.source import Source, Span
from archspec.syntax import errors, missing, scan
from archspec.syntax.repairs import repair
from archspec.syntax.situation import Feed, Repair, Situation
from archspec.syntax.words import NOT_YET

MAX_SYNTAX_ERRORS = 100
_HEAD = ("_MODEL", "MODEL_NAME", "_LBRACE")
_OTHER_KINDS = {
    "_USE": "use",
    "_LET": "let",
    "_DEFINE": "define",
    "_PREFILL": "exit",
    "_ITERATE": "iterate",
    **dict.fromkeys(("_EMIT", "BLOCKS", "TOKENS", "PREFIX", "SUMMATION"), "level"),
    **dict.fromkeys(("door", "blocks_head", "tokens_head"), "level"),
}
_OPENERS = ("_LBRACE", "_DEFINE", "_LET", "_USE")
"""Tokens behind which one is not in `model NAME {` any more, nor between the definitions of a file."""
_SIGNS = ("PLUS", "TIMES", "SLASH")
_LEXED_WITHOUT_CONTEXT = {"TOTAL": "INT", "IDENT": "NAME", "CAPITALS": "NAME"}
"""What an unexpected token may be of more than one kind is called."""
_HEAD_FILL = {"_MODEL": "model", "MODEL_NAME": "_", "_LBRACE": "{"}
_HEAD_SHOWN = {"_MODEL": "`model`", "MODEL_NAME": "a name", "_LBRACE": "`{`"}


class Recovery:
    """Turns the parser's errors into diagnostics and puts the parser back on its feet."""

    def __init__(
        self,
        source: Source,
        text: str,
        keywords: Mapping[str, str],
        display: Callable[[frozenset[str]], tuple[str, ...]],
        make_token: Callable[[str, str, int, int], Any],
    ) -> None:
        self.source = source
        self.text = text
        self.keywords = keywords
        self.display = display
        self.make_token = make_token
        self.found: list[Diagnostic] = []
        self.lost: set[str] = set()
        """Kinds of statements of which one could not be read at all."""
        self.holes: list[int] = []
        """Where clauses were dropped."""
        self.dropped: list[tuple[int, int]] = []
        self.odd: dict[str, list[int]] = {}
        """Signs of arithmetic that were read as something else, as in `layers = 4` and `heads 4 * 16`."""
        self.quiet_until = 0

    def on_error(self, error: Any) -> bool:
        """Handle one error; False gives up."""
        if len(self.found) >= MAX_SYNTAX_ERRORS:
            return False
        token = getattr(error, "token", None)
        if token is None:
            return self._stray_character(error, error.pos_in_stream)
        return self._unexpected_token(error, token)

    def was_dropped(self, place: int) -> bool:
        """Whether a place lies in text that was passed over."""
        idx = bisect_right(self.dropped, (place, len(self.text) + 1)) - 1
        return idx >= 0 and place < self.dropped[idx][1]

    def _stray_character(self, error: Any, position: int) -> bool:
        span = Span(self.source, position, position + 1)
        self._report(errors.StrayCharacter(span=span, character=self.source.text[position]))
        parser = error.interactive_parser
        if self._is_closed(parser):
            self._skip_to(parser, self._line_end(position))
        elif self._head_terminals(parser):
            self._skip_head(parser, position)
        else:
            self._drop(parser, None, position)
        return True

    def _unexpected_token(self, error: Any, token: Any) -> bool:
        parser = error.interactive_parser
        accepted = frozenset(error.accepts or ())
        if token.type == "$END":
            return self._end_of_file(parser, accepted)
        is_odd = token.type == "_EQUALS" and accepted != {"IDENT"}
        if is_odd or (token.type == "TIMES" and "_X" in accepted):
            self.odd.setdefault(str(token), []).append(token.start_pos)
            self._feed(parser, (("_X", "x"),) if token.type == "TIMES" else (), token)
            return True
        if token.type in _SIGNS and not accepted & {"IDENT", "PLUS"}:
            return self._stray_character(error, token.start_pos)
        if self._is_closed(parser):
            return self._after_model(parser, token)
        if self._head_terminals(parser):
            return self._head(parser, token, accepted)
        self._apply(parser, repair(self._situation(parser, token, accepted)), token)
        return True

    def _situation(self, parser: Any, token: Any, accepted: frozenset[str]) -> Situation:
        values = parser.parser_state.value_stack
        if accepted == {"NAME"} and getattr(values[-1], "data", None) == "layer_list":
            accepted |= {"_COMMA"}  # the list was closed because `no layers 3-4` might end here
        terminal = _LEXED_WITHOUT_CONTEXT.get(token.type, token.type)
        if terminal == "NAME" and "NAME" not in accepted:
            terminal = self.keywords.get(str(token), terminal)  # behind a number, words are all read alike
        return Situation(
            source=self.source,
            terminal=terminal,
            text=str(token),
            span=self._span(token),
            accepted=accepted,
            keywords=self.keywords,
            shown=self.display(accepted),
            fits=lambda terminals: self._fits(parser, terminals),
        )

    def _span(self, token: Any) -> Span:
        return Span(self.source, token.start_pos, token.start_pos if token.type == "_NL" else token.end_pos)

    def _fits(self, parser: Any, terminals: tuple[str, ...]) -> bool:
        trial = parser.copy(deepcopy_values=False)
        trial.parser_state.parse_conf = copy(trial.parser_state.parse_conf)
        trial.parser_state.parse_conf.callbacks = {}
        for terminal in terminals:
            if terminal not in trial.accepts():
                return False
            trial.feed_token(self.make_token(terminal, "", 0, 0))
        return True

    def _report(self, diagnostic: Diagnostic) -> None:
        if diagnostic.span.start >= self.quiet_until:
            self.found.append(diagnostic)

    def _apply(self, parser: Any, action: Repair, token: Any) -> None:
        if action.diagnostic is not None:
            self._report(action.diagnostic)
        if action.pop_to is not None:
            self._pop_to(parser, action.pop_to)
        if action.feed is None:
            self._drop(parser, token, token.end_pos)
            return
        self._feed(parser, action.feed, token)
        if action.quiet and not self._head_terminals(parser):
            self.quiet_until = max(self.quiet_until, scan.clause_end(self.text, token.end_pos))

    def _feed(self, parser: Any, feed: tuple[Feed, ...], token: Any) -> None:
        """Feed tokens in place of one: its own kind stands where it stood, the others take no room beside it."""
        kinds = [terminal for terminal, _ in feed]
        kind = _LEXED_WITHOUT_CONTEXT.get(token.type, token.type)
        itself = kinds.index(kind) if kind in kinds else len(kinds) - 1
        for idx, (terminal, text) in enumerate(feed):
            start = token.start_pos if idx <= itself else token.end_pos
            end = token.end_pos if idx >= itself else token.start_pos
            parser.feed_token(self.make_token(terminal, text, start, end))

    def _supply(self, parser: Any, terminal: str, position: int) -> None:
        parser.feed_token(self.make_token(terminal, _HEAD_FILL[terminal], position, position))

    @staticmethod
    def _pop_to(parser: Any, terminal: str) -> None:
        state = parser.parser_state
        while len(state.state_stack) > 1 and terminal not in state.parse_conf.states[state.state_stack[-1]]:
            state.state_stack.pop()
            state.value_stack.pop()

    def _drop(self, parser: Any, token: Any, position: int) -> None:
        """Drop the broken clause if its statement can stand without it, else the statement or definition."""
        state = parser.parser_state
        dropped: Any = None
        while True:
            accepted = parser.accepts()
            if "_MODEL" in accepted or ("_RBRACE" in accepted and ("_LAYERS" in accepted or "_NL" in accepted)):
                break
            state.state_stack.pop()
            dropped = state.value_stack.pop()
        terminal = None if token is None else token.type
        if terminal == "_LBRACE":
            position = scan.block_end(self.text, token.start_pos)
        if "_LAYERS" in accepted or "_MODEL" in accepted:
            self.lost.add(_kind(dropped))
            if terminal == "_RBRACE" and "_RBRACE" in accepted:
                parser.feed_token(token)
            elif terminal != "_NL":
                self._skip_to(parser, scan.statement_end(self.text, position))
            return
        self.holes.append(position if token is None else token.start_pos)
        if terminal in ("_NL", "_RBRACE"):
            parser.feed_token(token)
            return
        end = position if terminal != "_COMMA" else position - 1
        end = scan.clause_end(self.text, end)
        if "_COMMA" not in accepted and self.text[end : end + 1] == ",":
            end = scan.after_blanks(self.text, end + 1)
        self._skip_to(parser, end)

    def _skip_to(self, parser: Any, position: int) -> None:
        counter = parser.lexer_thread.state.line_ctr
        if position > counter.char_pos:
            self.dropped.append((counter.char_pos, position))
            counter.feed(self.text[counter.char_pos : position])
        elif position < counter.char_pos:  # the token itself is read again, a comma
            counter.char_pos = position

    @staticmethod
    def _is_closed(parser: Any) -> bool:
        """Whether the last token was the `}` of a model or template."""
        values = parser.parser_state.value_stack
        return bool(values) and getattr(values[-1], "type", None) == "_RBRACE" and "$END" in parser.accepts()

    def _line_end(self, position: int) -> int:
        end = self.text.find("\n", position)
        return len(self.text) if end < 0 else end

    def _after_model(self, parser: Any, token: Any) -> bool:
        """What stands behind a closing brace; between definitions, up to the next one."""
        if token.type in ("_MODEL", "_LET", "_DEFINE"):
            hint = "start it on a line of its own"
            edit = Edit(Span(self.source, token.start_pos, token.start_pos), "\n")
            expected = ("the end of the line",)
            self._report(
                errors.UnexpectedText(
                    span=self._span(token), written=f"`{token}`", expected=expected, hint=hint, edit=edit
                )
            )
            self._feed(parser, (("_NL", "\n"), (token.type, str(token))), token)
            return True
        closing = scan.last_closing(self.text, token.start_pos)
        self.lost.add("any")
        self._report(errors.AfterModel(span=self._span(token), closing=Span(self.source, closing, closing + 1)))
        following = scan.next_definition(self.text, token.end_pos)
        if not self._is_closed(parser):
            self._skip_to(parser, len(self.text) if following is None else following)
        elif following is None:
            self._skip_to(parser, len(self.text))
        else:
            self._skip_to(parser, following)
            parser.feed_token(self.make_token("_NL", "\n", following, following))
        return True

    @staticmethod
    def _head_terminals(parser: Any) -> set[str]:
        """What may follow in `model NAME {` or between definitions; nothing once one of them is opened."""
        if any(getattr(value, "type", None) in _OPENERS for value in parser.parser_state.value_stack):
            return set()
        return set(parser.accepts()) & set(_HEAD)

    def _head(self, parser: Any, token: Any, accepted: frozenset[str]) -> bool:
        """Something is wrong in `model NAME {`, or before it."""
        at = self._situation(parser, token, accepted)
        if "_MODEL" in accepted and self._is_behind_a_model(at):
            return self._after_model(parser, token)
        if "_MODEL" in accepted and token.type == "_LBRACE":
            self._report(errors.NoModel(span=at.span, like_json=True))
            self._skip_to(parser, len(self.text))
            return True
        if token.type != "_LBRACE" and "{" not in self.text and token.type != "_NL":
            self._report(errors.NoModel(span=at.span))
            self._skip_to(parser, len(self.text))
            return True
        absent = _HEAD[next(idx for idx, terminal in enumerate(_HEAD) if terminal in accepted) :]
        if token.type in absent[1:] or (token.type == "_NL" and absent[0] != "_MODEL"):
            until = absent if token.type == "_NL" else absent[: absent.index(token.type)]
            follows = self.text[token.end_pos : token.end_pos + 1] == "{"
            until = until[:-1] if follows else until
            self._report_missing(token, until or ("_LBRACE",), follows)
            for terminal in until:
                self._supply(parser, terminal, token.start_pos)
            if not follows:
                parser.feed_token(token)
        elif absent == ("_LBRACE",) and at.text in self.keywords and at.fits(("_LBRACE", at.terminal)):
            self._report_missing(token, absent)
            self._feed(parser, (("_LBRACE", "{"), (at.terminal, at.text)), token)
        else:
            self._head_word(parser, at, token)
        return True

    def _is_behind_a_model(self, at: Situation) -> bool:
        """Whether a model has been read, and what stands here is not the misspelt start of another definition."""
        first, start = scan.next_model(self.text, 0), at.span.start
        behind = first is not None and first < start and scan.last_closing(self.text, start) < start
        return behind and at.terminal != "_USE" and repair(at).feed is None

    def _report_missing(self, token: Any, absent: tuple[str, ...], follows: bool = False) -> None:
        end = len(self.text[: token.start_pos].rstrip())
        shown = tuple(_HEAD_SHOWN[terminal] for terminal in absent)
        self._report(missing.MissingOpening(span=Span(self.source, end, end), missing=shown, follows=follows))

    def _head_word(self, parser: Any, at: Situation, token: Any) -> None:
        """A word in the wrong place: `modle m {`, `model b extend a {`, settings without a model."""
        action = repair(at)
        before = "_MODEL" in at.accepted
        if before and action.feed is None and at.terminal != "_USE" and at.text.lower() not in NOT_YET:
            if scan.next_model(self.text, token.start_pos) is None:
                action = Repair(errors.NoModel(span=at.span))
        if action.feed is not None:
            self._apply(parser, action, token)
            return
        assert action.diagnostic is not None
        self._report(action.diagnostic)
        if at.terminal == "_USE":
            self.lost.add("use")
        if any(getattr(value, "type", None) == "_DEFINE" for value in parser.parser_state.value_stack):
            self.lost.add("define")
        self._skip_head(parser, token.end_pos)

    def _skip_head(self, parser: Any, position: int) -> None:
        """Go on at the `{` of this line, or at the next definition."""
        absent = self._head_terminals(parser)
        if "_MODEL" in absent:
            following = scan.next_definition(self.text, position)
            self._skip_to(parser, len(self.text) if following is None else following)
            return
        if "MODEL_NAME" in absent:
            self._supply(parser, "MODEL_NAME", position)
        line_end = self._line_end(position)
        brace = self.text.find("{", position, line_end)
        if brace < 0:
            self._supply(parser, "_LBRACE", position)
        self._skip_to(parser, brace if brace >= 0 else line_end)

    def _end_of_file(self, parser: Any, accepted: frozenset[str]) -> bool:
        end = len(self.text.rstrip())
        span = Span(self.source, end, end)
        if any(isinstance(diagnostic, errors.NoModel) for diagnostic in self.found):
            return False
        if self._head_terminals(parser):
            shown = tuple(_HEAD_SHOWN[terminal] for terminal in _HEAD if terminal in accepted or terminal == "_LBRACE")
            self._report(missing.MissingOpening(span=span, missing=shown))
            return False
        if not any(getattr(value, "type", None) == "_LBRACE" for value in parser.parser_state.value_stack):
            written = "the end of the file"
            self._report(errors.UnexpectedText(span=span, written=written, expected=self.display(accepted)))
            self._drop(parser, None, len(self.text))
            return "$END" in parser.accepts()
        opened = scan.unclosed(self.text) or [0]
        opening = Span(self.source, opened[-1], opened[-1] + 1)
        line = self.text[self.text.rfind("\n", 0, opening.start) + 1 : opening.start]
        what = (
            "this template" if line.lstrip().startswith("define") else "the model" if len(opened) == 1 else "this level"
        )
        self._report(errors.UnclosedBrace(span=span, opening=opening, depth=len(opened), what=what))
        if "_RBRACE" not in accepted:
            self._drop(parser, None, len(self.text))
        while "$END" not in parser.accepts():
            parser.feed_token(self.make_token("_RBRACE", "}", end, end))
        return True


def _kind(dropped: Any) -> str:
    """The kind of a statement by its first symbol; `any` if there is none."""
    terminal = getattr(dropped, "type", None)
    rule = getattr(dropped, "data", None)
    if terminal is None and rule is None:
        return "any"
    if terminal in ("_LAYERS", "_TOTAL_LAYERS"):
        return "layers"
    if terminal == "_CACHE" or rule == "cache_head":
        return "cache"
    return _OTHER_KINDS.get(str(terminal or rule), "header")
