"""Loss over texts: perplexity, bits per byte, and loss by position in the context.

Texts longer than the context are read in windows, each token scored once: in the first window that predicts it.

Source: strided windows as in transformers' "Perplexity of fixed-length models"; loss by position as in the long-context
figures of YOCO (arXiv 2405.05254, figure 6) and LCKV.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from archspec.evaluation.scoring import Scores, first_row, score, score_cached
from archspec.evaluation.texts import Document
from archspec.levels_plan import LevelsPlan
from archspec.plan import Plan
from archspec.runtime.build import AnyModel

DEFAULT_CONTEXT = 1024


class PositionBin(NamedTuple):
    """Positions `first` to `last`; position p predicts from p tokens of context."""

    first: int
    last: int
    loss: float
    predictions: int


@dataclass(frozen=True)
class LossReport:
    """What was found over all documents. Losses are in nats."""

    context: int
    stride: int
    documents: int
    tokens: int
    """Tokens that were predicted, each once."""
    unpredicted: int
    """Tokens at the beginning of documents, which nothing predicts."""
    text_bytes: int
    """Bytes of text that the predicted tokens stand for."""
    nats: float
    """Sum of the losses of the predicted tokens."""
    position_nats: Tensor = field(repr=False, compare=False)
    """Sum of losses at every position of the windows, (context,) float64; overlapping windows count in full."""
    position_counts: Tensor = field(repr=False, compare=False)
    """(context,), int64."""

    @property
    def loss(self) -> float:
        """Mean nats a token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers. nan where tokens stand for no bytes."""
        return self.nats / math.log(2) / self.text_bytes if self.text_bytes else math.nan

    def bins(self, per_doubling: int = 1) -> list[PositionBin]:
        """Mean loss between positions of equal ratios: 1, 2, 3-4, 5-8, ..."""
        found, first, step = [], 1, 0
        while first <= self.context:
            last = min(int(2 ** (step / per_doubling)), self.context)
            step += 1
            if last < first:
                continue
            count = int(self.position_counts[first - 1 : last].sum())
            if count:
                found.append(PositionBin(first, last, float(self.position_nats[first - 1 : last].sum()) / count, count))
            first = last + 1
        return found

    def positions(self) -> Iterator[PositionBin]:
        """Every position that predicts."""
        pairs = zip(self.position_nats.tolist(), self.position_counts.tolist(), strict=True)
        for position, (nats, count) in enumerate(pairs, start=1):
            if count:
                yield PositionBin(position, position, nats / count, count)


class Window(NamedTuple):
    """Token ids of one pass."""

    ids: Tensor
    """(n + 1,), n the tokens of context that the last one has."""
    num_bytes: Tensor
    new_from: int
    """The first row that no earlier window scored."""


def text_loss(
    model: AnyModel,
    documents: Iterable[Document],
    *,
    context: int | None = None,
    stride: int | None = None,
    batch: int = 8,
    exact: bool = False,
    advance: Callable[[int], object] = lambda size: None,
) -> LossReport:
    """Loss over documents, none of which sees another.

    `context` is the tokens that a prediction sees at most (1024, or what learned positions allow); a window begins
    every `stride` tokens (by default as rarely as every token can still be predicted). `exact` decodes token by token
    where layers iterate. `advance` is called with bytes of documents as they are done.

    Errors: ValueError for settings that do not fit the model, or documents without a token to predict.
    """
    context, stride = settled(model, context, stride)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    run = _Run(model, context, batch, exact)
    num_documents = unpredicted = 0
    for document in documents:
        if len(document.ids) and int(document.ids.max()) >= model.plan.vocab_size:
            raise ValueError(
                f"{document.name}: the tokenizer gives id {int(document.ids.max())}, "
                f"and the model has {model.plan.vocab_size} tokens: this is not its tokenizer"
            )
        num_documents += 1
        unpredicted += min(len(document.ids), first_row(model.plan) + 1)
        for window in windows(document, context, stride, first_row(model.plan)):
            run.add(window)
        advance(document.size)
    run.finish()
    if run.tokens == 0:
        raise ValueError("the texts are too short: no token is predicted")
    return LossReport(
        context=context,
        stride=stride,
        documents=num_documents,
        tokens=run.tokens,
        unpredicted=unpredicted,
        text_bytes=run.text_bytes,
        nats=run.nats,
        position_nats=run.position_nats,
        position_counts=run.position_counts,
    )


def settled(model: AnyModel, context: int | None, stride: int | None) -> tuple[int, int]:
    """Context and stride, with what they are by default. Errors: ValueError for those that do not fit."""
    skipped = first_row(model.plan)
    if context is None:
        context = max(min(DEFAULT_CONTEXT, model.plan.max_context or DEFAULT_CONTEXT), skipped + 1)
    model.plan.check_context(context)
    most = context - skipped
    if most < 1:
        raise ValueError(
            f"a context of {context} predicts nothing: the first block of {skipped + 1} tokens is its cause"
        )
    stride = most if stride is None else stride
    if not 1 <= stride <= most:
        raise ValueError(
            f"the stride must be 1 to {most}, not {stride}: with a context of {context}, tokens would be left out"
        )
    return context, stride


def windows(document: Document, context: int, stride: int, skipped: int) -> Iterator[Window]:
    """Parts of a document of at most `context` + 1 tokens; `skipped` rows at the beginning of each predict nothing."""
    num_tokens, start, new = len(document.ids), 0, skipped + 1
    while new < num_tokens:
        last = min(start + context, num_tokens - 1)
        part = slice(start, last + 1)
        yield Window(document.ids[part], document.num_bytes[part], new - start - 1)
        start, new = start + stride, last + 1


class _Run:
    """Windows of equal length go through the model together."""

    def __init__(self, model: AnyModel, context: int, batch: int, exact: bool) -> None:
        self.model, self.batch = model, batch
        iterates = any(plan.groups for plan in _stacks(model))
        self.by_token = exact and iterates
        self.skipped = first_row(model.plan)
        self.waiting: dict[int, list[Window]] = {}
        self.tokens = self.text_bytes = 0
        self.nats = 0.0
        self.position_nats = torch.zeros(context, dtype=torch.float64)
        self.position_counts = torch.zeros(context, dtype=torch.int64)

    def add(self, window: Window) -> None:
        alike = self.waiting.setdefault(len(window.ids), [])
        alike.append(window)
        if len(alike) == self.batch:
            self._score(self.waiting.pop(len(window.ids)))

    def finish(self) -> None:
        for alike in self.waiting.values():
            self._score(alike)
        self.waiting = {}

    def _score(self, alike: list[Window]) -> None:
        ids_BT = torch.stack([window.ids for window in alike]).to(self.model.device, torch.int64)
        scores: Scores = score_cached(self.model, ids_BT) if self.by_token else score(self.model, ids_BT)
        losses_BT = scores.losses.double().cpu()
        rows = slice(self.skipped, losses_BT.shape[1])
        self.position_nats[rows] += losses_BT[:, rows].sum(0)
        self.position_counts[rows] += len(alike)
        for window, losses_T in zip(alike, losses_BT, strict=True):
            self.tokens += len(losses_T) - window.new_from
            self.nats += float(losses_T[window.new_from :].sum())
            self.text_bytes += int(window.num_bytes[window.new_from + 1 :].sum())


def _stacks(model: AnyModel) -> list[Plan]:
    return [plan for _, plan in model.plan.levels()] if isinstance(model.plan, LevelsPlan) else [model.plan]
