"""Whatever becomes of a file: diagnostics with places inside the text, never an exception."""

import random
import re

import pytest

from archspec.driver import Analysis, analyse_text
from archspec.render import render_text, to_json

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
SPECS = {"one stack": SPEC, "iterated": ITERATED, "levels": LEVELS}
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def tokens_of(spec: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", spec)


EXTRA = [
    "{",
    "}",
    "(",
    ")",
    ",",
    "@",
    ":",
    "#",
    "\n",
    " ",
    "-",
    "–",
    "x",
    "to",
    "cache",
    "layers",
    "last",
    "rest",
    "=",
    ";",
]
EXTRA += [
    "0",
    "1",
    "999999999999999999",
    "1e400",
    "1e-9",
    "model",
    "iterate",
    "kv",
    "heads",
    "\t",
    "\r",
    "é",
    "\ufeff",
    "\u00a0",
]


def judged(text: str) -> Analysis:
    """Check a text, render what is found, and see that every place is inside the text."""
    analysis = analyse_text(text)
    rendered = render_text(analysis.diagnostics)
    assert bool(rendered) == bool(analysis.diagnostics)
    for item in to_json(analysis.diagnostics):
        edits = [help_["edit"] for help_ in item["helps"] if "edit" in help_]
        for part in [item, *item["labels"], *edits]:
            start, end = part["span"]["start"]["offset"], part["span"]["end"]["offset"]
            assert 0 <= start <= end <= len(text)
    if analysis.ok:
        assert analysis.plan().num_parameters() > 0
    return analysis


@each_spec
def test_the_file_itself_is_understood(spec):
    assert judged(spec).diagnostics == ()


@each_spec
def test_every_truncation(spec):
    for length in range(len(spec) + 1):
        analysis = judged(spec[:length])
        assert analysis.ok == (length >= len(spec) - 1)  # the last line end may be missing


@each_spec
@pytest.mark.parametrize("seed", range(2))
def test_characters_changed(seed, spec):
    rng = random.Random(seed)
    alphabet = sorted(set(spec)) + [chr(code) for code in (0, 1, 9, 13, 127, 160, 8211, 8722, 0x1F600, 0xD7FF)]
    for _ in range(250):
        text = list(spec)
        for _ in range(rng.choice([1, 1, 2, 5])):
            at = rng.randrange(len(text))
            text[at : at + rng.choice([0, 1, 1, 3])] = [rng.choice(alphabet)] * rng.choice([0, 1, 1, 2])
        judged("".join(text))


@each_spec
@pytest.mark.parametrize("seed", range(2))
def test_tokens_changed(seed, spec):
    rng = random.Random(seed)
    for _ in range(250):
        tokens = tokens_of(spec)
        for _ in range(rng.choice([1, 1, 2, 6])):
            at = rng.randrange(len(tokens))
            change = rng.choice(["drop", "double", "swap", "insert", "replace"])
            if change == "drop":
                del tokens[at]
            elif change == "double":
                tokens.insert(at, tokens[at])
            elif change == "swap":
                other = rng.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            elif change == "insert":
                tokens.insert(at, rng.choice(EXTRA))
            else:
                tokens[at] = rng.choice(EXTRA)
        judged("".join(tokens))


@each_spec
def test_lines_changed(spec):
    rng = random.Random(0)
    lines = spec.splitlines(keepends=True)
    for _ in range(100):
        judged("".join(rng.sample(lines, rng.randrange(len(lines)))))


@pytest.mark.parametrize("seed", range(2))
def test_noise(seed):
    rng = random.Random(seed)
    for _ in range(100):
        judged(
            "".join(rng.choice([*EXTRA, "model m {\n", "attend", "window 8", "1-4"]) for _ in range(rng.randrange(60)))
        )
