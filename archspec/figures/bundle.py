"""Specs and plans as notebooks show them: the figure, and the same as text."""

from html import escape

from archspec.driver import analyse_spec
from archspec.figures.drawing import figure_of
from archspec.figures.svg import figure_svg
from archspec.figures.text import figure_text
from archspec.levels_plan import AnyPlan
from archspec.render import render_text
from archspec.spec.model import ModelSpec


def bundle_of(value: ModelSpec | AnyPlan) -> dict[str, str]:
    """MIME type -> text. A spec with errors is shown as what is wrong with it."""
    if isinstance(value, ModelSpec):
        analysis = analyse_spec(value)
        if not analysis.ok:
            found = render_text(analysis.diagnostics)
            return {"text/plain": found, "text/html": f"<pre>{escape(found)}</pre>"}
        value = analysis.plan()
    figure = figure_of(value)
    svg = figure_svg(figure, key=f"n{_key(figure.name)}")
    return {"text/plain": figure_text(figure), "image/svg+xml": svg, "text/html": svg}


def _key(name: str) -> str:
    """A name as part of an id."""
    return "".join(char if char.isalnum() else "-" for char in name)
