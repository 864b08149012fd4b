"""The grammar: unambiguous, and in step with the words that Python knows."""

from importlib.resources import files

import pytest
from lark import Lark

from archspec.diagnostics import REGISTRY, layer_numbers, suggest
from archspec.source import Source
from archspec.spec.model import Settings
from archspec.syntax.parser import _DISPLAY, _lark, keywords, parse_text
from archspec.syntax.words import NOT_YET, OTHER_NAMES, STATEMENTS_TO_COME, meant


def test_grammar_is_strict():
    """LALR(1) without conflicts, and no two terminals of a state match the same text."""
    pytest.importorskip("interegular")
    grammar = files("archspec").joinpath("grammars/archspec.lark").read_text("utf-8")
    Lark(grammar, parser="lalr", strict=True)


def test_every_terminal_can_be_named_in_a_message():
    words = {*keywords().values(), "OPEN_RANGE"}  # which is there to be reported, never proposed
    for terminal in _lark().terminals:
        if terminal.name not in _lark().lexer_conf.ignore:
            assert terminal.name in words or terminal.name in _DISPLAY, terminal.name


def test_words_to_come_are_not_keywords():
    assert sorted(set(NOT_YET) & set(keywords())) == []
    assert set(NOT_YET) >= STATEMENTS_TO_COME


def test_other_names_lead_to_words_of_the_language():
    kinds = {
        "relu2",
        "gelu-quick",
        "parallel-one-norm",
        "rms",
        "layernorm",
        "swiglu",
        "half",
        "interleaved",
        "attend",
        "cross-attend",
        "retention",
        "ffn-only",
    }
    for other, word in OTHER_NAMES.items():
        assert other == other.lower()
        assert set(word.split()) <= set(keywords()) | kinds, word


@pytest.mark.parametrize(
    ("word", "known", "wanted"),
    [
        ("RMSNorm", ("rms", "layernorm"), "rms"),
        ("LayerNorm", ("rms", "layernorm"), "layernorm"),
        ("SwiGLU", ("swiglu", "gelu"), "swiglu"),
        ("haeds", ("heads", "window"), "heads"),
        ("mamba", ("attend", "retention"), None),
        ("xyzzy", ("attend", "retention"), None),
        ("x" * 10_000, ("attend",), None),
    ],
)
def test_meant(word, known, wanted):
    assert meant(word, known) == wanted


def test_suggest_is_not_too_eager():
    assert suggest("zzz", ("attend", "window")) is None


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((3,), "layer 3"), ((1, 2, 3), "layers 1-3"), ((7, 1, 2), "layers 1-2, 7"), ((1, 3, 5), "layers 1, 3, 5")],
)
def test_layer_numbers(numbers, text):
    assert layer_numbers([number - 1 for number in numbers]) == text


def test_layer_numbers_in_messages_are_short():
    odd = list(range(0, 1000, 2))
    assert layer_numbers(odd, short=True).endswith("19, ..., 999")
    assert len(layer_numbers(odd)) > 1000


def test_codes_have_their_shape():
    for code, kind in REGISTRY.items():
        assert code[0] == ("W" if kind.severity == "warning" else "E")
        assert len(code) == 5
        assert code[1:].isdecimal()


COMMENTED = """# a

model m { # b
  # c
  layers 4, # d
    # e

    width 64, vocab 100, ffn swiglu(128) # f
  heads 4 x 16, rope 10000# g
  # h
  layers 1-2,# i
    3 attend, # j
      window 8 # k
  cache@2: # l
  cache main@3: kv heads 2, # m
    no rope
  layers rest cross-attend to cache main, no rope # n
  # o
} # p
# q"""


def test_comments_may_stand_everywhere():
    parsed, found = parse_text(Source("c.arch", COMMENTED))
    assert found == []
    assert parsed is not None
    assert len(parsed.statements) == 6


@pytest.mark.parametrize(
    "line", ["layers 1–4 attend", "layers 1..4 attend", "layers 1 — 4 attend", "layers 1,2 ,3,  4 attend"]
)
def test_ranges_that_are_read_as_they_are_meant(line):
    _, found = parse_text(Source("r.arch", f"model m {{\n  {line}\n}}"))
    assert found == []


def test_settings_and_clauses_agree():
    """Every setting of the model can be written, and is one that messages can name."""
    from archspec.spec.elaborate import SETTING_KEYS, display_key

    assert tuple(Settings.model_fields) == SETTING_KEYS
    assert all(display_key(key) for key in SETTING_KEYS)


def test_no_state_has_two_readings_of_a_word():
    """A name of a number and any other word look alike; only behind `rope` do both fit, and capitals decide."""
    words = {"NAME", "IDENT", "CAPITALS", "MODEL_NAME"}
    states = _lark().parser.parser._parse_table.states.values()
    both = {frozenset(words & set(table)) for table in states if len(words & set(table)) > 1}
    assert both == {frozenset({"NAME", "CAPITALS"})}
