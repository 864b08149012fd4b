"""What an unexpected token probably means: the message, and the tokens that let the parser go on.

A repair is a guess for the sake of the rest of the file. It never makes a file valid: every repair has its error.
"""

import re
from collections.abc import Callable

from archspec.diagnostics import Diagnostic, Edit
from archspec.source import Span
from archspec.syntax import errors, habits, missing, mixups
from archspec.syntax.names import ReservedName
from archspec.syntax.scan import after_blanks, word_before
from archspec.syntax.situation import Feed, Repair, Situation
from archspec.syntax.words import NO_NAMES, NOT_YET, OTHER_NAMES, STATEMENTS_TO_COME, meant

_ITEMS = frozenset({"RANGE", "INT", "LAST", "REST", "OPEN_RANGE"})
_HEADER_ONLY = frozenset({"_WIDTH", "_VOCAB", "_EMBED", "_TIED", "_FINAL", "_POSITIONS", "_HEAD_BIAS", "_LOGIT"})
_AFTER_CACHE = re.compile(r"cache[ \t]*@[ \t]*\d{1,18}[ \t]*$")
_QUOTED = re.compile(r"['‘’`][^\s'‘’`]*['‘’`]?")
_TOTAL = re.compile(r"\blayers[ \t]+(\d{1,18})[ \t]*$")


def repair(at: Situation) -> Repair:
    """The first rule that explains the token."""
    for rule in _RULES:
        found = rule(at)
        if found is not None:
            return found
    return Repair(_unexpected(at))


def _capital(at: Situation) -> Repair | None:
    terminal = at.keywords.get(at.text.lower())
    if at.text == at.text.lower() or terminal is None or not at.fits((terminal,)):
        return None
    return Repair(errors.CapitalKeyword(span=at.span, word=at.text), ((terminal, at.text),), quiet=True)


def _not_yet(at: Situation) -> Repair | None:
    word = at.text.lower()
    if not at.is_word or word not in NOT_YET or word in at.keywords:
        return None
    if word in STATEMENTS_TO_COME and not at.accepted & {"_LAYERS", "_MODEL", "_LBRACE"}:
        return None
    return Repair(errors.NotYet(span=at.span, word=at.text))


def _late_use(at: Situation) -> Repair | None:
    if at.terminal != "_USE":
        return None
    hint = "`use` stands at the top of a file, before everything else"
    return Repair(errors.UnexpectedWord(span=at.span, word=at.text, words=(), expected=at.shown, hint=hint))


def _name_of_a_number(at: Situation) -> Repair | None:
    """`let window = 8`, `let local-window = 8`."""
    if at.accepted != {"IDENT"} or not at.is_word:
        return None
    if at.text in at.keywords or at.text in NO_NAMES:
        return Repair(ReservedName(span=at.span, word=at.text, what="number"))
    hint = f"names of numbers have no `-`: `{at.text.replace('-', '_')}`"
    return Repair(errors.UnexpectedWord(span=at.span, word=at.text, words=(), expected=at.shown, hint=hint))


def _file_without_quotes(at: Situation) -> Repair | None:
    if at.accepted != {"STRING"}:
        return None
    hint = 'the file stands in quotes: `use "common.arch"`'
    written = "the end of the line" if at.terminal == "_NL" else f"`{at.text}`"
    span, text = at.span, at.source.text
    if text[span.start - 1] in "'‘’`":  # the quotes are meant for it
        quoted = _QUOTED.match(text, span.start - 1)
        span = Span(at.source, *quoted.span()) if quoted else span
    return Repair(errors.UnexpectedText(span=span, written=written, expected=at.shown, hint=hint))


def _cross_attend_in_two_words(at: Situation) -> Repair | None:
    """`cross attend to cache@12`: the mixer `cross` was taken for a word of its own."""
    if at.text != "attend" or word_before(at.source.text, at.span.start) != "cross":
        return None
    start = at.source.text.rindex("cross", 0, at.span.start)
    span = Span(at.source, start, at.span.end)
    words = ("cross-attend",)
    diagnostic = errors.UnexpectedWord(span=span, word=span.text, words=words, expected=("`cross-attend`",))
    return Repair(diagnostic, (("NAME", "cross-attend"),), pop_to="NAME")


def _missing_to(at: Situation) -> Repair | None:
    if at.terminal != "_CACHE" or "_TO" not in at.accepted:
        return None
    reported = word_before(at.source.text, at.span.start) != "cross-attend"  # the mixer does not fit, and is reported
    diagnostic = None if reported else missing.MissingTo(span=at.span)
    return Repair(diagnostic, (("_TO", ""), (at.terminal, at.text)))


def _missing_at(at: Situation) -> Repair | None:
    """`cache 12`, `cache main 12`, `cache12`, `cache-12`."""
    if at.terminal == "INT" and "_AT" in at.accepted:
        text = at.source.text
        start = max(text.rfind("cache", 0, at.span.start), 0)
        fixed = f"{text[start : at.span.start].rstrip()}@{at.text}"
        span = Span(at.source, start, at.span.end)
        diagnostic = missing.MissingAt(span=span, written=span.text, fixed=fixed)
        return Repair(diagnostic, (("_AT", "@"), ("INT", at.text)))
    digits = at.text.lower().removeprefix("cache").lstrip("-_")
    if at.terminal == "NAME" and at.text.lower().startswith("cache") and digits.isdecimal() and len(digits) <= 18:
        feed = (("_CACHE", "cache"), ("_AT", "@"), ("INT", digits))
        if at.fits(tuple(terminal for terminal, _ in feed)):
            return Repair(missing.MissingAt(span=at.span, written=at.text, fixed=f"cache@{digits}"), feed)
        if "_TO" in at.accepted:
            diagnostic = missing.MissingAt(span=at.span, written=at.text, fixed=f"to cache@{digits}")
            return Repair(diagnostic, (("_TO", "to"), *feed))
    return None


def _missing_times(at: Situation) -> Repair | None:
    if at.terminal != "INT" or not at.fits(("_X", "INT")) or at.source.text[at.span.start - 1].isdecimal():
        return None
    return Repair(missing.MissingTimes(span=at.span), (("_X", "x"), ("INT", at.text)))


def _missing_parentheses(at: Situation) -> Repair | None:
    if at.terminal not in ("INT", "FLOAT") or not at.fits(("_LPAR", at.terminal, "_RPAR")):
        return None
    feed = (("_LPAR", "("), (at.terminal, at.text), ("_RPAR", ")"))
    return Repair(missing.MissingParentheses(span=at.span), feed)


def _missing_comma(at: Situation) -> Repair | None:
    if at.text in at.keywords and at.terminal not in ("LAST", "REST") and at.fits(("_COMMA", at.terminal)):
        return Repair(missing.MissingComma(span=at.span), (("_COMMA", ","), (at.terminal, at.text)))
    return None


def _missing_colon(at: Situation) -> Repair | None:
    """`cache@12 kv heads 8`."""
    if at.accepted != {"_COLON"} or not (at.terminal == "_NL" or at.fits(("_COLON", at.terminal))):
        return None
    text = at.source.text
    line = text.rfind("\n", 0, at.span.start) + 1
    end = len(text[: at.span.start].rstrip(" \t"))
    head = text[max(text.rfind(word, line, at.span.start) for word in ("cache", "iterate")) : end]
    place = Span(at.source, end, end)
    if head.endswith("="):  # as in `cache@4 = kv heads 8`
        head = head[:-1].rstrip()
        place = Span(at.source, end - 1 - (text[end - 2] == " "), end)
    edit = Edit(place, ":")
    passes = head.startswith("iterate")
    hint = f"write `{head}:` and then {'the passes' if passes else 'the settings of the cache'}"
    diagnostic = errors.UnexpectedText(
        span=place, written=f"what follows `{head}`", expected=("`:`",), hint=hint, edit=edit
    )
    return Repair(diagnostic, (("_COLON", ":"), (at.terminal, at.text)))


def _missing_brace(at: Situation) -> Repair | None:
    """`tokens in block`, and the level starts on the next line."""
    if at.accepted != {"_LBRACE"} or at.terminal != "_NL":
        return None
    edit, hint = Edit(at.span, " {"), "write ` {` on this line"
    brace = after_blanks(at.source.text, at.span.start)
    below = at.source.text[brace : brace + 1] == "{"
    if below:
        hint, edit = "move the `{` to the end of this line", Edit(Span(at.source, at.span.start, brace + 1), " {")
    diagnostic = errors.UnexpectedText(
        span=at.span, written="the end of the line", expected=("`{`",), hint=hint, edit=edit
    )
    return Repair(diagnostic, () if below else (("_LBRACE", "{"), ("_NL", at.text)))


def _keyword_as_mixer(at: Situation) -> Repair | None:
    """`layers 24 width 3072`, `layers 1 to 4`, `layers 13-24 heads 8 x 64`: the word was taken for a mixer."""
    text, word = at.source.text, word_before(at.source.text, at.span.start)
    if "_TO" not in at.accepted or word not in at.keywords:
        return None
    start = text.rindex(word, 0, at.span.start)
    span, terminal = Span(at.source, start, start + len(word)), at.keywords[word]
    total = _TOTAL.search(text, max(0, start - 200), start)
    if total and word == "to" and at.terminal == "INT":
        fixed = f"{total[1]}-{at.text}"
        whole = Span(at.source, total.start(1), at.span.end)
        hint, edit = f"a range is written `{fixed}`", Edit(whole, fixed)
        range_ = errors.UnexpectedText(span=span, written="`to`", expected=("a mixer",), hint=hint, edit=edit)
        return Repair(range_, (("_LAYERS", "layers"), ("RANGE", fixed)), pop_to="_LAYERS")
    if word == "step" and at.terminal == "INT":
        hint = "a step needs a range with two ends: `6-30 step 6`"
        return Repair(errors.UnexpectedText(span=span, written="`step`", expected=("a mixer",), hint=hint), (), "NAME")
    if total and terminal in _HEADER_ONLY and at.fits(("_COMMA", "_HEADS")):
        feed = (("_LAYERS", "layers"), ("TOTAL", total[1]), ("_COMMA", ","), (terminal, word), (at.terminal, at.text))
        return Repair(missing.MissingComma(span=span), feed, pop_to="_LAYERS")
    if terminal in ("_HEADS", "_KV", "_WINDOW", "_ROPE", "_NORM", "_FFN", "_BIAS", "_NO", "_QK_NORM", "_LIKE"):
        return _no_mixer(at, start, (("_COMMA", ","), (terminal, word), (at.terminal, at.text)))
    return None


def _layer_list(at: Situation) -> Repair | None:
    """After `layers 13-24` or `layers 13-24,` comes neither a mixer nor another layer."""
    after_list = {"NAME", "_COMMA"} <= at.accepted
    after_comma = at.accepted >= _ITEMS and "TOTAL" not in at.accepted
    if not after_list and not after_comma:
        return None
    if after_comma and at.terminal == "NAME":
        comma = at.source.text.rindex(",", 0, at.span.start)
        edit = Edit(Span(at.source, comma, comma + 1), "")
        hint = "no comma between the layers and what they are"
        span = Span(at.source, comma, comma + 1)
        diagnostic = errors.UnexpectedText(span=span, written="`,`", expected=("a mixer",), hint=hint, edit=edit)
        return Repair(diagnostic, (("NAME", at.text),), pop_to="NAME")
    if after_list and at.terminal == "_COLON":
        hint = "what the layers are follows their list directly: `layers 13-24 attend`"
        edit = Edit(at.span, "")
        diagnostic = errors.UnexpectedText(span=at.span, written="`:`", expected=("a mixer",), hint=hint, edit=edit)
        return Repair(diagnostic, ())
    if at.terminal in ("_NL", "_RBRACE"):
        return _no_mixer(at, at.span.start, ((at.terminal, at.text),))
    if at.text in at.keywords and at.text not in ("to", "cache"):
        return _no_mixer(at, at.span.start, (("_COMMA", ","), (at.terminal, at.text)))
    return None


def _no_mixer(at: Situation, end: int, following: tuple[Feed, ...]) -> Repair:
    text = at.source.text
    start = max(text.rfind("layers", 0, end), 0)
    end = len(text[start:end].rstrip(" \t\r\n,")) + start
    diagnostic = missing.MissingMixer(span=Span(at.source, end, end), layers=Span(at.source, start, end))
    return Repair(diagnostic, (("NAME", ""), *following), pop_to="NAME")


def _colon(at: Situation) -> Repair | None:
    """`layers: 24`, `width: 3072`, as in YAML."""
    if at.terminal != "_COLON" or not at.accepted & {"TOTAL", "INT", "NAME"}:
        return None
    word = word_before(at.source.text, at.span.start)
    if word not in at.keywords:
        return None
    hint, edit = f"a setting is its word and its value: `{word} ...`", Edit(at.span, "")
    diagnostic = errors.UnexpectedText(span=at.span, written="`:`", expected=at.shown, hint=hint, edit=edit)
    return Repair(diagnostic, ())


def _misspelt(at: Situation) -> Repair | None:
    words = at.known_words()
    alone = len(words) == 1 and at.accepted <= set(at.keywords.values())
    if not at.is_word or (at.text in at.keywords and at.text not in OTHER_NAMES and not alone):
        return None
    guess = meant(at.text, words)
    if guess is None:
        return None
    feed = tuple((terminal, guess) for terminal in at.terminals_of(guess))
    if not at.fits(tuple(terminal for terminal, _ in feed)):
        return None
    diagnostic = errors.UnexpectedWord(span=at.span, word=at.text, words=words, expected=at.shown)
    return Repair(diagnostic, feed, quiet=True)


_RULES: tuple[Callable[[Situation], Repair | None], ...] = (
    _capital,
    *habits.FIRST,
    *mixups.RULES,
    _cross_attend_in_two_words,
    _missing_to,
    _missing_at,
    _missing_times,
    _missing_parentheses,
    _missing_comma,
    _missing_colon,
    _missing_brace,
    _keyword_as_mixer,
    _name_of_a_number,
    _late_use,
    _file_without_quotes,
    _not_yet,
    _layer_list,
    _colon,
    _misspelt,
    *habits.LAST,
    *mixups.LAST,
)


def _unexpected(at: Situation) -> Diagnostic:
    if at.terminal in _HEADER_ONLY or at.terminal == "_LAYERS":
        if at.fits(("_COMMA", "_HEADS")) or "_HEADS" in at.accepted:
            hint = f"`{at.text}` is a setting of the whole model: write it in the header, on a line of its own"
            return errors.UnexpectedWord(span=at.span, word=at.text, words=(), expected=at.shown, hint=hint)
    if at.terminal in ("_DEFINE", "_USE") and "_RBRACE" in at.accepted:
        hint = f"`{at.text}` stands outside of models"
        return errors.UnexpectedWord(span=at.span, word=at.text, words=(), expected=at.shown, hint=hint)
    if at.is_word:
        about = _hint_about_a_word(at) or _hint_about_levels(at)
        words = at.known_words()
        return errors.UnexpectedWord(span=at.span, word=at.span.text, words=words, expected=at.shown, hint=about)
    written = "the end of the line" if at.terminal == "_NL" else f"`{at.text}`"
    return errors.UnexpectedText(span=at.span, written=written, expected=at.shown, hint=_hint(at))


def _hint_about_a_word(at: Situation) -> str | None:
    before = at.source.text[: at.span.start].rstrip()
    if at.accepted == {"_LBRACE"} and re.search(r"\bmodel[ \t]+[\w.-]+$", before[-200:]):
        return "the name of a model is one word"
    if at.text == "cache" and re.search(r"\bto[ \t]+cache[^,\n]*,$", before[-200:]):
        return "a layer reads one cache: give each cache its own `layers` statement"
    return None


def _hint_about_levels(at: Situation) -> str | None:
    """In `blocks of 4 tokens {`, `tokens in block {`, `emit context`, `prefix 2 from blocks.context`."""
    if at.accepted & {"_OF", "_IN", "_BLOCK"} or at.accepted == {"TOKENS"}:
        return "levels are `blocks of 4 tokens { ... }` and `tokens in block { ... }`"
    if at.accepted == {"BLOCKS", "TOKENS"} or at.accepted == {"_DOT"}:
        return "a context is named with its level: `blocks.context`"
    if at.accepted == {"NAME"}:
        before = word_before(at.source.text, at.span.start)
        if before == "emit":
            return "what is emitted has a name: `emit context`"
        if before.isdecimal():
            return "say what becomes of a block's rows: `embed lookup 192 concat`, or `sum`"
    return None


def _hint(at: Situation) -> str | None:
    levels = _hint_about_levels(at)
    if levels is not None:
        return levels
    if at.accepted >= {"RANGE", "REST"} and at.text in ("(", "."):
        return "ranges and lists stand without brackets or dots: `layers 1, 21-24 attend`"
    if (
        at.terminal in ("INT", "OPEN_RANGE")
        and "_NL" in at.accepted
        and _AFTER_CACHE.search(at.source.text, 0, at.span.start)
    ):
        return "a layer reads one cache; `cache@below` is the nearest that a lower layer has, for each reader"
    if at.terminal == "INT" and {"NAME", "_COMMA"} <= at.accepted and at.source.text[at.span.start - 1].isspace():
        before = word_before(at.source.text, at.span.start)
        return f"a range is written `{before}-{at.text}`, a list `{before}, {at.text}`"
    if at.accepted == {"_WIDTH"}:
        return "write `embed scale sqrt(width)`, or the number itself"
    if at.terminal == "OPEN_RANGE" and word_before(at.source.text, at.span.start) == "window":
        return "write `no window` for a layer that sees everything"
    if at.text == "." and at.source.text[at.span.start - 1 : at.span.start].isdecimal():
        return "this is counted in whole numbers"
    before = word_before(at.source.text, at.span.start)
    if at.text[:1] in ("-", "–", "—") and before.isidentifier() and before not in at.keywords:
        return f"a difference stands in parentheses, as in `({before} - 1)`"
    if at.terminal == "OPEN_RANGE" and "LAST" in at.accepted:
        return "layers are counted from 1; `last` is the last one"
    if at.accepted == {"_TOP"}:
        return "a mixture says how many experts a token has, and of how many: `moe(top 2 of 8 swiglu(768))`"
    if "MODEL_NAME" in at.accepted:
        return "the name of a model starts with a letter"
    if at.terminal == "_LBRACE":
        return "statements have no braces: settings follow on the same line, each after a comma"
    if at.terminal == "_COMMA":
        return "a setting is missing before this comma, or the comma is one too many"
    if at.terminal == "INT" and at.span.start and at.source.text[at.span.start - 1].isdecimal():
        return "numbers have at most 18 digits"
    return _hint_about_a_value(at)


def _hint_about_a_value(at: Situation) -> str | None:
    word = word_before(at.source.text, at.span.start)
    if at.terminal == "_LPAR" and word in ("norm", "ffn"):
        return f"say which kind: `{'norm rms(1e-5)' if word == 'norm' else 'ffn swiglu(4096)'}`"
    if at.terminal == "_LPAR" and at.fits(("INT",)):
        return f"write `{word} N` without parentheses"
    if at.terminal in ("INT", "FLOAT") and word in ("norm", "ffn"):
        return f"say which kind: `{word} {'rms' if word == 'norm' else 'swiglu'}({at.text})`"
    return None
