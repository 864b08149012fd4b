"""What all tests share."""

import os

import pytest
from hypothesis import settings

# CI tries the same examples every time, so that a change is what makes it fail; elsewhere each run tries new ones.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test begins first, so that no worker waits for it at the end."""
    items.sort(key=lambda item: item.name != "test_readme_commands_run")
