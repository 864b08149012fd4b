"""Specs that figures are drawn of: every shipped one, and some that are hard to draw."""

from functools import cache
from pathlib import Path

import archspec
from archspec.levels_plan import AnyPlan

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.arch"))

HEADER = "layers {}, width 64, vocab 99, heads 4 x 16, ffn swiglu(128), rope 10000"
HARD = {
    "local_global": f"model m {{ {HEADER.format(96)}\nlayers 6-96 step 6 attend\nlayers rest attend, window 512\n}}",
    "front": f"model m {{ {HEADER.format(100)}\nlayers 1-40 attend, kv heads 1\nlayers 41-100 cross-attend to cache@40\n}}",
    "hybrid": f"model m {{ {HEADER.format(100)}\n"
    "layers 1-49 step 2 retention\nlayers 2-50 step 2 attend, window 64\ncache shared_by_everything_above@50: kv heads 2 x 16\n"
    "layers 51-100 cross-attend to cache shared_by_everything_above\nprefill exit after cache shared_by_everything_above\n}",
    "iterated_pairs": f"model m {{ {HEADER.format(12)}\n"
    + "".join(f"layers {n} cross-attend to cache@{n + 1}\nlayers {n + 1} attend\n" for n in range(1, 12, 2))
    + "iterate layers 1-12: 3 forward, 1 backward\n}",
    "crossing": f"model m {{ {HEADER.format(9)}\n"
    "layers 1-4 attend\nlayers 5 cross-attend to cache@1\nlayers 6 cross-attend to cache@3\nlayers 7 cross-attend to cache@2\n"
    "layers 8 cross-attend to cache@4\nlayers 9 cross-attend to cache@1\n}",
    "nothing_cached": f"model m {{ {HEADER.format(3)}\nlayers 1-3 ffn-only\n}}",
    "streaming": f"model m {{ {HEADER.format(3)}, no diagonal\nlayers 1-3 attend, window 1020, sinks 4, attention softcap 30\n}}",
    "long_name": f"model {'a' * 120} {{ {HEADER.format(2)}\nlayers 1-2 attend\n}}",
    "long_blocks": """model m { vocab 99, heads 2 x 8, ffn gelu(24), rope 10000
      blocks of 40 tokens { layers 8, width 80, embed lookup 2 concat
        layers 1-4 retention
        cache@4: kv heads 1 x 8
        layers 5-8 cross-attend to cache@4
        emit context }
      tokens in block { layers 3, width 16
        summation from blocks.context
        layers 1 attend, window 5, norm layernorm(1e-5)
        layers 2-3 cross-attend to cache@1, window 4 } }""",
}


@cache
def plan_of(path: Path) -> AnyPlan:
    return archspec.plan(archspec.parse(path))


@cache
def hard(name: str) -> AnyPlan:
    return archspec.plan(archspec.parse_spec_text(HARD[name]))
