"""Files that cannot be read as a spec: one clear message each, and no exception."""

import os

import pytest

import archspec
from archspec.files import MAX_BYTES


def only_message(path):
    found = archspec.check(path)
    assert [diagnostic.code for diagnostic in found] == ["E0020"]
    assert str(path) in archspec.render.render_text(found)
    return found[0].message()


def test_missing(tmp_path):
    assert only_message(tmp_path / "no.arch") == "no such file"


def test_folder(tmp_path):
    assert only_message(tmp_path) == "a folder, not a spec"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = tmp_path / "secret.arch"
    path.write_text("model m {\n}\n")
    path.chmod(0)
    assert only_message(path) == "no permission to read this file"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty: a spec is `model NAME { ... }`"),
        (b" \n\t\n", "the file is empty: a spec is `model NAME { ... }`"),
        (b"model m {\n\0}", "a binary file, not a spec"),
        (bytes(range(256)), "a binary file, not a spec"),
        (b"model m {\n  # caf\xe9\n}", "not UTF-8 text: byte 0xe9 in line 2"),
        ("model m {\n}\n".encode("utf-16"), "UTF-16 text: save the file as UTF-8"),
        (b"#" * (MAX_BYTES + 1), "larger than 1 MiB: this is hardly a spec"),
        (b"\0" * (MAX_BYTES + 1), "a binary file, not a spec"),
    ],
    ids=["empty", "blank", "nul", "binary", "latin-1", "utf-16", "large", "large-binary"],
)
def test_content(tmp_path, data, message):
    path = tmp_path / "odd.arch"
    path.write_bytes(data)
    assert only_message(path) == message


def test_name_that_no_file_system_takes():
    assert only_message("a\0b").startswith("cannot be read")
    assert only_message("a" * 5000).startswith("cannot be read")


@pytest.mark.parametrize("name", ["bad.json", "BAD.json"])
@pytest.mark.parametrize("text", ["{", "[]", "null", "3", '{"name": 3}', "[" * 100_000, '"\\ud800"', "NaN"])
def test_json_that_is_no_spec(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    found = archspec.check(path)
    assert found
    assert {diagnostic.code for diagnostic in found} == {"E0018"}


def test_byte_order_mark_and_line_ends_are_no_matter(tmp_path):
    text = "model m {\n  layers 1, width 4, vocab 3, ffn gelu(4), heads 1, rope 10000\n  layers 1 attend\n}\n"
    specs = set()
    for name, data in {
        "unix": text.encode(),
        "windows": text.replace("\n", "\r\n").encode(),
        "mark": text.encode("utf-8-sig"),
        "no end": text.rstrip().encode(),
    }.items():
        path = tmp_path / f"{name}.arch"
        path.write_bytes(data)
        specs.add(archspec.parse(path).model_dump_json())
    assert len(specs) == 1


def test_check_of_a_large_but_legal_file(tmp_path):
    path = tmp_path / "large.arch"
    text = "model m {\n  layers 1, width 4, vocab 3, ffn gelu(4), heads 1, rope 10000\n  layers 1 attend\n}\n"
    path.write_text(text + "#" * (MAX_BYTES - len(text)))
    assert archspec.check(path) == []
