"""The formatter: idempotent, keeps meaning and comments, and every shipped text is in its layout."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import specs as any_specs

from archspec import fmt
from archspec.driver import analyse_text
from archspec.fmt import WIDTH, format_source
from archspec.source import Source
from archspec.spec.format import format_spec
from archspec.syntax.parser import lexemes, parse_text
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import iterated_specs, specs

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.arch"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GOLDENS = sorted((Path(__file__).parent / "errors").glob("*.arch"))


def formatted(text: str) -> str:
    result = format_source(Source("t.arch", text))
    assert result.ok, result.diagnostics
    return result.text


def comments(text: str) -> list[str]:
    return [line.strip() for line in re.findall(r"#[^\n]*", text)]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_shipped_specs_are_formatted(path: Path) -> None:
    text = path.read_bytes().decode()
    assert formatted(text) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_examples_in_docs_are_formatted(page: Path) -> None:
    for text in re.findall(r"^```arch\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        assert formatted(text) == text


CASES = {
    "blanks, dashes, times": (
        "model m{layers 4 ,width 64,vocab 9,ffn gelu( 8 ),rope  10000  on 25 %\nlayers 1 – 2,3..4   attend , heads 2×8}",
        "model m {\n  layers 4, width 64, vocab 9, ffn gelu(8), rope 10000 on 25%\n  layers 1-2, 3-4 attend, heads 2 x 8\n}\n",
    ),
    "cache": (
        "model m {\ncache  @ 4 :kv heads 2x8\n\n\n\ncache a @4:\nlayers 5 cross-attend to cache @ 4\n}",
        "model m {\n  cache@4: kv heads 2 x 8\n\n  cache a@4:\n  layers 5 cross-attend to cache@4\n}\n",
    ),
    "one plus w": (
        "model m {\n norm rms ( 1e-6 ,1 + w ), attention scale rsqrt ( 16 )\n}",
        "model m {\n  norm rms(1e-6, 1+w), attention scale rsqrt(16)\n}\n",
    ),
    "statement on several lines": (
        "model m {\n  layers 1,\n\n 2,\n   3 attend\n}",
        "model m {\n  layers 1, 2, 3 attend\n}\n",
    ),
    "comment inside a statement": (
        "model m {\n layers 1, # one\n  # two\n 2 attend, heads 3 # three\n}",
        "model m {\n"
        "  layers 1,                                      # one\n"
        "      # two\n"
        "      2 attend, heads 3                          # three\n"
        "}\n",
    ),
    "comments around braces": (
        "# a\n\n\n# b\nmodel m { # c\n\n # d\n\n layers 1 attend } # e\n\n# f\n\n",
        "# a\n\n# b\n"
        "model m {                                        # c\n"
        "  # d\n\n"
        "  layers 1 attend\n"
        "}                                                # e\n\n# f\n",
    ),
    "levels": (
        "model m { vocab 9\nblocks of 4 tokens{ emit context }\ntokens in block{ prefix 2 from blocks . context }}",
        "model m {\n  vocab 9\n  blocks of 4 tokens {\n    emit context\n  }\n"
        "  tokens in block {\n    prefix 2 from blocks.context\n  }\n}\n",
    ),
    "line ends": ("model m {\r\n  layers 1 attend # c\r\n}\r\n", None),
    "empty": ("model m { }", "model m {\n}\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_layout(name: str) -> None:
    text, expected = CASES[name]
    result = formatted(text)
    assert "\r" not in result
    assert formatted(result) == result
    if expected is not None:
        assert result == expected


def test_comments_of_neighbouring_lines_are_aligned() -> None:
    long = "  layers 2 attend, heads 8 x 128, kv heads 4, window 1024"
    text = f"model m {{\n  layers 1 attend # a\n  layers 3 attend\n{long} # b\n\n  layers 4 attend # c\n}}\n"
    lines = formatted(text).splitlines()
    assert [line.index("#") for line in lines if "#" in line] == [len(long) + 2, len(long) + 2, 49]


def test_long_lines_are_broken_at_commas_and_no_others() -> None:
    fits = "  layers " + ", ".join(map(str, range(100, 115))) + " attend, heads 123"
    assert WIDTH - 2 <= len(fits) <= WIDTH
    assert formatted(f"model m {{\n{fits}\n}}\n").splitlines()[1] == fits
    lines = formatted(f"model m {{\n{fits}, kv heads 1234567, window 1234567\n}}\n").splitlines()[1:-1]
    assert len(lines) == 2
    assert lines[0].endswith(",")
    assert lines[1].startswith("      ")
    assert all(len(line) <= WIDTH for line in lines)


def test_a_line_that_grammar_does_not_let_break_stays() -> None:
    number = "1" * 18
    text = f"model m {{\n  iterate layers {number}-{number}: {number} forward, {number} backward\n}}\n"
    assert formatted(text) == text


def test_syntax_errors_leave_the_text_alone() -> None:
    for path in GOLDENS:
        source = Source(path.name, path.read_text())
        errors = parse_text(source)[1]
        result = format_source(source)
        assert result.diagnostics == tuple(errors)
        if errors:
            assert result.text == source.text
        else:
            assert formatted(result.text) == result.text


@settings(max_examples=150, deadline=None)
@given(any_specs | specs() | iterated_specs() | level_specs())
def test_printed_specs_are_in_canonical_layout(spec) -> None:
    text = format_spec(spec)
    assert formatted(text) == text


@st.composite
def noisy(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> tuple[str, str]:
    """A text, and the same with other blanks, line ends and comments wherever the grammar allows them."""
    text = draw(texts)
    random = draw(st.randoms(use_true_random=False))
    parts: list[str] = []
    end = 0
    tokens = lexemes(text)
    for idx, token in enumerate(tokens):
        gap = text[end : token.start]
        end = token.end
        may_break = idx == 0 or "\n" in gap or (tokens[idx - 1].text == "," and tokens[idx - 1].may_end_line)
        parts.append(_gap(random, gap, may_break))
        parts.append(_spelling(random, token.text, "RANGE" in token.kind))
    parts.append(_gap(random, text[end:], True))
    return text, "".join(parts)


def _gap(random, gap: str, may_break: bool) -> str:
    blanks = random.choice(["", " ", "  ", "\t"]) + gap.replace("\n", random.choice(["\n", "\r\n", "\n\n\n"]))
    if not may_break or random.random() < 0.6:
        return blanks + random.choice(["", "  "])
    comment = random.choice(["# a", "#b  ", "# ...{,} x # 1-2\t", "#"])
    return f"{blanks}{random.choice(['', ' '])}{comment}\n{random.choice(['', '  # own line', ''])}\n{' ' * random.randrange(4)}"


def _spelling(random, text: str, is_range: bool) -> str:
    if is_range:
        return text.replace("-", random.choice(["-", " - ", "..", " – ", "—"]))
    return random.choice(["×", "x"]) if text == "x" else text


def _same_after(text: str, noise: str) -> None:
    result = formatted(noise)
    assert formatted(result) == result
    assert comments(result) == comments(noise)
    assert all(line == line.rstrip() for line in result.split("\n"))
    assert "\n\n\n" not in result
    assert result.endswith("\n")
    assert not result.endswith("\n\n")
    before, after = analyse_text(text).elaborated, analyse_text(result).elaborated
    assert before is not None
    assert after is not None
    assert before.spec == after.spec


@settings(max_examples=120, deadline=None)
@given(noisy(st.sampled_from([path.read_text() for path in SPECS])))
def test_noise_in_shipped_specs(pair) -> None:
    _same_after(*pair)


@settings(max_examples=120, deadline=None)
@given(noisy((specs() | iterated_specs() | level_specs()).map(format_spec)))
def test_noise_in_generated_specs(pair) -> None:
    _same_after(*pair)


@settings(max_examples=60, deadline=None)
@given(noisy(st.sampled_from([path.read_text() for path in SPECS])))
def test_comments_stay_beside_their_statement(pair) -> None:
    """Between the same two tokens as before."""
    _, noise = pair
    assert _comments_by_token(noise) == _comments_by_token(formatted(noise))


def _comments_by_token(text: str) -> list[list[str]]:
    tokens = lexemes(text)
    ends, starts = [0, *(token.end for token in tokens)], [*(token.start for token in tokens), len(text)]
    return [comments(text[end:start]) for end, start in zip(ends, starts, strict=True)]


def test_what_the_grammar_does_not_have_yet_needs_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several items in a file, strings, arithmetic: layout follows from kinds of tokens alone."""
    text = 'use "a  b.arch" # from\nlet W=2*( a+1 )\n# about d\ndefine d{ window W }\nmodel b extends a{layers 1 attend}\n# end'

    def loose(text: str) -> list[fmt.Lexeme]:
        found, end = [], 0
        for token in re.finditer(r'"[^"]*"|[\w-]+|[{}()=*+,]|#[^\n]*', text):
            if not token[0].startswith("#"):
                line_end = "\n" in text[end : token.start()]
                found.append(fmt.Lexeme("ANY", token[0], *token.span(), line_end, False))
                end = token.end()
        return found

    monkeypatch.setattr(fmt, "lexemes", loose)
    monkeypatch.setattr(fmt, "parse_text", lambda source: (None, []))
    expected = (
        'use "a  b.arch"                                  # from\n'
        "let W = 2 * (a + 1)\n\n"
        "# about d\ndefine d {\n  window W\n}\n\n"
        "model b extends a {\n  layers 1 attend\n}\n# end\n"
    )
    assert formatted(text) == expected
    assert formatted(expected) == expected
