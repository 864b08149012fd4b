"""docs/reference.md has the whole grammar, and an example of every statement and setting in it."""

import re
from functools import cache
from pathlib import Path

import pytest

from archspec.driver import analyse_text
from archspec.syntax.parser import _lark, grammar_rules

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference.md").read_text("utf-8")
GRAMMAR = (ROOT / "archspec/grammars/archspec.lark").read_text("utf-8")
CHOICES = ("_definition", "_statement", "_removal", "_setting", "_clause", "_moe_part")
TEMPLATES = "define local {{ window 1024 }}\nlet W = 4\nlet N = 6\n"
AROUND = (
    "{}\n",
    "{}\nmodel m {{\n}}\n",
    TEMPLATES + "model m {{\n  {}\n}}\n",
    TEMPLATES + "model m {{\n  layers 1-4 attend, {}\n}}\n",
    TEMPLATES + "model m {{\n  layers 1-4 attend, ffn moe(top 8 of 128 swiglu(768), {})\n}}\n",
)
"""Where an example may stand: in a file, in a model, in a statement, in a mixture of experts."""
WORDS_AND_SIGNS = {"E0001", "E0002", "E0003", "E0004", "E0005", "E0006", "E0007", "E0008", "E0010", "E0011", "E0020"}


def rules(text: str) -> list[str]:
    """One string a rule or terminal, continued lines included."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("//")]
    return "\n".join(lines).replace("\n    ", " ").splitlines()


def examples() -> list[str]:
    """What stands in backticks in the first column of the tables."""
    columns = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    return [example for column in columns for example in re.findall(r"`([^`]*)`", column)]


@cache
def parsed(example: str) -> frozenset[str]:
    """The rules that an example shows: those of the first surroundings in which nothing about it is odd."""
    for around in AROUND:
        text = around.format(example)
        if not WORDS_AND_SIGNS & {found.code for found in analyse_text(text).diagnostics}:
            return frozenset(str(tree.data) for tree in _lark().parse(text).iter_subtrees())
    return frozenset()


def test_the_page_has_the_whole_grammar():
    shown = "\n".join(re.findall(r"^```lark\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert sorted(rules(shown)) == sorted(rules(GRAMMAR))


@pytest.mark.parametrize("example", examples())
def test_every_example_is_of_the_language(example):
    assert parsed(example)


def test_every_statement_and_setting_has_an_example():
    wanted = {name for choice in CHOICES for (name,) in grammar_rules()[choice] if not name.startswith("_")}
    assert wanted > {"layers", "no_cache", "embed_lookup", "weight_scale"}
    assert wanted - {rule for example in examples() for rule in parsed(example)} == set()
