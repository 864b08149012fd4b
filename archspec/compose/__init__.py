"""Composition: `let`, `define`, `use` and `extends` are worked out, and a plain model is left.

Contract: `compose` takes the tree of a file and yields the plain `syntax.tree.Model` that `archspec.spec` reads; every
span still points into the file where the text stands. It never raises for any file.
"""

from archspec.compose.composing import Composition, SettingError, compose

__all__ = ["Composition", "SettingError", "compose"]
