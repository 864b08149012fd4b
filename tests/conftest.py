"""What all tests share."""

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

# CI tries the same examples every time, so that a change is what makes it fail; elsewhere each run tries new ones.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first, so that no worker waits for one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def compiler() -> str:
    """What compiles graphs where a test counts them: nothing that generates code. Modules override it."""
    return "aot_eager"


@pytest.fixture
def graphs(compiler: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """The number of graphs so far; a second one of one kind of unit, or a break in one, is an error."""
    import torch
    from torch._dynamo.utils import counters

    from archspec.runtime import compiling

    monkeypatch.setattr(compiling, "COMPILER", compiler)
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield lambda: counters["stats"]["unique_graphs"]
    assert not counters["graph_break"]
