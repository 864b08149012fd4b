"""What editors ask, without a server: caches, layers, words, and what may come next."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archspec.driver import analyse, analyse_text
from archspec.lsp.complete import suggestions
from archspec.lsp.hover import hover
from archspec.lsp.navigate import Symbol, definitions, references, symbols
from archspec.lsp.places import View
from archspec.lsp.words import CHOICES, first_line, meaning, meaning_of_setting
from archspec.spec.elaborate import MIXERS
from archspec.spec.model import Settings
from archspec.syntax.parser import _lark, keywords

SPECS = sorted((Path(__file__).parents[2] / "specs").rglob("*.arch"))
HEADER = "layers 6, width 256, vocab 32000, ffn swiglu(688), norm rms(1e-5), rope 10000, heads 8 x 32"


NAMES = "let W = 1024\nlet n_local = 4\ndefine local { attend, window W }\ndefine ffns { ffn swiglu(8) }\n"


def marked(text: str) -> tuple[View, int]:
    """A text with the cursor at `|`."""
    return View(analyse_text(text.replace("|", ""))), text.index("|")


def model(*lines: str) -> str:
    return "\n".join(["model m {", HEADER, *lines, "}"]) + "\n"


def shown(text: str) -> str:
    found = hover(*marked(text))
    assert found is not None
    return found.text


def labels(text: str) -> list[str]:
    return [each.text for each in suggestions(*marked(text))]


def test_hover_tells_a_projection_from_own_keys_and_values() -> None:
    own = shown(model("layers 1-3 attend, window 64, kv heads 2", "layers 4-6 cross-attend to cac|he@3, window 64"))
    assert own.startswith("**cache@3**: layer 3's own K/V")
    assert "- read by layers 3-6" in own
    assert "- keeps last 64" in own
    assert "- kv heads 2 x 32, 256 bytes a token in bfloat16" in own
    assert "| bytes | 16 KiB | 16 KiB | 16 KiB | 16 KiB |" in own
    projected = shown(model("layers 1-3 attend", "|cache@3: kv heads 2", "layers 4-6 cross-attend to cache@3"))
    assert projected.startswith("**cache@3**: a projection of layer 3's output")
    assert "- read by layers 4-6" in projected
    assert "| bytes | 1 MiB | 8 MiB | 32 MiB | 256 MiB |" in projected


def test_hover_on_the_nearest_cache_below_shows_each() -> None:
    text = shown(model("layers 1-5 step 2 attend", "layers rest cross-attend to cache@be|low"))
    assert [line for line in text.splitlines() if line.startswith("**")] == [
        "**cache@1**: layer 1's own K/V",
        "**cache@3**: layer 3's own K/V",
        "**cache@5**: layer 5's own K/V",
    ]


def test_hover_of_levels_counts_blocks() -> None:
    lines = [
        "model m {",
        "vocab 256, ffn gelu(512), norm rms",
        "blocks of 4 tokens {",
        "layers 2, width 128, embed lookup 32 concat",
        "layers 1 attend, heads 4 x 32",
        "layers 2 cross-attend to cache@|1, heads 4 x 32",
        "emit context",
        "}",
        "tokens in block {",
        "layers 1, width 128",
        "prefix 2 from blocks.context",
        "layers 1 attend, heads 4 x 32",
        "}",
        "}",
    ]
    text = shown("\n".join(lines))
    assert text.startswith("**blocks.cache@1**")
    assert "512 bytes a block of 4 tokens" in text
    assert "| bytes | 512 KiB | 4 MiB | 16 MiB | 128 MiB |" in text
    door = "\n".join(lines).replace("|", "").replace("blocks.context", "blocks.con|text")
    (place,) = definitions(*marked(door))
    assert place.text == "emit context"
    assert len(references(*marked(door))) == 2


def test_hover_on_layers_adds_up_to_the_model() -> None:
    view, _ = marked(model("layers 1-2, 5 attend", "layers rest cross-attend to cache@2|"))
    heads = [statement.spans.head for statement in view.statements]
    texts = [hover(view, head.start) for head in heads]
    counts = []
    for found in texts:
        assert found is not None
        line = next(line for line in found.text.splitlines() if "parameters" in line)
        counts.append(int(line.split()[1].replace(",", "")))
    plan = view.analysis.plan()
    outside = 2 * 32000 * 256 + 256
    assert sum(counts) + outside == plan.num_parameters()
    assert texts[0] is not None
    assert "**layers 1-2, 5**: 3 layers, `attend`" in texts[0].text
    assert "indices 0-1, 4 in HF" in texts[0].text
    assert "read by others: layers 3-4, 6" in texts[0].text


def test_hover_where_something_is_wrong_shows_the_page() -> None:
    text = shown(model("layers 1-3 attend, window 64", "layers 4-6 cross-attend to cache@|3"))
    assert "its bytes are shown once the spec has no errors" in text
    assert "**E0501**" in text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (model("layers 1-3 attend", "layers 4-6 cross-attend to cache@3, qk|-norm"), "`qk-norm`"),
        (model("layers 1-3 at|tend", "layers 4-6 cross-attend to cache@3"), "`attend`: softmax attention"),
        (model("layers 1-3 attend, kv he|ads 2", "layers 4-6 cross-attend to cache@3"), "`heads 24 x 128`"),
        ("model m { vocab 8, embed |scale 2 }", "`embed scale sqrt(width)`"),
        ("model m { win|dow", "`window 1024`"),
    ],
)
def test_hover_on_a_word_says_what_it_means(text: str, wanted: str) -> None:
    assert shown(text).startswith(wanted)


def test_no_hover_in_comments_and_on_numbers() -> None:
    assert hover(*marked(model("layers 1-6 attend # cache at|tend"))) is None
    assert hover(*marked("model m { width 2|56 }")) is None


def test_every_word_of_the_language_has_a_meaning() -> None:
    words = {*keywords(), *MIXERS, *(word for known in CHOICES.values() for word in known)}
    assert {word for word in words if not meaning(word)} == set(), "words without a docstring to show: see lsp/words.py"
    assert {key for key in Settings.model_fields if not meaning_of_setting(key)} == set()


def test_kinds_are_named_where_their_meaning_is_told() -> None:
    for word in {word for known in CHOICES.values() for word in known} - set(MIXERS):
        assert word.split("-")[0] in meaning(word), word
    assert first_line("summation", meaning("summation")).startswith("`summation from")


def test_every_name_in_the_grammar_has_its_choices() -> None:
    """Where the grammar takes any NAME behind a keyword, completion knows the words or the name is the writer's own."""
    free = {"_CACHE", "_EMIT", "BLOCKS", "TOKENS", "_MODEL", "_DEFINE", "_LIKE", ""}
    before = set()
    for rule in _lark().rules:
        names = [symbol.name for symbol in rule.expansion]
        for idx, name in enumerate(names):
            if name == "NAME":
                before.add(next((each for each in reversed(names[:idx]) if each in keywords().values()), ""))
    assert before - free - set(CHOICES) == set(), "add the words that may follow these to CHOICES in lsp/words.py"


def test_definition_of_a_cache() -> None:
    view, offset = marked(model("layers 1-2, 3-5 step 2 attend", "layers rest cross-attend to cac|he@5"))
    (place,) = definitions(view, offset)
    assert place.text == "3-5 step 2"
    view, offset = marked(
        model("layers 1-3 attend", "cache main@2: kv heads 1", "layers rest cross-attend to cache ma|in")
    )
    (place,) = definitions(view, offset)
    assert place.text == "cache main@2"
    assert [span.line for span in references(view, offset)] == [4, 5]
    view, offset = marked(model("layers 1-3 retention", "layers rest cross-attend to cache@|3"))
    (place,) = definitions(view, offset)
    assert place.text == "1-3"
    assert definitions(*marked(model("layers 1-3 at|tend"))) == []
    assert definitions(*marked(model("layers 1-6 cross-attend to cache@4|0"))) == []


def test_references_of_layers_are_the_readers_of_their_caches() -> None:
    text = model("lay|ers 1-3 attend", "layers 4 cross-attend to cache@1", "layers 5-6 cross-attend to cache@3")
    found = references(*marked(text), declaration=False)
    assert [(span.line, span.text) for span in found] == [(4, "cache@1"), (5, "cache@3")]


def test_completion_of_caches() -> None:
    lines = ["layers 1-3 attend", "cache main@2: kv heads 1", "cache@3: kv heads 1"]
    caches = ["cache main", "cache@3", "cache@2", "cache@1"]
    found = suggestions(*marked(model(*lines, "layers rest cross-attend to |")))
    offered = [each.text for each in found if each.kind == "cache"]
    assert sorted(offered) == sorted(["cache main", "cache@3", "cache@1", "cache@2", "cache@below", "cache@last"])
    assert offered[:2] == caches[:2]
    assert found[0].detail == "projection of layer 2's output, kv heads 1 x 32"
    assert labels(model(*lines, "layers rest cross-attend to cache |")) == ["main"]
    view, offset = marked(model(*lines, "layers rest cross-attend to cache@|, heads"))
    each = suggestions(view, offset)[0]
    assert view.analysis.source.text[each.start : offset] == "cache@"


@pytest.mark.parametrize(
    ("text", "has", "has_not"),
    [
        ("|", {"model"}, {"layers"}),
        ("model m {\n|\n}", {"layers", "cache", "kv heads", "prefill exit after", "tied embeddings"}, {"emit", "prefix"}),
        ("model m {\nlayers 4, |", {"width", "vocab", "embed"}, {"cache", "iterate layers"}),
        ("model m {\nlayers 1-2 |", {"attend", "cross-attend", "step"}, {"rms", "heads"}),
        ("model m {\nlayers 12 |", {"attend"}, set()),
        ("model m {\nlayers 1-2 step 2 ret|", {"retention"}, {"step"}),
        ("model m {\nlayers 1-2 attend, |", {"window", "heads", "attention"}, {"width", "attend", "x"}),
        ("model m {\nlayers 1-2 retention, |", {"heads", "ffn"}, {"window", "kv heads", "sinks", "attention"}),
        ("model m {\nlayers 1-2 attend, heads 4 x 8, kv heads 2, |", {"window"}, {"heads", "kv heads"}),
        ("model m {\nlayers 1-2 attend, kv heads 2,\n  |", {"heads"}, {"kv heads", "layers"}),
        ("model m {\ncache@2: |", {"kv heads", "norm"}, {"heads", "ffn", "residual"}),
        ("model m {\ncache@2: kv |", {"heads"}, {"window"}),
        ("model m {\nnorm |", {"rms", "layernorm"}, {"swiglu"}),
        ("model m {\nffn sw|", {"swiglu", "gelu"}, {"rms"}),
        ("model m {\nbias qkv |", {"out", "ffn"}, {"rms"}),
        ("model m {\nno |", {"rope", "diagonal"}, {"rms"}),
        ("model m {\nattention |", {"scale", "softcap"}, {"heads"}),
        ("model m {\nblocks of 4 tokens {\n|", {"emit", "layers"}, {"prefix", "blocks of", "vocab"}),
        ("model m {\ntokens in block {\n|", {"prefix", "summation"}, {"emit", "tokens in block"}),
        ("model m {\ntokens in block {\nprefix 2 from blocks.|", {"context"}, set()),
        ("model m {\n@@ ? \nlayers 1- attend\n width width\n layers 1-2 atend, haeds ?, |", {"window"}, {"layers"}),
        ("modle m {\nlayers 1-2 |", {"attend"}, set()),
        ("model m {}\nmodel n {\nlayers 1-2 |", {"attend"}, set()),
        ("model m {\n# layers |", set(), {"layers", "attend"}),
        (f"{NAMES}model m {{\nlet own = 3\nlayers 1-4 attend, window |", {"W", "n_local", "own"}, {"local", "ffns"}),
        (f"{NAMES}model m {{\nlayers 1-4 |", {"local", "attend"}, {"ffns", "W"}),
        (f"{NAMES}model m {{\nlayers 1-(2 * |", {"W", "n_local"}, {"local"}),
        (f"{NAMES}model m {{\nlayers 1-4 attend, like |", {"local", "ffns"}, {"W"}),
        (f"{NAMES}model m {{\nrope |", {"W", "half"}, {"n_local"}),
        (f"{NAMES}let X = |\nmodel m {{\n}}", {"W", "n_local"}, {"X", "local"}),
        (f"{NAMES}let |\n", set(), {"W", "local"}),
        ("model a {\nlet A = 1\n}\nmodel b extends a {\nlayers 1-4 attend, window |\n}", {"A"}, set()),
        ("model a {\nlet A = 1\n}\nmodel b {\nlayers 1-4 attend, window |\n}", set(), {"A"}),
    ],
)  # fmt: skip
def test_completion_knows_what_may_follow(text: str, has: set[str], has_not: set[str]) -> None:
    offered = set(labels(text))
    assert has <= offered
    assert not has_not & offered


def test_whatever_is_offered_is_accepted() -> None:
    """Typing an offered keyword never makes a text that the grammar refuses at that word."""
    for text in ("model m {\n", "model m {\nlayers 1-2 attend, ", "model m {\ncache@2: ", "model m {\nwidth 4, "):
        for each in suggestions(View(analyse_text(text)), len(text)):
            codes = {found.code for found in analyse_text(f"{text}{each.text}").diagnostics}
            assert codes.isdisjoint({"E0002", "E0003", "E0007"}), (text, each.text)


def test_outline() -> None:
    view, _ = marked(model("layers 1-3 attend", "cache main@3: kv heads 1", "layers rest cross-attend to cache main|"))
    (top,) = symbols(view)

    def check(symbol: Symbol) -> None:
        assert symbol.span.start <= symbol.head.start <= symbol.head.end <= symbol.span.end
        for child in symbol.children:
            assert symbol.span.start <= child.span.start <= child.span.end <= symbol.span.end
            check(child)

    check(top)
    assert [(child.name, child.kind, child.detail) for child in top.children] == [
        ("layers 1-3", "layers", "attend"),
        ("cache main@3", "cache", "projection"),
        ("layers rest", "layers", "cross-attend to cache main"),
    ]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_everything_can_be_asked_of_the_shipped_specs(path: Path) -> None:
    view = View(analyse(path))
    text = view.analysis.source.text
    for offset in range(0, len(text), 7):
        found = hover(view, offset)
        assert found is None or found.span.start <= offset <= found.span.end
        for span in [*definitions(view, offset), *references(view, offset)]:
            assert span.text
    for statement in view.statements:
        if statement.spans.source is not None:
            assert definitions(view, statement.spans.source.start)
            assert statement.spans.source in references(view, statement.spans.source.start)


PIECES = st.sampled_from(
    ["cache@", "cache ", "layers ", ", ", "\n", "}", "{", "@", ":", "below", "last", "9", "-", "#", "😀"]
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SPECS), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), PIECES), max_size=4), st.floats(0, 1)
)
def test_no_text_is_too_odd_to_be_asked(path: Path, edits: list[tuple[float, int, str]], where: float) -> None:
    text = path.read_text("utf-8")
    for place, length, piece in edits:
        at = int(place * len(text))
        text = text[:at] + piece + text[at + length :]
    view = View(analyse_text(text))
    symbols(view)
    for offset in {int(where * len(text)), *(int(place * len(text)) for place, _, _ in edits)}:
        hover(view, offset)
        definitions(view, offset)
        references(view, offset)
        for each in suggestions(view, offset):
            assert each.start <= offset
