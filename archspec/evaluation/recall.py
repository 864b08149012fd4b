"""Tasks of recall: sequences with questions whose answers stand earlier in them, drawn from a seed.

Legend: B examples, T tokens, Q questions of an example, P pairs.
Source: multi-query associative recall of Zoology (arXiv 2312.04927, section 4, and HazyResearch/zoology).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from archspec.runtime.loss import IGNORED

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Examples(NamedTuple):
    """Sequences with their answers in place."""

    ids: Tensor
    """(B, T), int64."""
    answers: Tensor
    """Where each answer begins, (B, Q)."""
    lengths: Tensor
    """Tokens of each answer, (B, Q)."""
    depths: Tensor
    """Where between beginning (0) and question (1) stands what is asked for, (B, Q)."""

    def asked(self) -> Tensor:
        """Boolean (B, T), true for tokens of answers."""
        places_T = torch.arange(self.ids.shape[1])
        inside = (places_T >= self.answers[..., None]) & (places_T < (self.answers + self.lengths)[..., None])
        return inside.any(1)

    def targets(self) -> Tensor:
        """For training on answers alone: the token after each, (B, T - 1), `IGNORED` where that is no answer."""
        return self.ids[:, 1:].masked_fill(~self.asked()[:, 1:], IGNORED)


class Task(Protocol):
    """Something to draw examples of, all of one length."""

    @property
    def name(self) -> str: ...
    @property
    def length(self) -> int:
        """Tokens of an example, its last answer among them."""

    @property
    def depths(self) -> tuple[float, ...]:
        """By which accuracies are told apart."""

    def draw(self, batch: int, generator: torch.Generator, first: int = 0) -> Examples:
        """The examples `first`, `first` + 1, ... Effects: advances the generator, which is one of the CPU."""


def task_batches(task: Task, batch: int, seed: int = 0) -> Iterator[Examples]:
    """Examples without end, to train on. Equal seeds give equal examples."""
    generator = torch.Generator("cpu").manual_seed(seed)
    first = 0
    while True:
        yield task.draw(batch, generator, first)
        first += batch


@dataclass(frozen=True)
class MultiQuery:
    """Multi-query associative recall: `pairs` of a key and its value, then the keys again, each before its value.

    Keys are tokens 1 to V/2 - 1, values those from V/2 on; no two of a sequence are equal. How far a key's question
    stands behind the pairs follows a power law, so that most are near. Between questions stand values at random, or
    token 0 without `noise`: no key, so that only a question asks.

    Errors: ValueError for numbers that do not fit each other.
    """

    vocab_size: int
    length: int
    pairs: int = 8
    queries: int | None = None
    """Keys that are asked for; all without it."""
    power: float = 0.01
    """Exponent of the law: 0.01 as in Zoology; 1 asks everywhere alike."""
    noise: bool = True
    depths: tuple[float, ...] = DEPTHS

    name = "mqar"

    def __post_init__(self) -> None:
        most = self.vocab_size // 2 - 1
        if not 1 <= self.pairs <= most:
            raise ValueError(f"a vocabulary of {self.vocab_size} has keys for 1 to {most} pairs, not {self.pairs}")
        if not 1 <= self.num_queries <= self.pairs:
            raise ValueError(f"{self.pairs} pairs can be asked for 1 to {self.pairs} times, not {self.num_queries}")
        needed = 2 * (self.pairs + self.num_queries)
        if self.length < needed:
            raise ValueError(
                f"{self.pairs} pairs and {self.num_queries} questions take {needed} tokens, more than {self.length}"
            )
        if not self.power > 0:
            raise ValueError(f"the power must be positive, not {self.power}")

    @property
    def num_queries(self) -> int:
        return self.pairs if self.queries is None else self.queries

    def draw(self, batch: int, generator: torch.Generator, first: int = 0) -> Examples:
        half, front = self.vocab_size // 2, 2 * self.pairs
        keys_BP = 1 + _distinct(batch, half - 1, self.pairs, generator)
        values_BP = half + _distinct(batch, self.vocab_size - half, self.pairs, generator)
        if self.noise:
            ids_BT = torch.randint(half, self.vocab_size, (batch, self.length), generator=generator)
        else:
            ids_BT = torch.zeros((batch, self.length), dtype=torch.int64)
        ids_BT[:, :front:2], ids_BT[:, 1:front:2] = keys_BP, values_BP
        asked_BQ = _distinct(batch, self.pairs, self.num_queries, generator)
        places = (self.length - front) // 2
        weights = torch.arange(1, places + 1, dtype=torch.float64) ** (self.power - 1)
        gaps_BQ = torch.multinomial(weights.expand(batch, -1), self.num_queries, generator=generator)
        questions_BQ = front + 2 * gaps_BQ
        ids_BT.scatter_(1, questions_BQ, keys_BP.gather(1, asked_BQ))
        ids_BT.scatter_(1, questions_BQ + 1, values_BP.gather(1, asked_BQ))
        depths_BQ = 2 * asked_BQ / questions_BQ
        return Examples(ids_BT, questions_BQ + 1, torch.ones_like(questions_BQ), depths_BQ)


def _distinct(batch: int, total: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` different numbers below `total` for each example, (B, count)."""
    return torch.rand((batch, total), generator=generator).topk(count, dim=1).indices
