"""What an unexpected token means to people who come from config files, papers and other languages.

Rules as in `archspec.syntax.repairs`, which tries those of `FIRST` before and those of `LAST` behind its own.
"""

import re
from collections.abc import Callable

from archspec.diagnostics import Diagnostic, Edit
from archspec.source import Span
from archspec.syntax import errors
from archspec.syntax.scan import word_before
from archspec.syntax.situation import Feed, Repair, Situation
from archspec.syntax.words import FIELDS, FILLERS, KIND_OF, MIXER_WORDS, NONE, OTHER_NAMES, WHICH_LAYERS, YES

_NUMBER = r"\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?"
_AFTER_LAYER = re.compile(r"[ \t]*(@?)[ \t]*(\d{1,18})(?!\w)")
_THOUSANDS = re.compile(r"(?<![\d,])(\d{1,3}(?:,\d{3})+)(?!\d)")
_PASSES = re.compile(r"(\d+)[ \t]+backward[ \t]*,[ \t]*(\d+)[ \t]+forward")
_VALUE = re.compile(rf"[ \t]*=?[ \t]*({_NUMBER})")
_BRACKETED = re.compile(rf"\([ \t]*({_NUMBER})[ \t]*\)")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def odd(at: Situation, span: Span, expected: tuple[str, ...], hint: str, edit: Edit | None) -> Diagnostic:
    """What stands at a span does not fit: E0002 for a word, E0001 for anything else."""
    if span.text[:1].isalpha() and re.fullmatch(r"[\w-]+", span.text):
        return errors.UnexpectedWord(span=span, word=span.text, words=(), expected=expected, hint=hint, edit=edit)
    return errors.UnexpectedText(span=span, written=f"`{span.text}`", expected=expected, hint=hint, edit=edit)


def _comma_at_line_end(at: Situation) -> Repair | None:
    """`layers 1-4 attend,` and the next statement follows: the comma continues a statement that is complete."""
    text, end = at.source.text, at.span.start
    feed: tuple[Feed, ...] = ((at.terminal, at.text),)
    if at.accepted == {"TOTAL"} and at.terminal != "_NL":  # `layers` itself was taken for the total of the header
        end = max(text.rfind("layers", 0, end), 0)
        feed = (("_LAYERS", "layers"), *feed)
    elif at.text in at.keywords:
        if at.terminal not in _STARTS or at.fits(("_COMMA",)):
            return None
    elif at.terminal != "_RBRACE":
        return None
    comma = _comma_before(text, end)
    if comma is None or ("\n" not in text[comma:end] and at.terminal != "_RBRACE"):
        return None
    span = Span(at.source, comma, comma + 1)
    hint = "a comma at the end of a line continues the statement: leave it out"
    feed = feed if at.terminal == "_RBRACE" else (("_NL", "\n"), *feed)
    return Repair(odd(at, span, ("the end of the statement",), hint, Edit(span, "")), feed, pop_to="_NL")


_STARTS = frozenset({"_LAYERS", "_CACHE", "_ITERATE", "_PREFILL", "_EMIT", "BLOCKS", "TOKENS", "PREFIX", "SUMMATION"})
_BLANKS_BACK = re.compile(r"\s*(?:#[^\n]*)?")


def _comma_before(text: str, position: int) -> int | None:
    """The comma that is the last thing before a place, comments and line ends aside."""
    while position:
        line = text.rfind("\n", 0, position) + 1
        code = text[line:position].partition("#")[0].rstrip()
        if code:
            return line + len(code) - 1 if code.endswith(",") else None
        position = line - 1 if line else 0
    return None


def _layer_as_source(at: Situation) -> Repair | None:
    """`cross-attend to layer 4`, `to kv@4`, `prefill exit after layer 4`."""
    if "_CACHE" not in at.accepted or "_LAYERS" in at.accepted or at.text.lower() not in ("layer", "layers", "kv"):
        return None
    found = _AFTER_LAYER.match(at.source.text, at.span.end)
    if found is None:
        return None
    span, fixed = Span(at.source, at.span.start, found.end()), f"cache@{found[2]}"
    hint = f"what a layer reads is a cache: `{fixed}`"
    feed: tuple[Feed, ...] = (("_CACHE", "cache"),) if found[1] else (("_CACHE", "cache"), ("_AT", "@"))
    return Repair(odd(at, span, ("a cache",), hint, Edit(span, fixed)), feed)


def _cache_by_its_name(at: Situation) -> Repair | None:
    """`to main`, `cache@main`, `cache main@4` for the cache that `cache main@4: ...` declares."""
    text, after_at = at.source.text, at.text == "@"
    name = word_before(text, at.span.start) if after_at else at.text
    if not name or at.terminal not in ("NAME", "_AT") or not re.search(rf"\bcache[ \t]+{re.escape(name)}[ \t]*@", text):
        return None
    hint = f"a cache that has a name is read by it: `cache {name}`"
    if after_at and "_NL" in at.accepted:
        layer = re.compile(r"@[ \t]*\w*").match(text, at.span.start)
        assert layer is not None
        span = Span(at.source, at.span.start, layer.end())
        return Repair(odd(at, span, ("the end of the statement",), hint, Edit(span, "")))
    if at.accepted >= {"INT", "LAST", "BELOW"} and text[at.span.start - 1 : at.span.start] == "@":
        span = Span(at.source, at.span.start - 1, at.span.end)
        return Repair(odd(at, span, ("a name",), hint, Edit(span, f" {name}")), (("NAME", name),), pop_to="NAME")
    if "_CACHE" in at.accepted and "_LAYERS" not in at.accepted:
        feed = (("_CACHE", "cache"), ("NAME", name))
        return Repair(odd(at, at.span, ("a cache",), hint, Edit(at.span, f"cache {name}")), feed)
    return None


def _name_behind_the_layer(at: Situation) -> Repair | None:
    """`cache@4 main: ...`."""
    found = re.search(
        r"cache[ \t]*@[ \t]*(\d{1,18})[ \t]+$", at.source.text[max(0, at.span.start - 80) : at.span.start]
    )
    if at.terminal != "NAME" or at.accepted != {"_COLON"} or found is None:
        return None
    start = at.span.start - len(found[0])
    span, fixed = Span(at.source, start, at.span.end), f"cache {at.text}@{found[1]}"
    hint = f"the name stands before the layer: `{fixed}`"
    feed = (("_CACHE", "cache"), ("NAME", at.text), ("_AT", "@"), ("INT", found[1]))
    return Repair(odd(at, span, ("a name, `@` and a layer",), hint, Edit(span, fixed)), feed, pop_to="_CACHE")


def _two_words(at: Situation) -> Repair | None:
    """`layers 1-4 are attend`, `full attention`, `layers 1-4 use retention`: two words where the mixer stands."""
    first = word_before(at.source.text, at.span.start)
    if at.terminal not in ("NAME", "_ATTENTION") or "_TO" not in at.accepted or first in ("", "cross", *MIXER_WORDS):
        return None
    if re.search(r"\d[ \t]*(?:-|–|—|\.\.)[ \t]*(?:end|final)$", at.source.text[: at.span.start].rstrip()[-40:]):
        return Repair(None, (("NAME", at.text),), pop_to="NAME")  # the open range is reported
    start = at.source.text.rindex(first, 0, at.span.start)
    both, joined = Span(at.source, start, at.span.end), f"{first}-{at.text}".lower()
    mixer = joined if joined in MIXER_WORDS else OTHER_NAMES.get(joined)
    if mixer in MIXER_WORDS:
        diagnostic = odd(at, both, ("a mixer",), f"write `{mixer}`", Edit(both, mixer))
        return Repair(diagnostic, (("NAME", mixer),), pop_to="NAME")
    word = at.text if at.text in MIXER_WORDS else OTHER_NAMES.get(at.text.lower())
    if word in MIXER_WORDS:
        span = Span(at.source, start, at.span.start)
        hint = f"the mixer follows the layers directly: leave `{first}` out"
        diagnostic = odd(at, Span(at.source, start, start + len(first)), ("a mixer",), hint, Edit(span, ""))
        return Repair(diagnostic, (("NAME", at.text),), pop_to="NAME")
    return None


def _mixer_first(at: Situation) -> Repair | None:
    """`cross-attend layers 5-8 to cache@4`."""
    if at.text.lower() not in MIXER_WORDS or not {"_LAYERS", "_CACHE"} <= at.accepted:
        return None
    hint = f"a statement starts with the layers that it is about: `layers 1-4 {at.text.lower()} ...`"
    return Repair(odd(at, at.span, at.shown, hint, None))


def _which_layers(at: Situation) -> Repair | None:
    """`layers all attend`, `layers every 2 attend`, `layers odd attend`, `layers * attend`."""
    fixed = WHICH_LAYERS.get(at.span.text.lower())
    if fixed is None or not {"RANGE", "REST"} <= at.accepted:
        return None
    return Repair(odd(at, at.span, at.shown, f"layers are given by their numbers: `{fixed}`", None))


def _kind_without_its_setting(at: Situation) -> Repair | None:
    """`swiglu(688)` for `ffn swiglu(688)`."""
    setting = KIND_OF.get(at.text.lower())
    if setting is None or not at.fits((at.keywords[setting], "NAME")):
        return None
    hint = f"`{at.text}` is a kind of `{setting}`: write `{setting} {at.text}`"
    edit = Edit(Span(at.source, at.span.start, at.span.start), f"{setting} ")
    return Repair(odd(at, at.span, at.shown, hint, edit), ((at.keywords[setting], setting), ("NAME", at.text)))


def _filler(at: Situation) -> Repair | None:
    """`cross-attend to cache@4 with window 64`: a word for the comma between settings."""
    if at.text.lower() not in FILLERS or not at.fits(("_COMMA",)):
        return None
    text = at.source.text
    end = len(text[: at.span.start].rstrip())
    edit = Edit(Span(at.source, end, at.span.end), ",")
    return Repair(odd(at, at.span, at.shown, "separate settings with `,`", edit), (("_COMMA", ","),))


def _named_value(at: Situation) -> Repair | None:
    """`rope theta 10000`, `norm rms eps 1e-5`: the value of a setting has no name of its own."""
    before = word_before(at.source.text, at.span.start)
    if at.terminal in ("INT", "FLOAT") and before in ("theta", "base") and "_LPAR" in at.accepted:
        start = at.source.text.rindex(before, 0, at.span.start)
        span, edit = Span(at.source, start, start + len(before)), Edit(Span(at.source, start, at.span.start), "")
        hint = f"the base follows directly: `rope {at.text}`"
        return Repair(odd(at, span, ("a number",), hint, edit), ((at.terminal, at.text),), pop_to=at.terminal)
    value = _VALUE.match(at.source.text, at.span.end)
    if at.text in ("eps", "epsilon") and "_LPAR" in at.accepted and value is not None:
        end = len(at.source.text[: at.span.start].rstrip(" \t"))
        edit = Edit(Span(at.source, end, value.end()), f"({value[1]})")
        hint = f"its epsilon stands in parentheses: `{before}({value[1]})`"
        return Repair(odd(at, at.span, at.shown, hint, edit))
    return None


def _number_in_parentheses(at: Situation) -> Repair | None:
    """`rope(10000)`, `heads(8)`."""
    word, found = word_before(at.source.text, at.span.start), _BRACKETED.match(at.source.text, at.span.start)
    if at.terminal != "_LPAR" or found is None or not (at.fits(("INT",)) or at.fits(("TOTAL",))):
        return None
    edit = Edit(Span(at.source, at.span.start, found.end()), f" {found[1]}")
    return Repair(odd(at, at.span, at.shown, f"write `{word} {found[1]}` without parentheses", edit))


def _thousands(at: Situation) -> Repair | None:
    """`vocab 32,000`."""
    text = at.source.text
    line = text.rfind("\n", 0, at.span.start) + 1
    near = range(max(line, at.span.start - 24), at.span.start + 24)
    numbers = _THOUSANDS.finditer(text, near.start, near.stop)
    found = next((number for number in numbers if number.start() < at.span.start < number.end()), None)
    if at.terminal not in ("INT", "TOTAL") or found is None:
        return None
    span, plain = Span(at.source, found.start(), found.end()), found[1].replace(",", "")
    hint = f"numbers are written without commas: `{plain}`, or `{found[1].replace(',', '_')}`"
    return Repair(odd(at, span, ("a number",), hint, Edit(span, plain)))


def _unit(at: Situation) -> Repair | None:
    """`window 4K`."""
    text, start = at.source.text, at.span.start
    number = re.search(r"(?<![\w.])\d{1,9}$", text[max(0, start - 12) : start])
    factor = _UNITS.get(at.text.lower())
    if number is None or factor is None:
        return None
    span = Span(at.source, start - len(number[0]), at.span.end)
    both = f"`{int(number[0]) * factor}`, or `{int(number[0]) * 10 ** (3 * (1 + list(_UNITS).index(at.text.lower())))}`"
    return Repair(odd(at, span, ("a number",), f"numbers are written out: {both}", None))


def _percent(at: Situation) -> Repair | None:
    """`rope 10000 on 25`, `rope 10000 on 0.25`."""
    if at.accepted != {"_PERCENT"}:
        return None
    text, end = at.source.text, len(at.source.text[: at.span.start].rstrip())
    share = re.compile(r"0?\.(\d{1,2})(?!\d)").match(text, at.span.start - 1) if at.text == "." else None
    if share is not None:
        span, percent = Span(at.source, share.start(), share.end()), int(share[1].ljust(2, "0"))
        hint = f"a share of the dimensions is given in percent: `{percent}%`"
        return Repair(odd(at, span, ("a number and `%`",), hint, Edit(span, f"{percent}%")))
    edit = Edit(Span(at.source, end, end), "%")
    hint = "a share of the dimensions is given in percent: write `%` behind the number"
    written = "the end of the line" if at.terminal == "_NL" else f"`{at.text}`"
    diagnostic = errors.UnexpectedText(span=at.span, written=written, expected=("`%`",), hint=hint, edit=edit)
    return Repair(diagnostic, (("_PERCENT", "%"), (at.terminal, at.text)))


def _kv_without_heads(at: Situation) -> Repair | None:
    """`kv 2`."""
    if at.accepted != {"_HEADS"} or at.terminal not in ("INT", "TOTAL"):
        return None
    edit = Edit(Span(at.source, at.span.start, at.span.start), "heads ")
    diagnostic = odd(at, at.span, at.shown, f"write `kv heads {at.text}`", edit)
    return Repair(diagnostic, (("_HEADS", "heads"), (at.terminal, at.text)))


def _yes(at: Situation) -> Repair | None:
    """`tied embeddings true`."""
    if at.text.lower() not in YES or "_COMMA" not in at.accepted:
        return None
    end = len(at.source.text[: at.span.start].rstrip())
    edit = Edit(Span(at.source, end, at.span.end), "")
    return Repair(odd(at, at.span, at.shown, "the setting alone says that it is so: leave this out", edit), ())


def _iterate(at: Situation) -> Repair | None:
    """`iterate 2-8: ...`, `2 backward, 7 forward`, `iterate layers 2-8: 9 passes`."""
    text = at.source.text
    line = text.rfind("\n", 0, at.span.start) + 1
    if at.accepted == {"_LAYERS"} and at.fits(("_LAYERS", at.terminal)):
        edit = Edit(Span(at.source, at.span.start, at.span.start), "layers ")
        diagnostic = odd(at, at.span, at.shown, f"write `iterate layers {at.text}`", edit)
        return Repair(diagnostic, (("_LAYERS", "layers"), (at.terminal, at.text)))
    if at.accepted not in ({"_FORWARD"}, {"_BACKWARD"}):
        return None
    found = _PASSES.search(text, line, at.span.end + 60)
    if found is not None and found.start() < at.span.start < found.end():
        span, fixed = Span(at.source, found.start(), found.end()), f"{found[2]} forward, {found[1]} backward"
        return Repair(odd(at, span, ("forward passes first",), f"write `{fixed}`", Edit(span, fixed)))
    hint = "both kinds of passes are counted, those without gradient first: `7 forward, 2 backward`"
    written = "the end of the line" if at.terminal == "_NL" else f"`{at.text}`"
    return Repair(errors.UnexpectedText(span=at.span, written=written, expected=at.shown, hint=hint))


def _level_head(at: Situation) -> Repair | None:
    """`blocks of 4 {`, `prefix 2 from context`."""
    if at.accepted == {"TOKENS"} and at.terminal == "_LBRACE":
        edit = Edit(Span(at.source, at.span.start, at.span.start), "tokens ")
        diagnostic = odd(
            at, at.span, at.shown, "levels are `blocks of 4 tokens { ... }` and `tokens in block { ... }`", edit
        )
        return Repair(diagnostic, (("TOKENS", "tokens"), (at.terminal, at.text)))
    if at.accepted == {"BLOCKS", "TOKENS"} and at.terminal == "NAME":
        edit = Edit(at.span, f"blocks.{at.text}")
        diagnostic = odd(at, at.span, at.shown, f"a context is named with its level: `blocks.{at.text}`", edit)
        return Repair(diagnostic, (("BLOCKS", "blocks"), ("_DOT", "."), ("NAME", at.text)))
    return None


def _glued(at: Situation) -> Repair | None:
    """`layers1-8`, `window64`."""
    found = re.fullmatch(r"([a-z-]*[a-z])(\d{1,18})(-\d{1,18})?", at.text)
    word = at.keywords.get(found[1]) if found else None
    if found is None or word is None:
        return None
    number = "RANGE" if found[3] else "INT" if at.fits((word, "INT")) else "TOTAL"
    if not at.fits((word, number)):
        return None
    fixed = f"{found[1]} {at.text[found.end(1) :]}"
    diagnostic = errors.UnexpectedWord(
        span=at.span, word=at.text, words=(), expected=at.shown, hint=f"write `{fixed}`", edit=Edit(at.span, fixed)
    )
    return Repair(diagnostic, ((word, found[1]), (number, at.text[found.end(1) :])))


def _none(at: Situation) -> Repair | None:
    """`window none`, `rope off`."""
    text = at.source.text
    end = at.span.end if at.text.lower() in NONE else len(text[: at.span.start].rstrip(" \t"))
    line = text.rfind("\n", 0, at.span.start) + 1
    found = re.search(r"(?<![\w-])(window|rope|ffn)[ \t]+(\w+)$", text[line:end])
    if found is None or found[2].lower() not in NONE or not at.accepted & {"INT", "_LPAR"}:
        return None
    span, fixed = Span(at.source, line + found.start(), end), f"no {found[1]}"
    feed: tuple[Feed, ...] = (("_NO", "no"), ("NAME", found[1]))
    if end != at.span.end:
        feed = (*feed, (at.terminal, at.text))
    shown = odd(at, Span(at.source, line + found.start(2), end), ("a value",), f"write `{fixed}`", Edit(span, fixed))
    return Repair(shown, feed, pop_to="_NO")


def _config_field(at: Situation) -> Repair | None:
    """`max_position_embeddings 4096`, `layer_types [...]`: fields of config files that no setting is named after."""
    hint = FIELDS.get(at.text.lower())
    return None if hint is None or not at.is_word else Repair(odd(at, at.span, at.shown, hint, None))


def _by(at: Situation) -> Repair | None:
    """`heads 8 by 32`."""
    if at.text.lower() not in ("by", "times") or "_X" not in at.accepted:
        return None
    return Repair(odd(at, at.span, at.shown, "write `x`", Edit(at.span, "x")), (("_X", "x"),))


def _bare_heads(at: Situation) -> Repair | None:
    """`cache@4: 2 x 32`."""
    if (
        at.terminal not in ("INT", "TOTAL")
        or "_KV" not in at.accepted
        or at.source.text[: at.span.start].rstrip()[-1:] != ":"
    ):
        return None
    edit = Edit(Span(at.source, at.span.start, at.span.start), "kv heads ")
    diagnostic = odd(at, at.span, ("a setting",), f"say what this is: `kv heads {at.text} ...`", edit)
    return Repair(diagnostic, (("_KV", "kv"), ("_HEADS", "heads"), (at.terminal, at.text)))


def _closing_parenthesis(at: Situation) -> Repair | None:
    """`ffn swiglu(688` and the line ends."""
    if at.terminal not in ("_NL", "_RBRACE", "_COMMA") or not at.fits(("_RPAR", at.terminal)):
        return None
    end = len(at.source.text[: at.span.start].rstrip())
    edit = Edit(Span(at.source, end, end), ")")
    written = "the end of the line" if at.terminal == "_NL" else f"`{at.text}`"
    diagnostic = errors.UnexpectedText(span=at.span, written=written, expected=("`)`",), hint="write `)`", edit=edit)
    return Repair(diagnostic, (("_RPAR", ")"), (at.terminal, at.text)))


Rule = Callable[[Situation], Repair | None]
FIRST: tuple[Rule, ...] = (
    _comma_at_line_end,
    _config_field,
    _mixer_first,
    _glued,
    _none,
    _by,
    _bare_heads,
    _closing_parenthesis,
    _iterate,
    _layer_as_source,
    _cache_by_its_name,
    _name_behind_the_layer,
    _two_words,
    _which_layers,
    _named_value,
    _thousands,
    _unit,
    _percent,
    _kv_without_heads,
    _yes,
    _level_head,
    _kind_without_its_setting,
)
LAST: tuple[Rule, ...] = (_filler, _number_in_parentheses)
