"""Records behave as frozen dataclasses with fields by name do."""

from dataclasses import FrozenInstanceError
from typing import ClassVar

import pytest

from archspec.records import Facts


class Place(Facts):
    kind: ClassVar[str] = "place"

    line: int


class Named(Place):
    name: str
    quoted: bool = False


def test_fields_of_base_and_class():
    assert repr(Named(name="a", line=3)) == "Named(line=3, name='a', quoted=False)"


def test_equal_by_class_and_values():
    assert Named(line=3, name="a") == Named(line=3, name="a", quoted=False)
    assert len({Named(line=3, name="a"), Named(line=3, name="a"), Named(line=3, name="b")}) == 2
    assert Place(line=3) != Named(line=3, name="a")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"line": 3}, "Named needs name"),
        ({"line": 3, "name": "a", "nmae": "b"}, "Named has the fields line, name, quoted alone"),
        ({"line": 3, "name": "a", "kind": "b"}, "alone"),
    ],
)
def test_fields_must_fit(fields, problem):
    with pytest.raises(TypeError, match=problem):
        Named(**fields)


def test_frozen():
    place = Place(line=3)
    with pytest.raises(FrozenInstanceError):
        place.line = 4
    with pytest.raises(FrozenInstanceError):
        del place.line
    assert place.line == 3
