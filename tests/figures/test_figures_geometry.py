"""No text of a drawing overlaps another, is crossed by a line or leaves its box or the picture."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from drawn_specs import HARD, SPECS, hard, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import problems

import archspec
from archspec.figures.drawing import figure_of
from archspec.figures.metrics import fitted, text_width, wrapped
from archspec.figures.model import Figure
from archspec.figures.phases import phase_figure
from archspec.figures.scene import Path, Rect, Scene, Text
from archspec.figures.svg import figure_scene, figure_svg
from archspec.levels_plan import AnyPlan
from archspec.testing.level_strategies import level_specs
from archspec.testing.strategies import iterated_specs, specs

SVG = "{http://www.w3.org/2000/svg}"


def figures(plan: AnyPlan) -> list[Figure]:
    return [figure_of(plan), phase_figure(plan, "prefill"), phase_figure(plan, "decode")]


def check(figure: Figure) -> None:
    for stacked in (False, True):
        assert problems(figure_scene(figure, stacked=stacked)) == []
        root = ET.fromstring(figure_svg(figure, stacked=stacked))
        left, top, width, height = map(float, root.attrib["viewBox"].split())
        for text in root.iter(f"{SVG}text"):
            anchor, size = text.get("text-anchor", "start"), float(text.attrib["font-size"])
            room = text_width(text.text or "", size, text.get("font-weight") == "bold")
            start = float(text.attrib["x"]) - {"start": 0, "middle": room / 2, "end": room}[anchor]
            assert left <= start
            assert start + room <= left + width
            assert top + size <= float(text.attrib["y"]) <= top + height


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_shipped_specs(path):
    for figure in figures(plan_of(path)):
        check(figure)


@pytest.mark.parametrize("name", HARD)
def test_hard_specs(name):
    for figure in figures(hard(name)):
        check(figure)


@settings(max_examples=60, deadline=None)
@given(st.one_of(specs(max_layers=9), iterated_specs(max_layers=8), level_specs(iterate=True)))
def test_generated_specs(spec):
    for figure in figures(archspec.plan(spec)):
        check(figure)


def test_three_towers():
    """No language construct makes them yet; a figure takes any number."""
    figure = figure_of(plan_of(next(path for path in SPECS if path.stem == "block_main_b4_85")))
    blocks, tokens = figure.towers
    check(replace(figure, towers=(blocks, tokens, tokens), doors=figure.doors * 2))


def test_what_the_check_would_find():
    one, other = Text(0, 20, "cache"), Text(10, 22, "cache")
    assert problems(Scene([one, other])) == ["`cache` overlaps `cache`"]
    assert problems(Scene([one, Path(((-5, 15), (50, 15)), "flow")])) == ["a line crosses `cache`"]
    assert problems(Scene([one, Rect(5, 0, 90, 90, "plain")])) == ["`cache` stands on the edge of a box"]
    assert problems(Scene([one, Rect(-5, 0, 90, 90, "plain"), Text(0, 40, "cache")])) == []


@given(st.text(max_size=30), st.floats(20, 300))
def test_fitted_and_wrapped_texts_fit(text, room):
    assert fitted(text, 12, room) == "…" or text_width(fitted(text, 12, room), 12) <= room
    assert all(line == "…" or text_width(line, 12) <= room for line in wrapped(text, 12, room))


def test_widths_are_not_below_those_of_common_fonts():
    from matplotlib import font_manager  # brings DejaVu Sans along
    from matplotlib.ft2font import FT2Font

    font = FT2Font(font_manager.findfont("DejaVu Sans"))
    font.set_size(1000, 72)  # so large that it is not hinted
    for text in ("Sliding-window attention", "cache@1-12, own@13", "24 × 128 heads", "above: last position only"):
        font.set_text(text)
        assert text_width(text, 1000) >= font.get_width_height()[0] / 64 - 50
