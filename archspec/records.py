"""Frozen records that cost nothing to define.

A frozen dataclass compiles six methods when it is defined, a third of a millisecond each time. A command that defines a
hundred kinds of diagnostics waits for that before it does anything, so they share one set of methods instead.
"""

from dataclasses import FrozenInstanceError
from inspect import get_annotations
from typing import Any, ClassVar, NoReturn, dataclass_transform


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Facts:
    """Base of frozen records whose fields, the annotated names of the class, are given by name.

    What a dataclass with `frozen=True, kw_only=True` does, for classes that are many and whose values are few.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    """Those of the base classes first."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = (name for name, kind in get_annotations(cls).items() if getattr(kind, "__origin__", kind) is not ClassVar)
        cls._fields = tuple(dict.fromkeys((*cls._fields, *own)))

    def __init__(self, **named: Any) -> None:
        missing = [name for name in self._fields if name not in named and not hasattr(type(self), name)]
        if missing or not named.keys() <= set(self._fields):
            problem = f"needs {', '.join(missing)}" if missing else f"has the fields {', '.join(self._fields)} alone"
            raise TypeError(f"{type(self).__name__} {problem}")
        self.__dict__.update({name: named[name] if name in named else getattr(self, name) for name in self._fields})
        self.__post_init__()

    def __post_init__(self) -> None:
        """For what follows from the fields."""

    def _values(self) -> tuple[Any, ...]:
        return tuple(self.__dict__[name] for name in self._fields)

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in zip(self._fields, self._values(), strict=True))
        return f"{type(self).__qualname__}({', '.join(fields)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Facts) or type(self) is not type(other):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")
