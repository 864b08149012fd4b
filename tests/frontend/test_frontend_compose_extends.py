"""`extends`: a variation is the spec that a person would write out, and says no more than what changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import specs

from archspec.compose.ranges import Taken
from archspec.driver import analyse_text
from archspec.graph.lower import lower, unfold
from archspec.render import render_text
from archspec.source import Source, Span
from archspec.spec.format import format_spec
from archspec.syntax import tree
from archspec.testing.strategies import iterated_specs
from archspec.testing.strategies import specs as valid_specs

BASE = """model a {
  let W = 16
  let F = 8 * W
  layers 6, width 64, vocab 100, ffn swiglu(F), heads 4 x 16, rope 10000, window W, sinks 2
  layers 1-2 attend
  cache@2: kv heads 2
  layers 3-last cross-attend to cache@2
  prefill exit after cache@2
}
"""
CHANGES = [
    (
        "",
        """layers 6, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000, window 16, sinks 2
           layers 1-2 attend
           cache@2: kv heads 2
           layers 3-6 cross-attend to cache@2
           prefill exit after cache@2""",
    ),
    (
        """let W = 32
           layers 8, no rope, no window""",
        """layers 8, width 64, vocab 100, ffn swiglu(256), heads 4 x 16, no rope, no window
           layers 1-2 attend
           cache@2: kv heads 2
           layers 3-8 cross-attend to cache@2
           prefill exit after cache@2""",
    ),
    (
        """layers 4 attend
           layers 6 ffn-only
           window 8
           no prefill exit""",
        """layers 6, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000, window 8
           layers 1-2 attend
           cache@2: kv heads 2
           layers 3, 5 cross-attend to cache@2
           layers 4 attend
           layers 6 ffn-only""",
    ),
    (
        """cache@2: kv heads 1, norm rms(1e-6)
           layers 3-last step 3 retention
           no prefill exit""",
        """layers 6, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000, window 16, sinks 2
           layers 1-2 attend
           cache@2: kv heads 1, norm rms(1e-6)
           layers 4-5 cross-attend to cache@2
           layers 3, 6 retention""",
    ),
    (
        """no cache@2
           cache main@2: kv heads 2
           layers rest cross-attend to cache main
           no layers 3-6
           prefill exit after cache main""",
        """layers 6, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000, window 16, sinks 2
           layers 1-2 attend
           cache main@2: kv heads 2
           layers 3-6 cross-attend to cache main
           prefill exit after cache main""",
    ),
    (
        """cache main@2: kv heads 1
           layers 3-6 cross-attend to cache main
           prefill exit after cache main""",
        """layers 6, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000, window 16, sinks 2
           layers 1-2 attend
           cache main@2: kv heads 1
           layers 3-6 cross-attend to cache main
           prefill exit after cache main""",
    ),
]


def layers_of(text: str) -> dict:
    """What each layer and cache of the last model is; the order of statements and their splitting are no matter."""
    analysis = analyse_text(text)
    assert analysis.ok, render_text(analysis.diagnostics)
    return meaning(analysis.elaborated.spec)


def meaning(spec) -> dict:
    graph = lower(spec)
    caches = {key: (cache.layer, cache.kv_heads, cache.window) for key, cache in graph.caches.items()}
    layers = {
        number: {name: value for name, value in vars(layer).items() if name != "statement"}
        for number, layer in graph.layers.items()
    }
    rest = [s for s in spec.statements if s.kind in ("iterate", "prefill-exit")]
    header = spec.model_copy(update={"name": "m", "statements": ()})
    return {"header": header, "layers": layers, "caches": caches, "sources": dict(graph.sources), "rest": rest}


@pytest.mark.parametrize(("change", "whole"), CHANGES)
def test_variation_is_what_it_comes_to(change, whole):
    assert layers_of(f"{BASE}model b extends a {{\n{change}\n}}\n") == layers_of(f"model b {{\n{whole}\n}}\n")


def test_variation_reads_as_one_text():
    """What is changed stands where it stood."""
    text = BASE + "model b extends a {\n  cache@2: kv heads 1\n  layers 2 attend, kv heads 1\n  vocab 200\n}\n"
    assert format_spec(analyse_text(text).elaborated.spec) == (
        "model b {\n"
        "  layers 6, width 64, vocab 200, heads 4 x 16, window 16, sinks 2, ffn swiglu(128), rope 10000\n\n"
        "  layers 1 attend\n"
        "  layers 2 attend, kv heads 1\n"
        "  cache@2: kv heads 1\n"
        "  layers 3-last cross-attend to cache@2\n"
        "  prefill exit after cache@2\n"
        "}\n"
    )


def test_chains():
    text = (
        BASE
        + "model b extends a {\n  let W = 32\n}\nmodel c extends b {\n  layers 3 ffn-only\n}\nmodel d extends c {\n  vocab 7\n}\n"
    )
    changed = BASE.replace("W = 16", "W = 32").replace("vocab 100", "vocab 7").replace("3-last", "4-last")
    assert layers_of(text) == layers_of(changed.replace("  cache@2", "  layers 3 ffn-only\n  cache@2"))


def test_iterate_is_replaced():
    base = (
        "model a {\n  layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000\n"
        "  layers 1, 4 attend\n  layers 2-3 cross-attend to cache@4\n  iterate layers 2-4: 7 forward, 2 backward\n}\n"
    )
    assert layers_of(base + "model b extends a {\n  iterate layers 2-4: 3 forward, 1 backward\n}\n") == layers_of(
        base.replace("7 forward, 2", "3 forward, 1")
    )
    gone = "model b extends a {\n  no iterate\n  layers 2-3 attend\n}\n"
    assert layers_of(base + gone)["rest"] == []


def test_iterations_of_other_layers_stay():
    base = (
        "model a {\n  layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000\n"
        "  layers 2, 4 attend\n  layers 1 cross-attend to cache@2\n  layers 3 cross-attend to cache@4\n"
        "  iterate layers 1-2: 7 forward, 2 backward\n  iterate layers 3-4: 7 forward, 2 backward\n}\n"
    )
    changed = base.replace("3-4: 7", "3-4: 5")
    assert layers_of(base + "model b extends a {\n  iterate layers 3-4: 5 forward, 2 backward\n}\n") == layers_of(
        changed
    )


LEVELS = """model a {
  let L = 4
  vocab 100, ffn gelu(128), rope 10000, heads 4 x 16
  blocks of L tokens {
    let D = 2
    layers D, width 64, embed lookup (64 / L) concat
    layers 1-D attend
    emit context
  }
  tokens in block {
    layers 3, width 64
    prefix 2 from blocks.context
    layers 1-3 attend
  }
}
"""


def level_spec(text):
    analysis = analyse_text(text)
    assert not analysis.diagnostics, render_text(analysis.diagnostics)
    return analysis.elaborated.spec.model_copy(update={"name": "m"})


def test_levels_merge_by_kind():
    change = """model b extends a {
      let L = 8
      blocks of L tokens {
        let D = 3
        layers 2 ffn-only
      }
      tokens in block {
        summation from blocks.context
        no layers 3
        layers 2
      }
    }
    """
    whole = """model b {
      vocab 100, ffn gelu(128), rope 10000, heads 4 x 16
      blocks of 8 tokens {
        layers 3, width 64, embed lookup 8 concat
        layers 1, 3 attend
        layers 2 ffn-only
        emit context
      }
      tokens in block {
        width 64, layers 2
        summation from blocks.context
        layers 1-2 attend
      }
    }
    """
    a, b = level_spec(LEVELS + change), level_spec(whole.replace("1-2 attend", "1-2 attend"))
    assert (a.blocks, a.defaults) == (b.blocks, b.defaults)
    assert a.tokens.model_dump() == b.tokens.model_dump()
    assert level_spec(LEVELS + "model b extends a { }") == level_spec(LEVELS)


@settings(max_examples=150, deadline=None)
@given(specs)
def test_empty_variation_is_the_base(spec):
    """Consistent or not: what is found is found in both, and the spec is the same but for its name."""
    text = format_spec(spec.model_copy(update={"name": "base"}))
    varied = analyse_text(text + "model b extends base {\n}\n")
    plain = analyse_text(text)
    assert sorted(one.code for one in varied.diagnostics) == sorted(one.code for one in plain.diagnostics)
    assert varied.elaborated.spec.model_copy(update={"name": "base"}) == plain.elaborated.spec


@settings(max_examples=150, deadline=None)
@given(valid_specs() | iterated_specs(), st.data())
def test_saying_again_what_the_base_says_changes_nothing(spec, data):
    """Any of its lines, in any order."""
    text = format_spec(spec.model_copy(update={"name": "base"}))
    lines = [line for line in text.replace(",\n      ", ", ").splitlines()[1:-1] if line.strip()]
    again = data.draw(st.lists(st.sampled_from(lines), unique=True))
    varied = analyse_text(text + "model b extends base {\n" + "\n".join(again) + "\n}\n")
    assert varied.ok, render_text(varied.diagnostics)
    said = meaning(spec.model_copy(update={"name": "m"}))
    found = meaning(varied.elaborated.spec)
    assert {**found, "rest": sorted(map(str, found["rest"]))} == {**said, "rest": sorted(map(str, said["rest"]))}


@settings(max_examples=150, deadline=None)
@given(valid_specs())
def test_saying_everything_again_in_order_keeps_the_order(spec):
    text = format_spec(spec.model_copy(update={"name": "base"}))
    varied = analyse_text(text + text.replace("model base {", "model b extends base {"))
    assert varied.elaborated.spec.model_copy(update={"name": spec.name}) == spec


SPAN = Span(Source("t", ""), 0, 0)
ends = st.integers(1, 30)
items = st.builds(
    lambda a, b, step: tree.Item("range", min(a, b), max(a, b), step, SPAN), ends, ends, st.integers(1, 5)
) | st.builds(lambda a, step: tree.Item("range", a, "last", step, SPAN), ends, st.integers(1, 4))


def numbers(item: tree.Item, total: int) -> set[int]:
    last = total if item.last == "last" else item.last
    return set(range(item.first, last + 1, item.step))


@settings(max_examples=500, deadline=None)
@given(items, st.lists(items, max_size=4), st.integers(30, 32))
def test_taking_layers_away_is_subtraction_of_sets(item, taken, total):
    left = Taken(taken, total).left_of(item)
    expected = numbers(item, total).difference(*(numbers(other, total) for other in taken))
    pieces = [numbers(piece, total) for piece in left]
    if left == (item,):
        assert expected == numbers(item, total)
    assert set().union(*pieces) == expected
    assert sum(map(len, pieces)) == len(expected)


def test_steps_that_do_not_divide_are_still_reported():
    """A range is changed only if something is taken out of it."""
    text = BASE.replace("layers 1-2 attend", "layers 1-2 step 3 attend") + "model b extends a {\n  layers 5 attend\n}\n"
    assert "E0107" in [diagnostic.code for diagnostic in analyse_text(text).diagnostics]


def test_layers_of_a_rest_in_the_base_follow():
    base = BASE.replace("layers 3-last", "layers rest")
    spec = analyse_text(base + "model b extends a {\n  layers 9\n  layers 5 ffn-only\n}\n").elaborated.spec
    (rest,) = [ranges for idx, ranges in unfold(spec).items() if not spec.statements[idx].ranges]
    assert [number for part in rest for number in part] == [3, 4, 6, 7, 8, 9]
