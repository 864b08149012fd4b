"""What stands in the wrong place, or in the wrong order: rules as in `archspec.syntax.repairs`, which tries them."""

import re
from collections.abc import Callable

from archspec.diagnostics import Edit
from archspec.source import Span
from archspec.syntax import errors
from archspec.syntax.habits import odd
from archspec.syntax.scan import word_before
from archspec.syntax.situation import Feed, Repair, Situation
from archspec.syntax.words import MIXER_WORDS

_TO_LAYERS = re.compile(r"\blayers[ \t]+$")
_TOTAL_AND_WORD = re.compile(r"\blayers[ \t]+(\d{1,18})[ \t]*([A-Za-z]\w*)[ \t]*,\s*$")
_TOTAL = re.compile(r"\blayers[ \t]+(\d{1,18})$")
_HEADER_GOES_ON = re.compile(r"\.\d*[ \t]*,\s*(?:width|vocab|embed|heads|ffn|norm|rope|kv)\b")
_TOTAL_AHEAD = re.compile(r"layers[ \t]+[\w()+*/ -]+?[ \t]*(?:[,#}\n]|$)")
_CACHE_STATEMENT = re.compile(r"cache[ \t]*[\w-]*[ \t]*@[ \t]*\w+[ \t]*:")
_STARTS = frozenset({"_LAYERS", "_CACHE", "_ITERATE", "_PREFILL"})
_HEADER_WORDS = frozenset({"_WIDTH", "_VOCAB", "_EMBED", "_TIED", "_FINAL", "_POSITIONS"})
_COUNTED = re.compile(r"[ \t]+(layers|heads|kv heads)\b")
_EXPONENT = re.compile(r"\b(\d{1,9})$")
_REFERENCE = {"BLOCKS", "_CACHE", "TOKENS"}
_TERSE = 200
"""Characters before a token that are looked at."""


def _back(at: Situation) -> str:
    return at.source.text[max(0, at.span.start - _TERSE) : at.span.start]


def _line(at: Situation) -> str:
    """The line of the token, up to it."""
    return _back(at).rpartition("\n")[2].lstrip()


def _at_the_start(at: Situation) -> bool:
    return {"_LAYERS", "_CACHE"} <= at.accepted


def _total_with_a_word(at: Situation) -> Repair | None:
    """`layers 24x, width 256`: the word was taken for a mixer."""
    found = _TOTAL_AND_WORD.search(_back(at))
    if found is None or at.terminal not in _HEADER_WORDS or found[2] in MIXER_WORDS:
        return None
    start = at.span.start - len(_back(at)) + found.start(2)
    span = Span(at.source, start, start + len(found[2]))
    feed: tuple[Feed, ...] = (("_LAYERS", "layers"), ("TOTAL", found[1]), ("_COMMA", ","), (at.terminal, at.text))
    hint = f"the header states the total alone: `layers {found[1]}`"
    return Repair(odd(at, span, ("`,`",), hint, None), feed, pop_to="_LAYERS")


def _total_with_a_fraction(at: Situation) -> Repair | None:
    """`layers 24.0, width 256`."""
    found = _TOTAL.search(_back(at))
    if found is None or at.text != "." or not _HEADER_GOES_ON.match(at.source.text, at.span.start):
        return None
    feed = (("_LAYERS", "layers"), ("TOTAL", found[1]))
    hint = f"layers are counted in whole numbers: `layers {found[1]}`"
    return Repair(odd(at, at.span, ("`,`",), hint, None), feed, pop_to="_LAYERS", quiet=True)


def _two_statements(at: Situation) -> Repair | None:
    """`layers 1-12 attend layers 13-24 retention`."""
    text = at.source.text
    if at.terminal not in _STARTS or "_NL" not in at.accepted or not at.fits(("_NL", at.terminal)):
        return None
    if at.terminal == "_CACHE" and not _CACHE_STATEMENT.match(text, at.span.start):
        return None
    if at.terminal == "_LAYERS" and at.fits(("_COMMA", at.terminal)) and _TOTAL_AHEAD.match(text, at.span.start):
        return None  # a setting of the header
    edit = Edit(Span(at.source, at.span.start, at.span.start), "\n  ")
    diagnostic = odd(at, at.span, ("the end of the line",), "every statement stands on a line of its own", edit)
    return Repair(diagnostic, (("_NL", "\n"), (at.terminal, at.text)))


def _settings_in_parentheses(at: Situation) -> Repair | None:
    """`attend(window 128)`."""
    mixer = word_before(at.source.text, at.span.start)
    if at.text != "(" or mixer not in MIXER_WORDS:
        return None
    return Repair(odd(at, at.span, at.shown, f"settings follow behind a comma: `{mixer}, window 128`", None))


def _number_before_its_word(at: Situation) -> Repair | None:
    """`24 layers`."""
    found = _COUNTED.match(at.source.text, at.span.end)
    if found is None or not _at_the_start(at) or not at.text.isdecimal():
        return None
    return Repair(odd(at, at.span, at.shown, f"the number stands behind its word: `{found[1]} {at.text}`", None))


def _listed(at: Situation) -> Repair | None:
    """`- layers 1-4 attend`."""
    if at.text not in ("-", "–", "*", "+") or not _at_the_start(at) or _line(at):
        return None
    edit = Edit(at.span, "")
    return Repair(odd(at, at.span, ("a statement",), "statements stand without a sign before them", edit), ())


def _behind_a_layer_list(at: Situation) -> Repair | None:
    """`layers 13-24 -> cache@12`, `layers 50% attend`, `layers 1-last-1 attend`."""
    if not at.accepted >= {"NAME", "_COMMA"}:
        return None
    if at.text in ("-", "–") and at.source.text[at.span.end : at.span.end + 1] == ">":
        hint = "what layers read stands behind `cross-attend to`: `layers 13-24 cross-attend to cache@12`"
    elif at.text == "%":
        hint = "layers are given by their numbers: `1-12`"
    elif at.text[:1] in "-–" and word_before(at.source.text, at.span.start) == "last":
        hint = "`last` takes no arithmetic: with `let N = 24`, write `1-(N - 1)`"
    else:
        return None
    return Repair(odd(at, at.span, at.shown, hint, None))


def _without_cache(at: Situation) -> Repair | None:
    """`cross-attend to 12`, `cross-attend to kv`, `prefill exit after 12`."""
    if at.accepted != _REFERENCE:
        return None
    if at.text.isdecimal():
        hint, edit = f"what a layer reads is a cache: `cache@{at.text}`", Edit(at.span, f"cache@{at.text}")
        return Repair(odd(at, at.span, at.shown, hint, edit), (("_CACHE", "cache"), ("_AT", "@"), ("INT", at.text)))
    if not at.is_word:
        return None
    return Repair(odd(at, at.span, at.shown, f"a cache with a name is read as `cache {at.text}`", None))


def _exponent(at: Situation) -> Repair | None:
    """`window 1e3`."""
    base, power = _EXPONENT.search(_back(at)), re.fullmatch(r"e(\d)", at.text)
    if base is None or power is None:
        return None
    span = Span(at.source, at.span.start - len(base[1]), at.span.end)
    fixed = str(int(base[1]) * 10 ** int(power[1]))
    return Repair(odd(at, span, ("a whole number",), f"this is counted in whole numbers: `{fixed}`", Edit(span, fixed)))


def _times_what(at: Situation) -> Repair | None:
    """`ffn swiglu(4x)`."""
    if at.text != "x" or "_RPAR" not in at.accepted or not _back(at)[-1:].isdecimal():
        return None
    return Repair(odd(at, at.span, at.shown, "write the number itself, or a product of names: `4 * W`", None))


def _let(at: Situation) -> Repair | None:
    """`let W 1024`, `let W = 1, N = 2`, `layers 1-4 attend, let W = 1`."""
    if at.accepted == {"_EQUALS"} and at.terminal == "INT":
        name = word_before(at.source.text, at.span.start)
        edit = Edit(Span(at.source, at.span.start, at.span.start), "= ")
        diagnostic = odd(at, at.span, at.shown, f"write `let {name} = {at.text}`", edit)
        return Repair(diagnostic, (("_EQUALS", "="), ("INT", at.text)))
    if at.text == "," and _line(at).startswith("let "):
        return Repair(
            odd(at, at.span, ("the end of the line",), "every number has a `let` and a line of its own", None)
        )
    if at.terminal == "_LET" and at.accepted != {"IDENT"} and not _at_the_start(at) and _line(at):
        return Repair(odd(at, at.span, at.shown, "`let` stands on a line of its own, before it or behind it", None))
    return None


def _layers_of_a_template(at: Situation) -> Repair | None:
    """`define local {` and in it `layers 1-4 attend`."""
    behind_mixer = "_TO" in at.accepted and word_before(at.source.text, at.span.start) == "layers"
    if not behind_mixer or not at.text[:1].isdecimal():
        return None
    hint = "a template says what layers are, not which: start with the mixer"
    return Repair(odd(at, at.span, at.shown, hint, None))


def _template_without_braces(at: Situation) -> Repair | None:
    """`define local attend, window 1024`."""
    if at.accepted != {"_LBRACE"} or not _line(at).startswith("define "):
        return None
    hint = "a template stands in braces: `define local { attend, window 1024 }`"
    return Repair(odd(at, at.span, at.shown, hint, None))


def _passes(at: Situation) -> Repair | None:
    """`iterate layers 2-22, 7 forward, 2 backward`, `iterate layers 2-22: 7 forward`."""
    if not _line(at).startswith("iterate"):
        return None
    if at.text == "," and "_COLON" in at.accepted:
        hint = "a `:` stands between the layers and the passes"
        return Repair(odd(at, at.span, ("`:`",), hint, Edit(at.span, ":")), (("_COLON", ":"),))
    if at.accepted == {"_COMMA"} and at.terminal == "_NL":
        hint = "both kinds of passes are counted, those without gradient first: `7 forward, 2 backward`"
        written = "the end of the line"
        return Repair(errors.UnexpectedText(span=at.span, written=written, expected=at.shown, hint=hint))
    return None


def _door(at: Situation) -> Repair | None:
    """`prefix context`: the word was taken for a number's name."""
    if at.accepted != {"_FROM"}:
        return None
    hint = "what is taken has a level: `prefix 2 from blocks.context`"
    written = "the end of the line" if at.terminal == "_NL" else f"`{at.text}`"
    return Repair(errors.UnexpectedText(span=at.span, written=written, expected=at.shown, hint=hint))


def _no_layer_list(at: Situation) -> Repair | None:
    """`layers attend`: which ones?"""
    if at.text not in MIXER_WORDS or not _TO_LAYERS.search(_back(at)):
        return None
    hint = (
        f"say which layers: `layers 1-12 {at.text}`, or `layers rest {at.text}` for all that are declared nowhere else"
    )
    return Repair(odd(at, at.span, ("layers such as `1-12`",), hint, None))


RULES: tuple[Callable[[Situation], Repair | None], ...] = (
    _total_with_a_word,
    _total_with_a_fraction,
    _two_statements,
    _settings_in_parentheses,
    _number_before_its_word,
    _listed,
    _behind_a_layer_list,
    _exponent,
    _times_what,
    _let,
    _layers_of_a_template,
    _template_without_braces,
    _passes,
    _door,
    _no_layer_list,
)
LAST: tuple[Callable[[Situation], Repair | None], ...] = (_without_cache,)
