"""Whatever becomes of a file: diagnostics with places inside the text, never an exception."""

import random

import pytest
from fuzz import run_batch

from archspec.syntax.errors import UnexpectedText, UnexpectedWord
from archspec.syntax.parser import grammar_rules
from archspec.testing.judging import judged
from archspec.testing.mutations import derived

SPEC = """# a comment, before anything
model yoco_3b.x {                                  # arXiv 2405.05254
  layers 26, width 3072, vocab 100_288, ffn swiglu(8192), norm rms(1e-5),
    heads 24 x 128
  embed scale sqrt(width), rope interleaved-linspace(10000) on 50%, tied embeddings, bias qkv out

  layers 1-4 step 3, 2..3 retention, no bias
  layers 5–12 attend, window 128, qk-norm rms(1e-6)  # a dash from a PDF
  layers 13 ffn-only
  cache main@13: kv heads 8 x 128, norm rms, no rope
  cache@12:
  layers 14-20 cross-attend to cache main, heads 24x128, ffn gelu(100), no window
  layers 21, 22-last cross-attend to cache@12
  prefill exit after cache main
}
"""
ITERATED = """model lckv {
  layers 6, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000, norm rms(1e-5)
  layers 1, 6 attend, window 8, sinks 2
  layers 2-4 cross-attend to cache@5, window 8
  layers 5 attend, attention softcap 50
  iterate layers 2-5: 7 forward, 2 backward
}
"""
LEVELS = """model block {
  vocab 100, ffn gelu(128), rope 10000, heads 4 x 16
  blocks of 4 tokens {
    layers 2, width 64, embed lookup 16 concat
    layers 1 attend
    layers 2 cross-attend to cache@1
    emit context
  }
  tokens in block {
    layers 1, width 64
    prefix 2 from blocks.context
    layers 1 attend
  }
}
"""
COMPOSED = """let W = 4 * (S + 1)  # numbers
let S = 3
define local { attend, heads 4 x 16
  kv heads (W / 8) }
define tiny { local, like small, window W }
define small { rope 500_000, no bias }
model m {
  let LAST = 2 * S
  layers LAST, width (16 * 4), vocab 100, ffn swiglu(W * 8), heads 4 x 16, rope 10000
  layers 1-S tiny, qk-norm
  cache@S: kv heads 2, like small
  layers (S+1)-last cross-attend to cache@S, like small
}
"""
SPECS = {"one stack": SPEC, "iterated": ITERATED, "levels": LEVELS, "composed": COMPOSED}
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


@each_spec
def test_the_file_itself_is_understood(spec):
    assert judged(spec).diagnostics == ()


@each_spec
def test_every_truncation(spec):
    for length in range(len(spec) + 1):
        analysis = judged(spec[:length])
        assert analysis.has_spec == (length >= len(spec) - 1)  # the last line end may be missing


@pytest.mark.parametrize("seed", range(8))
def test_texts_made_from_all_specs(seed):
    """`make fuzz` tries many more."""
    outcome = run_batch(seed, 400)
    assert outcome.failures == []
    assert len(outcome.codes) > 40  # the changes reach most of the checks, not the parser alone


def test_clauses_in_another_order_are_located():
    analysis = judged(SPEC.replace("retention, no bias", "retention, sinks 2, window 8"))
    assert [diagnostic.code for diagnostic in analysis.diagnostics] == ["E0013"]
    assert analysis.diagnostics[0].span.text == "sinks 2, window 8"


def test_every_terminal_has_a_sample():
    rng = random.Random(0)
    symbols = {symbol for expansions in grammar_rules().values() for parts in expansions for symbol in parts}
    assert all(derived(symbol, rng).strip(" ") for symbol in symbols - set(grammar_rules()))


def test_what_the_grammar_derives_is_read_without_an_error_of_syntax():
    """So that mutations by the grammar reach the phases behind the parser."""
    rng = random.Random(0)
    texts = [f"model m {{\n{derived('_statement', rng)}\n}}\n" for _ in range(200)]
    unread = [
        text for text in texts if any(isinstance(d, UnexpectedText | UnexpectedWord) for d in judged(text).diagnostics)
    ]
    assert len(unread) < 20
