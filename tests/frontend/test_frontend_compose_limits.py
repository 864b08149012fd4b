"""However large, deep or circular: an answer, and no more memory than a spec deserves."""

import tracemalloc

import pytest

from archspec.compose import templates
from archspec.compose.composing import MAX_CHAIN
from archspec.compose.templates import MAX_DEPTH
from archspec.driver import analyse_text
from archspec.render import render_text
from archspec.syntax.limits import MAX_NESTING, MAX_WORDS

pytestmark = pytest.mark.timeout(60)  # ten times what the slowest takes: only runaway behaviour ends here

HEADER = "layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000"


def model(*lines: str, name: str = "m") -> str:
    return f"model {name} {{\n  {HEADER}\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def codes(text: str) -> set[str]:
    tracemalloc.start()
    try:
        found = analyse_text(text).diagnostics
        assert len(render_text(found)) < 20_000_000
        assert tracemalloc.get_traced_memory()[1] < 400_000_000
    finally:
        tracemalloc.stop()
    return {diagnostic.code for diagnostic in found}


def test_words():
    attend = " layers 1-4 attend\n"
    assert codes(model(attend * (MAX_WORDS // 3))) == {"E0030"}
    assert codes(model("layers 1-4 attend  # " + "x, " * MAX_WORDS)) == set()


def test_parentheses():
    for depth in (MAX_NESTING, MAX_NESTING + 1, 100_000):
        text = model(f"layers 1-4 attend, window {'(' * depth}8{')' * depth}")
        assert codes(text) == ({"E0030"} if depth > MAX_NESTING else set())
    assert (
        codes(
            "let A = "
            + "(1 + " * 30
            + "1"
            + ")" * 30
            + model("layers 1-4 attend, window A").replace("model", "\nmodel")
        )
        == set()
    )


def test_nested_levels():
    assert "E0030" not in codes(model("tokens in block {\n" * 2000 + "}" * 2000))


def test_long_chains_of_numbers():
    chain = "".join(f"let A{n} = A{n + 1}\n" for n in range(5000))
    assert codes(chain + "let A5000 = 8\n" + model("layers 1-4 attend, window A0")) == set()
    assert codes(chain + "let A5000 = A0\n" + model("layers 1-4 attend, window A0")) == {"E0035"}
    assert codes(chain + model("layers 1-4 attend, window A0")) == {"E0032"}


def test_long_expressions():
    assert codes("let A = " + "1 + " * 10_000 + "1\n" + model("layers 1-4 attend, window A")) == set()


def test_numbers_that_double():
    chain = "".join(f"let A{n} = A{n - 1} * A{n - 1}\n" for n in range(1, 2000))
    assert codes("let A0 = 2\n" + chain + model("layers 1-4 attend, window A1999")) == {"E0033"}


def test_unknown_names_are_summed_up():
    text = "".join(f"layers 1-4 attend, window W{n}\n" for n in range(3000))
    found = analyse_text(model(text)).diagnostics
    assert 0 < sum(diagnostic.code == "E0032" for diagnostic in found) <= 100


def test_templates_that_use_one_another_twice():
    text = "define t0 { heads 4 x 16, window 8 }\n"
    text += "".join(f"define t{n} {{ like t{n - 1}, like t{n - 1} }}\n" for n in range(1, MAX_DEPTH))
    assert codes(text + model(f"layers 1-4 attend, like t{MAX_DEPTH - 1}")) == set()


def test_templates_in_a_chain():
    chain = "define t0 { attend, window 8 }\n" + "".join(f"define t{n} {{ t{n - 1} }}\n" for n in range(1, 2000))
    assert codes(chain + model("layers 1-4 t1999")) == {"E0030"}
    backwards = "".join(f"define t{n} {{ t{n + 1} }}\n" for n in range(2000)) + "define t2000 { attend }\n"
    assert codes(backwards + model("layers 1-4 t0")) == {"E0030"}
    circle = "".join(f"define t{n} {{ t{(n + 1) % 20} }}\n" for n in range(20))
    assert codes(circle + model("layers 1-4 t0")) == {"E0035"}


def test_templates_used_everywhere(monkeypatch):
    monkeypatch.setattr(templates, "MAX_SETTINGS", 1000)
    text = "define t { attend, heads 4 x 16, kv heads 2, window 8, rope 10000, norm rms(1e-5), qk-norm, bias qkv }\n"
    statements = [f"layers {n} t" for n in range(1, 200)]
    assert "E0030" in codes(text + model(*statements))


def test_templates_that_all_disagree():
    text = "".join(f"define t{n} {{ window {n + 1} }}\n" for n in range(3000))
    assert codes(text + model("layers 1-4 attend" + "".join(f", like t{n}" for n in range(3000)))) == {"E0038"}


def test_mixers_that_nobody_knows():
    assert codes("".join(f"define t{n} {{ foo{n} }}\n" for n in range(8000))) == set()


def test_chains_of_models():
    chain = "".join(f"model m{n} extends m{n - 1} {{\n}}\n" for n in range(1, 5000))
    text = model("layers 1-4 attend", name="m0") + chain
    assert codes(text) == {"E0030"}
    assert (
        codes(model("layers 1-4 attend", name="m0") + "".join(chain.splitlines(True)[: 2 * (MAX_CHAIN - 1)])) == set()
    )


def test_variations_of_many_pieces():
    base = model(*["layers 1-4 attend"] * 500, name="a").replace("layers 4,", "layers 900,").replace("1-4", "1-900")
    variation = "model b extends a {\n" + "".join(f"layers {2 * n} attend\n" for n in range(1, 401)) + "}\n"
    assert "E0030" in codes(base + variation)


def test_variations_of_huge_ranges():
    base = model("layers 1-1_000_000".replace("_", "") + " attend", name="a").replace("layers 4,", "layers 1000000000,")
    variation = "model b extends a {\n  layers 1-999999999 step 2 attend\n  layers 5-999999999999 ffn-only\n}\n"
    assert codes(base + variation) == {"E0017"}


@pytest.mark.parametrize(
    "piece", ['use "', "let ", "let A = ", "define x { ", "model m extends ", "no cache@", "like "]
)
def test_halves_of_definitions(piece):
    codes(piece * 5000)
    codes((piece + "\n") * 5000)
    codes(model(*[piece] * 5000))


def test_circles_that_share_a_name():
    """One of them is met while the other is open."""
    lets = "let A = 9 / B\nlet B = B / (C - C * C)\nlet C = A\n"
    assert codes(lets + model("layers 1-4 attend, window C")) == codes(lets + model("layers 1-4 attend"))
