"""Packages: the units of prefill and decode compiled ahead of time (AOTInductor), without weights.

`write` makes one of a model, `read` opens one, and `Package.install` lets a model run by it. What a unit is called with
decides which of the package's functions serves it: `calls.py`. A process that reads a package compiles nothing.
"""

from archspec.runtime.package.manifest import FOLDER, PackageError
from archspec.runtime.package.reading import Package, UncompiledWarning, package_in
from archspec.runtime.package.writing import write

__all__ = ["FOLDER", "Package", "PackageError", "UncompiledWarning", "package_in", "write"]
