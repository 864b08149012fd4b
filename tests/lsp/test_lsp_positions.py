"""Offsets and positions: in the units agreed upon, over any text."""

from hypothesis import example, given
from hypothesis import strategies as st
from lsprotocol import types

from archspec.lsp.convert import Positions

TEXTS = st.text(alphabet=st.sampled_from("ab ×–😀\n\r\u2028\x0c\u0301"), max_size=40)
UNITS = {
    types.PositionEncodingKind.Utf8: lambda text: len(text.encode()),
    types.PositionEncodingKind.Utf16: lambda text: len(text.encode("utf-16-le")) // 2,
    types.PositionEncodingKind.Utf32: len,
}


@given(TEXTS, st.sampled_from(list(UNITS)), st.data())
@example("\r\n😀", types.PositionEncodingKind.Utf16, None)
def test_there_and_back(text: str, encoding: types.PositionEncodingKind, data: st.DataObject | None) -> None:
    positions = Positions(text, encoding)
    offset = len(text) if data is None else data.draw(st.integers(0, len(text)))
    position = positions.position(offset)
    before = text[:offset]
    inside = before.endswith("\r") and text[offset : offset + 1] == "\n"  # between the two halves of a line end
    if not inside:
        assert positions.offset(position) == offset
        ends = before.replace("\r\n", "\n").replace("\r", "\n")
        assert position.line == ends.count("\n")
        assert position.character == UNITS[encoding](ends[ends.rfind("\n") + 1 :])


@given(TEXTS, st.sampled_from(list(UNITS)), st.integers(0, 50), st.integers(0, 50))
def test_positions_outside_count_as_the_nearest(
    text: str, encoding: types.PositionEncodingKind, line: int, character: int
) -> None:
    positions = Positions(text, encoding)
    offset = positions.offset(types.Position(line, character))
    assert 0 <= offset <= len(text)
    if line < len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")):
        assert positions.position(offset).line == line


def test_a_place_inside_of_a_character_is_the_place_before_it() -> None:
    assert Positions("a😀b").offset(types.Position(0, 2)) == 1
    assert Positions("a😀b").offset(types.Position(0, 3)) == 2
