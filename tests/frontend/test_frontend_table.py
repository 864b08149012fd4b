"""The parse table in the package is that of the grammar, and reads what a parser made on the spot reads."""

import json

from archspec.syntax import lalr


def test_the_table_is_up_to_date():
    stored = json.loads(lalr.GRAMMARS.joinpath(lalr.TABLE).read_text("utf-8"))
    assert stored["made_of"] == json.loads(lalr.table_text())["made_of"], "make it anew: python -m archspec.syntax.lalr"


def test_the_table_is_used(monkeypatch):
    monkeypatch.setattr(lalr, "_build", None)
    lalr.make_parser({}).parse("model m {\n}\n")


def test_a_table_of_another_grammar_or_none_is_not_used(monkeypatch, tmp_path):
    text = "model m {\n  layers 1-2 attend\n}\n"
    wanted = lalr.make_parser({}).parse(text)
    for content in (None, "", "[]", "{}", json.dumps({"made_of": "another", "data": {}, "memo": {}})):
        grammar = lalr.GRAMMARS.joinpath("archspec.lark").read_text("utf-8")
        folder = tmp_path / str(hash(content))
        folder.mkdir()
        (folder / "archspec.lark").write_text(grammar, encoding="utf-8")
        if content is not None:
            (folder / lalr.TABLE).write_text(content, encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(lalr, "GRAMMARS", folder)
            assert lalr.make_parser({}).parse(text) == wanted
