"""Tables in plain text: aligned, and wrapped at blanks to the width."""

from hypothesis import given
from hypothesis import strategies as st

from archspec.cli.columns import fitted


def test_headings_give_way_before_cells():
    table = fitted(("name", ">bytes a token"), [("one two", "7"), ("x", "12")], 16)
    assert table.splitlines() == [
        "name     bytes a",
        "           token",
        "────────────────",
        "one two        7",
        "x             12",
    ]


def test_the_widest_column_is_wrapped():
    table = fitted(("a", "b"), [("one two three four", "five six")], 20)
    assert table.splitlines()[2:] == ["one two     five six", "three four"]


WORDS = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=6).map(" ".join)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=4), st.integers(25, 90))
def test_nothing_is_lost_and_all_fits(rows, width):
    table = fitted(("a", "b", ">c"), rows, width)
    assert all(len(line) <= width for line in table.splitlines())
    head, _, *body = table.splitlines()
    assert head.split() == ["a", "b", "c"]
    assert sorted("".join(body).replace(" ", "")) == sorted("".join("".join(row) for row in rows).replace(" ", ""))


def test_lines_are_as_long_as_they_are_without_a_width():
    assert len(fitted(("a",), [("x " * 200,)]).splitlines()) == 3
