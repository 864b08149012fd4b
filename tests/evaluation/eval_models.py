"""Small models that the tests of evaluation share."""

from functools import cache
from typing import Any

import archspec

HEAD = "vocab {vocab}, norm rms(1e-5), ffn swiglu(48), rope 10000"
DENSE = """
model dense {{
  layers 2, width 32, HEAD
  layers 1-2 attend, heads 2 x 16, kv heads 1
}}
"""
SHARED = """
model shared {{
  layers 4, width 32, HEAD
  layers 1-2 attend, heads 2 x 16, window 8
  cache@2: kv heads 1 x 16
  layers 3-4 cross-attend to cache@2, heads 2 x 16
}}
"""
LEVELS = """
model levels {{
  HEAD
  blocks of 4 tokens {{
    layers 1, width 32, embed lookup 8 concat
    layers 1 attend, heads 2 x 16
    emit context
  }}
  tokens in block {{
    layers 1, width 32
    prefix 2 from blocks.context
    layers 1 attend, heads 2 x 16
  }}
}}
"""
SPECS = {"dense": DENSE, "shared": SHARED, "levels": LEVELS}


def text_of(name: str, vocab: int = 256) -> str:
    return SPECS[name].replace("HEAD", HEAD).format(vocab=vocab)


@cache
def model(name: str, vocab: int = 256, seed: int = 0) -> Any:
    spec = archspec.parse_spec_text(text_of(name, vocab))
    return archspec.compile(spec, dtype="float64", seed=seed, compile=False)
