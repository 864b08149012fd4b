"""Less looking for garbage while there is none."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_MANY = 100_000


@contextmanager
def few_collections() -> Iterator[None]:
    """Inside, the collector waits for 100,000 new objects where it usually waits for 700.

    The phases of the front end make many objects that stay: looking for garbage among them as often as usual is a
    quarter of the check of a long file.
    """
    first, *others = gc.get_threshold()
    if first:  # 0: somebody has turned it off
        gc.set_threshold(max(first, _MANY), *others)
    try:
        yield
    finally:
        gc.set_threshold(first, *others)
