"""Texts -> tokens -> rows."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import written_text
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from archspec.training import Packed, pack, sources
from archspec.training.data import Rows


def documents(packed: Packed) -> set[bytes]:
    stream = bytes(packed.train) + bytes(packed.held_out)
    assert stream.endswith(b"\0")
    return set(stream[:-1].split(b"\0"))


def test_files_folders_and_jsonl_are_documents(tmp_path):
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("Käse\n")
    (folder / "inner" / "b.py").write_text("x = 1\n")
    (folder / "inner" / "same.py").write_text("x = 1\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\0\0\xff")
    (folder / ".hidden").write_text("no")
    (folder / "empty").write_text("")
    (folder / "c.jsonl").write_text('{"text": "one", "other": 3}\n\n"two"\n{"text": ""}\n')
    packed = pack([folder, folder / "a.txt"], tmp_path / "out", held_out=0)
    assert documents(packed) == {"Käse\n".encode(), b"x = 1\n", b"one", b"two"}
    assert (packed.facts.num_documents, packed.facts.num_repeated, packed.facts.num_skipped) == (4, 1, 1)
    assert not len(packed.held_out)
    assert pack([folder], tmp_path / "again", held_out=0).facts.digest == packed.facts.digest


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'"fine"\n{"text": 3}\n', r"a.jsonl:2: a line is"),
        ("a.jsonl", b'"fine"\n\n{"text": \n', r"a.jsonl:3: not JSON"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"a.jsonl:1: not text: surrogates not allowed"),
        ("a.jsonl", b"[" * 100_000 + b"\n", r"a.jsonl:1: not JSON"),
        ("a.txt", b"fine\nfine\n\xff\n", r"a.txt:3: not UTF-8 text: byte 0xff"),
        ("a.txt", b"fine\n\0", r"a.txt:2: not text: byte 0x00"),
        ("a.txt", b"", r"no text to train on"),
    ],
)
def test_what_is_no_text_is_told_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        pack([tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        pack([tmp_path / "missing"], tmp_path / "out")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="no files to train on"):
        pack([tmp_path / "folder"], tmp_path / "out")
    with pytest.raises(ValueError, match="is no tokenizer"):
        pack([written_text(tmp_path / "text")], tmp_path / "out", tokenizer=str(tmp_path / "folder"))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), st.integers(4, 9))
@settings(max_examples=60, deadline=None)
def test_long_files_are_cut_between_characters_and_nothing_is_lost(tmp_path_factory, text, longest):
    path = tmp_path_factory.mktemp("long") / "a.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "LONGEST", longest)
        assert "".join(sources.read_documents(sources.File(path, named=True))).encode() == text.encode()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.floats(0, 0.9))
@settings(max_examples=60, deadline=None)
def test_held_out_part_is_about_as_large_as_asked_for(tmp_path_factory, lengths, part):
    folder = tmp_path_factory.mktemp("held")
    (folder / "a.jsonl").write_text("".join(json.dumps(f"{i:03}" + "x" * n) + "\n" for i, n in enumerate(lengths)))
    packed = pack([folder / "a.jsonl"], folder / "out", held_out=part)
    total, held = packed.facts.num_tokens, len(packed.held_out)
    assert total == sum(lengths) + 4 * len(lengths) == len(packed.train) + held
    assert round(total * part) / 2 <= held <= 2 * round(total * part)


@given(st.integers(1, 60), st.integers(2, 12), st.integers(0, 1), st.integers(0, 3))
def test_rows_are_the_stream_and_a_pass_has_each_once(num_tokens, context, overlap, seed):
    stream = np.arange(num_tokens, dtype=np.uint16)
    rows = Rows(stream, context + overlap, context)
    found = [rows[i]["input_ids"].tolist() for i in range(len(rows))]
    assert all(row == list(range(i * context, i * context + context + overlap)) for i, row in enumerate(found))
    assert len(found) == max(0, (num_tokens - overlap) // context)
    if found:
        shuffled = Rows(stream, context + overlap, context, 3 * len(rows), order_seed=seed)
        places = [shuffled.place(i) for i in range(len(shuffled))]
        passes = [places[begin : begin + len(rows)] for begin in range(0, len(places), len(rows))]
        assert all(sorted(one) == list(range(len(rows))) for one in passes)
        begins_late = Rows(stream, context + overlap, context, 3 * len(rows), order_seed=seed)
        assert [begins_late.place(i) for i in range(len(places))[::-1]] == places[::-1]


@pytest.fixture
def trained_tokenizer(tmp_path):
    """A BPE of 300 tokens as a tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([path.read_text() for path in written_text(tmp_path / "text").iterdir()], trainer)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_any_tokenizer_will_do(trained_tokenizer, tmp_path):
    packed = pack([tmp_path / "text"], tmp_path / "out", tokenizer=str(trained_tokenizer), held_out=0)
    assert (packed.facts.num_ids, packed.facts.dtype) == (300, "uint16")
    tokenizer = Tokenizer.from_file(str(trained_tokenizer))
    texts = [path.read_text() for path in sorted((tmp_path / "text").iterdir())]
    expected = sorted(token for text in texts for token in tokenizer.encode(text).ids)
    assert sorted(packed.train.tolist()) == expected


def test_damaged_streams_are_refused(tmp_path):
    packed = pack([written_text(tmp_path / "text")], tmp_path / "out")
    (tmp_path / "out" / "tokens.bin").write_bytes(bytes(packed.train)[:-1])
    with pytest.raises(ValueError, match="which are not"):
        Packed.open(tmp_path / "out")
    (tmp_path / "out" / "tokens.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe packed tokens"):
        Packed.open(tmp_path / "out")
