"""How many answers of a task of recall a model gives, by depth."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch

from archspec.evaluation.recall import Examples, Task
from archspec.evaluation.scoring import Scores, first_row, score, score_cached
from archspec.runtime.build import AnyModel


@dataclass(frozen=True)
class RecallRow:
    """Answers about facts whose depth is nearest to `depth`."""

    depth: float
    asked: int
    right: int

    @property
    def accuracy(self) -> float:
        return self.right / self.asked


@dataclass(frozen=True)
class RecallReport:
    """One task at one length. An answer is right if greedy decoding gives all of its tokens."""

    task: str
    length: int
    cached: bool
    rows: tuple[RecallRow, ...]
    nats: float
    """Mean loss of the tokens of answers."""

    @property
    def asked(self) -> int:
        return sum(row.asked for row in self.rows)

    @property
    def right(self) -> int:
        return sum(row.right for row in self.rows)

    @property
    def accuracy(self) -> float:
        return self.right / self.asked


def recall(
    model: AnyModel,
    task: Task,
    *,
    examples: int = 100,
    batch: int = 10,
    seed: int = 0,
    cached: bool = False,
    advance: Callable[[int], object] = lambda examples: None,
) -> RecallReport:
    """Accuracy over examples drawn from `seed`, by teacher forcing or, if `cached`, by prefill and decode steps.

    Both ask the same: an answer is right if each of its tokens is the likeliest after those before it, which is when
    greedy decoding gives it. What the model got wrong does not stand in the context of later questions.

    Errors: ValueError for tasks that do not fit the model.
    """
    if examples < 1 or batch < 1:
        raise ValueError(f"examples and batch must be at least 1, not {examples} and {batch}")
    generator = torch.Generator("cpu").manual_seed(seed)
    asked: Counter[float] = Counter()
    right: Counter[float] = Counter()
    nats, tokens = 0.0, 0
    for first in range(0, examples, batch):
        drawn = task.draw(min(batch, examples - first), generator, first)
        scores = _scores(model, drawn, cached)
        marks_BT = drawn.asked()[:, 1:].to(scores.hits.device)
        nats += float(scores.losses.double()[marks_BT].sum())
        tokens += int(marks_BT.sum())
        for depth, is_right in zip(_nearest(drawn, task.depths), _all_hit(drawn, scores), strict=True):
            asked[depth] += 1
            right[depth] += is_right
        advance(len(drawn.ids))
    rows = tuple(RecallRow(depth, asked[depth], right[depth]) for depth in task.depths if asked[depth])
    return RecallReport(task.name, task.length, cached, rows, nats / tokens)


def _scores(model: AnyModel, drawn: Examples, cached: bool) -> Scores:
    earliest = int(drawn.answers.min())
    if earliest - 1 < first_row(model.plan):
        raise ValueError(
            f"an answer stands at token {earliest + 1}, in the first block of {first_row(model.plan) + 1} tokens, "
            "which is not predicted: use longer sequences"
        )
    ids_BT = drawn.ids.to(model.device)
    return score_cached(model, ids_BT, begin=earliest) if cached else score(model, ids_BT)


def _all_hit(drawn: Examples, scores: Scores) -> list[bool]:
    """For every answer, whether all of its tokens are the likeliest."""
    misses_BT = (~scores.hits).cpu().long().cumsum(1)
    misses_BT = torch.nn.functional.pad(misses_BT, (1, 0))  # column t: misses among rows before t
    ends_BQ = drawn.answers + drawn.lengths - 1
    found: list[bool] = (misses_BT.gather(1, ends_BQ) == misses_BT.gather(1, drawn.answers - 1)).flatten().tolist()
    return found


def _nearest(drawn: Examples, depths: tuple[float, ...]) -> list[float]:
    places = (drawn.depths.double().flatten()[:, None] - torch.tensor(depths, dtype=torch.float64)).abs().argmin(1)
    return [depths[place] for place in places.tolist()]
