"""Numbers given from outside: `--set W=512`, `settings={"W": 512}`."""

from collections.abc import Iterable, Mapping

from archspec.diagnostics import suggest
from archspec.source import Source
from archspec.syntax import tree
from archspec.syntax.parser import parse_file

Settings = Mapping[str, int | str]
"""Name of a `let` -> a whole number, or an expression over other lets."""


class SettingError(ValueError):
    """A number from outside that is none, or that no `let` is there for."""


def as_lets(settings: Settings) -> dict[str, tree.Let]:
    """Each setting as the `let` that takes the place of the one in the file. Raises SettingError."""
    return {name: _as_let(name, value) for name, value in settings.items()}


def _as_let(name: str, value: int | str) -> tree.Let:
    text = str(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or "\n" in text:
        raise SettingError(f"`{name}` cannot be set to {value!r}: give a whole number")
    file, found = parse_file(Source(f"--set {name}={text}", f"let {name} = {text}"))
    if found or len(file.lets) != 1 or file.lets[0].name.value != name:
        raise SettingError(f"`{name}={text}` sets nothing: give a name and a whole number, such as W=512")
    return file.lets[0]


def check_known(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises SettingError for a name that no `let` has."""
    there = tuple(sorted(known))
    for name in names:
        if name not in there:
            guess = suggest(name, there) or next((word for word in there if word.lower() == name.lower()), None)
            hint = f"; did you mean `{guess}`?" if guess else f": there is {', '.join(there[:6])}" if there else ""
            raise SettingError(f"no `let` of the spec is named `{name}`{hint}")
