"""Marks of tests and of their parameters."""

import pytest


def slowly(*values):
    """Parameters for `make test-slow`: compilation that other parameters try too."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
