"""Diagnostics -> workflow commands of GitHub Actions, which show them beside the line of the pull request.

Source: docs.github.com, "Workflow commands for GitHub Actions", setting an error message.
"""

from collections.abc import Iterable

from archspec.diagnostics import Diagnostic


def render_github(diagnostics: Iterable[Diagnostic]) -> str:
    """One command a finding; columns count from 1 and are given where the place is on one line."""
    return "".join(f"{_command(diagnostic)}\n" for diagnostic in diagnostics)


def _command(diagnostic: Diagnostic) -> str:
    span = diagnostic.span
    line, column = span.source.position(span.start)
    end_line, end_column = span.source.position(span.end)
    properties = {"file": span.source.name}
    if span.source.text:
        properties |= {"line": str(line), "endLine": str(end_line)}
        if line == end_line:
            properties |= {"col": str(column), "endColumn": str(end_column)}
    properties["title"] = f"archspec {diagnostic.code}"
    shown = ",".join(f"{key}={_escaped(value, ':,')}" for key, value in properties.items())
    return f"::{diagnostic.severity} {shown}::{_escaped(_message(diagnostic))}"


def _message(diagnostic: Diagnostic) -> str:
    """The log has one line for it: what is wrong, then the ways out."""
    lines = [diagnostic.message(), *(f"help: {help_.text}" for help_ in diagnostic.helps())]
    return "\n".join([*lines, *(f"note: {note}" for note in diagnostic.all_notes())])


def _escaped(text: str, more: str = "") -> str:
    for character in f"%\r\n{more}":
        text = text.replace(character, f"%{ord(character):02X}")
    return text
