"""Composition: what `let`, `define` and `--set` come to is the spec that a person would write out."""

import pytest

import archspec
from archspec.compose import SettingError
from archspec.driver import analyse_text
from archspec.render import render_text, to_json
from archspec.spec.elaborate import MIXERS
from archspec.syntax.parser import keywords
from archspec.syntax.words import MIXER_WORDS

HEADER = "layers 6, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000, norm rms(1e-5)"


def model(*lines: str, header: str = HEADER) -> str:
    return "".join(f"{line}\n" for line in ("model m {", f"  {header}", *(f"  {line}" for line in lines), "}"))


def spec(text: str, **settings: int | str):
    analysis = analyse_text(text, settings=settings)
    assert not analysis.diagnostics, render_text(analysis.diagnostics)
    return analysis.elaborated.spec


def codes(text: str, **settings: int | str) -> list[str]:
    return [diagnostic.code for diagnostic in analyse_text(text, settings=settings).diagnostics]


def test_mixers_are_known_where_names_are_given():
    assert frozenset(MIXERS) == MIXER_WORDS


NUMBERS = [
    ("window W", "window 1024"),
    ("window (W)", "window 1024"),
    ("window (W / 2 + 1)", "window 513"),
    ("window (2 * (W - 1_000) / 3)", "window 16"),
    ("heads H x D, kv heads (H / 2) x D", "heads 4 x 16, kv heads 2 x 16"),
    ("window W, sinks H", "window 1024, sinks 4"),
    ("rope W", "rope 1024"),
    ("rope THETA", "rope 500000"),
    ("rope (theta + 1)", "rope 500001"),
    ("rope interleaved(THETA) on PERCENT%", "rope interleaved(500000) on 25%"),
    ("ffn gelu(4 * D)", "ffn gelu(64)"),
    ("ffn gelu(W)", "ffn gelu(1024)"),
    ("attention scale rsqrt(H * H)", "attention scale rsqrt(16)"),
    ("attention scale H", "attention scale 4"),
    ("attention softcap (H + 1)", "attention softcap 5"),
]
LETS = "let THETA = theta\nlet theta = 500_000\nlet PERCENT = 25\nlet W = D * 64\nlet D = 16\nlet H = D / 4\nlet USED = W + PERCENT + H + THETA\n"


@pytest.mark.parametrize(("written", "meant"), NUMBERS)
def test_numbers_stand_wherever_a_number_does(written, meant):
    text = LETS + model("layers 2-6 attend, window USED", f"layers 1 attend, {written}")
    plain = model("layers 2-6 attend, window 501053", f"layers 1 attend, {meant}")
    assert spec(text).statements == spec(plain).statements


LISTS = [
    ("1-S", "1-4"),
    ("S-6", "4-6"),
    ("S-last", "4-last"),
    ("(S-1)-S", "3-4"),
    ("(S - 2) - (S + 1)", "2-5"),
    ("1-T step E", "1-5 step 2"),
    ("1-5 step (S / 2)", "1-5 step 2"),
    ("S", "4"),
    ("(S)", "4"),
    ("1, S, 6", "1, 4, 6"),
    ("S, 6", "4, 6"),
    ("1, S-T", "1, 4-5"),
    ("1, (S + 1)-last", "1, 5-last"),
    ("S..T", "4-5"),
    ("S–T", "4-5"),
    ("1 - S", "1-4"),
    ("s - t", "4-5"),
    ("s-6", "4-6"),
    ("s-last", "4-last"),
    ("1-s", "1-4"),
    ("1, (s)", "1, 4"),
]


@pytest.mark.parametrize(("written", "meant"), LISTS)
def test_names_in_layer_lists(written, meant):
    lets = "let S = 4\nlet T = S + 1\nlet E = 2\nlet s = S\nlet t = T\nlet USED = E + T + t + s\n"
    text = lets + model(f"layers {written} attend", "layers rest attend, window USED")
    assert spec(text) == spec(model(f"layers {meant} attend", "layers rest attend, window 16"))


@pytest.mark.parametrize("total", ["layers N", "layers (N)", "layers (2 * (N / 2))", "layers n"])
@pytest.mark.parametrize(
    "rest", [", width 64, vocab V", "  # a remark\n  width 64, vocab V", ",  # a remark\n    width 64, vocab V"]
)
def test_total_by_name(total, rest):
    header = f"{total}{rest}, ffn swiglu(128), heads 4 x 16, rope 10000"
    text = "let N = 6\nlet V = N * n * 10\nlet n = 6\n" + model("layers 1-N attend", header=header)
    assert spec(text).num_layers == 6
    assert spec(text).vocab_size == 360


def test_numbers_of_caches_iterations_and_exits():
    lines = (
        "layers 1-S retention",
        "cache@S: kv heads (S - 1)",
        "layers (S+1)-last cross-attend to cache@S",
        "prefill exit after cache@S",
    )
    plain = (
        "layers 1-3 retention",
        "cache@3: kv heads 2",
        "layers 4-last cross-attend to cache@3",
        "prefill exit after cache@3",
    )
    assert spec("let S = 3\n" + model(*lines)) == spec(model(*plain))
    lines = (
        "layers 1, T-6 attend",
        "layers 2-4 cross-attend to cache@T",
        "iterate layers 2-T: F forward, (F - 5) backward",
    )
    plain = ("layers 1, 5-6 attend", "layers 2-4 cross-attend to cache@5", "iterate layers 2-5: 7 forward, 2 backward")
    assert spec("let T = 5\nlet F = 7\n" + model(*lines)) == spec(model(*plain))


LEVELS = """
model block {{
  {lets}
  vocab 100, ffn gelu(128), rope 10000, heads 4 x 16
  blocks of {length} tokens {{
    {inner}
    layers {depth}, width 64, embed lookup ({lookup}) concat
    layers 1-{depth} attend
    emit context
  }}
  tokens in block {{
    layers 1, width 64
    prefix {prefix} from blocks.context
    layers 1 attend
  }}
}}
"""


def test_numbers_of_levels():
    named = LEVELS.format(lets="let L = 4", length="L", inner="let D = L / 2", depth="D", lookup="64 / L", prefix="L")
    plain = LEVELS.format(lets="", length="4", inner="", depth="2", lookup="16", prefix="4").replace("(16)", "16")
    assert spec(named) == spec(plain)
    assert spec(named, L=2).blocks.length == 2
    assert spec(named, D=3).blocks.num_layers == 3


def test_order_of_definitions_does_not_matter():
    parts = [
        "let A = B + 1\n",
        "let B = 3\n",
        "define local { attend, window A, like small }\n",
        "define small { kv heads 2 }\n",
    ]
    texts = {
        spec("".join(parts) + model("layers 1-6 local")),
        spec(model("layers 1-6 local") + "".join(reversed(parts))),
    }
    assert texts == {spec(model("layers 1-6 attend, window 4, kv heads 2"))}


TEMPLATES = """
let W = 16
define local { attend, heads 4 x 8, kv heads 2, window W, sinks 1 }
define small {
  heads 2 x 16, kv heads 1
  rope 500000
}
define reader { cross-attend to cache@1, window 4 }
define plain_reader { cross-attend, like small, no window }
define tiny { local, window 4 }
"""
USES = [
    ("local", "attend, heads 4 x 8, kv heads 2, window 16, sinks 1"),
    ("local, qk-norm", "attend, heads 4 x 8, kv heads 2, window 16, sinks 1, qk-norm"),
    ("local, window 8", "attend, heads 4 x 8, kv heads 2, window 8"),
    ("local, window 8, sinks 2", "attend, heads 4 x 8, kv heads 2, window 8, sinks 2"),
    ("local, sinks 2", "attend, heads 4 x 8, kv heads 2, window 16, sinks 2"),
    ("local, no window", "attend, heads 4 x 8, kv heads 2, no window"),
    ("attend, like small", "attend, heads 2 x 16, kv heads 1, rope 500000"),
    ("attend, like small, no rope", "attend, heads 2 x 16, kv heads 1, no rope"),
    ("local, like small", "attend, heads 2 x 16, kv heads 1, window 16, sinks 1, rope 500000"),
    ("attend, like local", "attend, heads 4 x 8, kv heads 2, window 16, sinks 1"),
    ("tiny", "attend, heads 4 x 8, kv heads 2, window 4"),
    ("reader, heads 4 x 16", "cross-attend to cache@1, window 4, heads 4 x 16"),
    ("reader to cache main", "cross-attend to cache main, window 4"),
    (
        "plain_reader to cache@1, heads 4 x 16, no rope",
        "cross-attend to cache@1, heads 4 x 16, kv heads 1, no window, no rope",
    ),
]


@pytest.mark.parametrize(("written", "meant"), USES)
def test_templates_are_what_they_stand_for(written, meant):
    """The spec is compared without its checks: a few of these do not fit together, and must not."""

    def statements(mixer: str) -> tuple:
        lines = ("layers 1 attend", "cache main@1: kv heads 2", f"layers 2-6 {mixer}")
        elaborated = analyse_text(TEMPLATES + model(*lines)).elaborated
        return elaborated.spec.statements

    assert statements(written) == statements(meant)


def test_templates_in_the_header_and_in_caches():
    text = "define sizes { heads 4 x 16, rope 500000 }\ndefine kept { kv heads 2 x 16, window 8 }\n" + model(
        "layers 1-3 attend",
        "cache@3: like kept, norm rms",
        "layers 4-6 cross-attend to cache@3, window 8",
        header="layers 6, width 64, vocab 100, ffn swiglu(128), like sizes, norm rms(1e-5)",
    )
    plain = model(
        "layers 1-3 attend",
        "cache@3: kv heads 2 x 16, window 8, norm rms",
        "layers 4-6 cross-attend to cache@3, window 8",
        header="layers 6, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 500000, norm rms(1e-5)",
    )
    assert spec(text) == spec(plain)


def test_the_same_template_by_two_ways_is_no_disagreement():
    text = "define a { window 8 }\ndefine b { like a, kv heads 2 }\ndefine c { like a, heads 4 x 16 }\n"
    assert spec(text + model("layers 1-6 attend, like b, like c")) == spec(
        model("layers 1-6 attend, window 8, kv heads 2, heads 4 x 16")
    )


SET = "let W = 16\nlet F = 4 * W\n" + model("layers 1-6 attend, window W, ffn swiglu(F)")


def test_settings_take_the_place_of_lets():
    assert spec(SET, W=32) == spec(model("layers 1-6 attend, window 32, ffn swiglu(128)"))
    assert spec(SET, F="W + 1") == spec(model("layers 1-6 attend, window 16, ffn swiglu(17)"))
    assert spec(SET, W="2 * 4", F=8) == spec(model("layers 1-6 attend, window 8, ffn swiglu(8)"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"V": 3}, "there is F, W"),
        ({"w": 3}, "did you mean `W`?"),
        ({"W": "x y"}, "a whole number"),
        ({"W": "1\nlet F = 3"}, "a whole number"),
        ({"W": "1 # 2"}, None),
        ({"W": -1}, "a whole number"),
        ({"W": True}, "a whole number"),
        ({"W": 1.5}, "a whole number"),
        ({"W": ""}, "a whole number"),
        ({"window": 3}, "a whole number"),
        ({"W = 3\nlet X": 3}, "a whole number"),
        ({"": 3}, "a whole number"),
    ],
)
def test_settings_that_do_not_fit(settings, said):
    if said is None:
        assert analyse_text(SET, settings=settings).ok
        return
    with pytest.raises(SettingError, match=said):
        analyse_text(SET, settings=settings)


def test_bad_results_of_settings_are_found_where_they_are_used():
    (found,) = analyse_text(SET, settings={"W": 0}).diagnostics[:1]
    assert found.code == "E0015"
    assert found.span.text in ("W", "F")
    assert any("is 0 here" in note for note in found.notes())


def test_a_setting_of_a_damaged_file_is_not_judged():
    text = SET.replace("let W = 16", "let W = = 16 16")
    assert "E0032" not in codes(text, W=3)


def test_settings_of_a_file(tmp_path):
    path = tmp_path / "m.arch"
    path.write_text(SET)
    assert archspec.parse(path, settings={"W": 32}) == spec(SET, W=32)
    assert archspec.check(path, settings={"W": 32}) == []
    with pytest.raises(SettingError):
        archspec.parse(path, settings={"V": 32})
    path = tmp_path / "m.json"
    path.write_text(spec(SET).model_dump_json())
    with pytest.raises(SettingError):
        archspec.check(path, settings={"W": 32})


FOLLOWERS = [
    ("let A = ", []),
    ("let A = B", ["E0032"]),
    ("let A = 1 / 0", ["E0033"]),
    ("let A = A", ["E0035"]),
    ("let A = (2 - 1 +", []),
]
PLACES = [
    "window A",
    "heads A x 16",
    "ffn swiglu(A)",
    "rope A",
    "like t",
]


@pytest.mark.parametrize(("let", "expected"), FOLLOWERS)
@pytest.mark.parametrize("place", PLACES)
def test_a_broken_number_has_no_followers(let, expected, place):
    text = f"{let}\ndefine t {{ window A, kv heads (A) }}\n" + model(
        "layers 1-5 attend, " + place, "layers 6 cross-attend to cache@5"
    )
    found = analyse_text(text).diagnostics
    syntax = [diagnostic for diagnostic in found if diagnostic.code in ("E0001", "E0002")]
    assert len(syntax) == (0 if expected else 1), render_text(found)
    assert [diagnostic.code for diagnostic in found if diagnostic not in syntax] == expected, render_text(found)


@pytest.mark.parametrize(
    "line",
    [
        "layers 1-A attend",
        "layers A attend",
        "cache@A: kv heads 2",
        "layers 3-6 cross-attend to cache@A",
        "iterate layers 2-A: 7 forward, 2 backward",
        "prefill exit after cache@A",
    ],
)
def test_a_statement_without_its_number_has_no_followers(line):
    text = "let A = 7 / 2\n" + model("layers 1-2 attend", line, "layers 3-6 attend" if "layers 3-6" not in line else "")
    assert codes(text) == ["E0033"]


def test_independent_errors_are_all_found():
    text = "let A = 7 / 2\ndefine t { window X }\n" + model(
        "layers 1-2 attend, window A, heads 4 x 15", "layers 3-5 attend, like t", "layers 6 cross-attend to cache@9"
    )
    assert codes(text) == ["E0033", "E0032", "E0306", "E0201"]


def test_spans_point_to_what_was_written():
    text = "define t { attend, heads 4 x 15 }\n" + model("layers 1-2 t", "layers 3-6 attend")
    (found,) = analyse_text(text).diagnostics
    assert found.code == "E0306"
    assert found.span.text == "heads 4 x 15"
    assert [(label.span.line, label.span.text, label.text) for label in found.labels()] == [(4, "t", "used here")]
    (item,) = to_json([found])
    assert item["labels"][0]["span"]["start"]["line"] == 4


def test_edits_are_not_offered_for_text_that_stands_for_several_statements():
    text = "define t { attend, heads 4 x 16, heads 4 x 8 }\n" + model("layers 1-2 t", "layers 3-6 t")
    (found,) = analyse_text(text).diagnostics
    assert found.code == "E0012"
    assert all(help_.edit is None for help_ in found.helps())


def test_values_are_said_beside_what_was_computed():
    text = "let S = 3\n" + model("layers 1-(2 * S + 1) attend")
    (found,) = analyse_text(text).diagnostics
    assert found.code == "E0101"
    assert "`2 * S + 1` is 7 here" in found.notes()


@pytest.mark.parametrize("word", sorted(set(keywords()) - {"x"}) + sorted(MIXER_WORDS))
def test_words_of_the_language_are_no_names(word):
    plain = model("layers 1-6 attend")
    template = codes(f"define {word} {{ window 8 }}\n{plain}")
    assert template == ["E0031"]
    if "-" not in word:
        assert codes(f"let {word} = 8\n{plain}") == ["E0031"]


def test_unused_definitions_are_warned_about_only_in_the_model_s_own_file(tmp_path):
    text = "let A = B\nlet B = 1\nlet C = 1\ndefine t { window C }\ndefine u { like t }\n" + model("layers 1-6 attend")
    found = analyse_text(text).diagnostics
    assert [(one.code, one.span.text) for one in found] == [("W0902", name) for name in "ABCtu"]
    (tmp_path / "common.arch").write_text(text.partition("model")[0])
    path = tmp_path / "m.arch"
    path.write_text('use "common.arch"\n' + model("layers 1-6 attend"))
    assert archspec.check(path) == []
    assert archspec.check(tmp_path / "common.arch") == []


def test_mistakes_in_what_nothing_uses_are_found():
    text = "let A = 1 / 0\nlet B = X\ndefine t { like nothing }\n" + model("layers 1-6 attend")
    assert codes(text) == ["E0033", "E0032", "E0036"]
    assert codes(text.partition("model")[0]) == ["E0033", "E0032", "E0036"]


def test_a_file_of_definitions_is_clean_and_has_no_spec(tmp_path):
    path = tmp_path / "common.arch"
    path.write_text("let W = 16\ndefine local { attend, window W }\n")
    assert archspec.check(path) == []
    with pytest.raises(archspec.SpecError, match="no model"):
        archspec.parse(path)
    with pytest.raises(archspec.SpecError, match="no model"):
        archspec.driver.analyse(path).plan()
