"""A pytest plugin: `pytest --arch specs/` checks every `.arch` file, and what its `# expect:` comments say.

It comes with archspec and does nothing unless `--arch` is given, or `arch = true` stands in pytest's configuration.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

if TYPE_CHECKING:
    from archspec.driver import Analysis
    from archspec.testing.expectations import Expectation


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "collect .arch files: each is checked, and what its `# expect:` comments say"
    parser.getgroup("archspec").addoption("--arch", action="store_true", help=text)
    parser.addini("arch", text, type="bool", default=False)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "ArchFile | None":
    wanted = parent.config.getoption("--arch") or parent.config.getini("arch")
    return ArchFile.from_parent(parent, path=file_path) if wanted and file_path.suffix == ".arch" else None


class ArchFile(pytest.File):
    """A spec. Its items are `check`, and one for each expectation."""

    analysis: "Analysis"

    def collect(self) -> Iterator[pytest.Item]:
        from archspec.driver import analyse
        from archspec.testing.expectations import expectations

        self.analysis = analyse(self.path)
        yield CheckItem.from_parent(self, name="check")
        for expectation in expectations(self.analysis.source.text):
            yield ExpectItem.from_parent(self, name=expectation.text, expectation=expectation)


class CheckItem(pytest.Item):
    """The file has no findings but those that are expected."""

    parent: ArchFile
    funcargs: ClassVar[dict[str, object]] = {}
    """None: an item of pytest need not have them, but some plugins take it that every item does."""

    def runtest(self) -> None:
        from archspec.testing.expectations import check_findings

        check_findings(self.parent.analysis)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, f"{self.path.name}: {self.name}"


class ExpectItem(CheckItem):
    """One `# expect:` comment."""

    def __init__(self, *, expectation: "Expectation", **keywords: object) -> None:
        super().__init__(**keywords)  # type: ignore[arg-type]
        self.expectation = expectation

    def runtest(self) -> None:
        from archspec.testing.expectations import check_expectation

        check_expectation(self.expectation, self.parent.analysis)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self.expectation.line - 1, f"{self.path.name}: {self.name}"
