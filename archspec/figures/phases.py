"""What prefill and decoding run, and for which positions: the derived programs of a plan as figures.

Contract: the items of a figure, unfolded, are the steps of `Plan.prefill_steps` or `Plan.decode_steps` in their order.
"""

from dataclasses import replace
from typing import Literal

from archspec.describe import chunk_text, iteration_texts
from archspec.figures.drawing import cells, figure_of
from archspec.figures.model import Cell, Figure, Item, Positions, Strip, Tower
from archspec.levels_plan import AnyPlan, LevelsPlan

Phase = Literal["prefill", "decode"]


def phase_figure(plan: AnyPlan, phase: Phase) -> Figure:
    """The figure of one phase. `all` are the T tokens of a prompt, or its blocks."""
    if phase == "prefill":
        figure = figure_of(plan, "exact")
        towers = _prefill_levels(plan, figure) if isinstance(plan, LevelsPlan) else (_prefill(figure.towers[0]),)
        return replace(
            figure, phase=phase, towers=towers, notes=(*figure.notes, *iteration_texts(plan), chunk_text(plan))
        )
    figure = figure_of(plan, "none")
    notes = []
    if isinstance(plan, LevelsPlan):
        blocks, tokens = figure.towers
        first = _first(plan)
        towers = (_decode(blocks, "1 full block"), _decode(tokens, "1 token"))
        notes.append(
            "each token runs the token level; the last one of a block completes the block, which runs the block "
            f"level, and its context starts the token level anew with {first}"
        )
    else:
        towers = (_decode(figure.towers[0], "1 token"),)
    if any(bracket.kind == "iterate" for tower in figure.towers for bracket in tower.brackets):
        notes.append("nothing iterates: a layer that reads a later cache sees earlier tokens only, which are there")
    return replace(figure, phase=phase, towers=towers, notes=tuple(notes))


def _first(plan: LevelsPlan) -> str:
    """What the token level runs over before the first token of a block."""
    if plan.take == "summation":
        return "1 position"
    return f"{plan.num_context} context vector{'s' if plan.num_context > 1 else ''}"


def _prefill_levels(plan: LevelsPlan, figure: Figure) -> tuple[Tower, ...]:
    """The block level over all blocks of the prompt, the token level over what starts the block to come."""
    blocks, tokens = figure.towers
    summed = plan.take == "summation"
    first = (Cell("both"),) if summed else cells("context", plan.num_context)
    tokens = replace(
        tokens,
        inputs=Strip(first, "context + start token" if summed else "context"),
        outputs=Strip((Cell("token"),), "block k: token 1"),
    )
    if summed or plan.num_context == 1:
        start = _decode(tokens, _first(plan))
    else:
        start = _prefill(tokens, f"{plan.num_context} vectors", "last vector", "last vector")
    return _prefill(blocks, "all blocks", "last block", "last block"), start


def _prefill(tower: Tower, every: str = "all tokens", last: str = "last token", top: str = "last token") -> Tower:
    cut = len(tower.items) if tower.exit is None else tower.exit.before
    items = tuple(
        _running(item, "all", every) if place < cut else _running(item, "last", last)
        for place, item in enumerate(tower.items)
    )
    return replace(tower, items=items, bottom=f"{tower.bottom}: {every}", top=f"{tower.top}: {top}")


def _decode(tower: Tower, one: str) -> Tower:
    """Everything once for one position; without exit and iteration."""
    items = tuple(_running(item, "one", one) for item in tower.items)
    brackets = tuple(bracket for bracket in tower.brackets if bracket.kind == "repeat")
    return replace(
        tower, items=items, brackets=brackets, exit=None, bottom=f"{tower.bottom}: {one}", top=f"{tower.top}: {one}"
    )


def _running(item: Item, positions: Positions, runs: str) -> Item:
    return replace(item, positions=positions, runs=runs)
