"""A needle in a haystack: a number stands somewhere in a long text, and the end asks for it.

Source: passkey retrieval (arXiv 2305.16300, section 4.2) and the keyed needles of RULER (arXiv 2404.06654, section 3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from archspec.evaluation.recall import DEPTHS, Examples

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
"""That of passkey retrieval, over and over."""
FACT = " The code of {key} is {value}. "
QUESTION = " The code of {key} is"
ANSWER = " {value}"
KEY_LETTERS, ALPHABET = 4, "abcdefghijklmnopqrstuvwxyz"


def _bytes(text: str) -> list[int]:
    return list(text.encode())


@dataclass(frozen=True)
class Needle:
    """`needles` facts of the form `The code of KEY is VALUE.` in filler, and a question about one of them at the end.

    The fact that is asked for stands at `depths` in turn, 0 at the beginning and 1 right before the question; the
    others anywhere. Parts are encoded one by one, so that every example has exactly `length` tokens.

    Errors: ValueError for numbers that do not fit each other.
    """

    length: int
    encode: Callable[[str], Sequence[int]] = _bytes
    """Text -> ids, without special tokens."""
    prefix: tuple[int, ...] = ()
    """Ids that begin every sequence."""
    needles: int = 1
    digits: int = 5
    filler: str = FILLER
    """Repeated from a random token on."""
    depths: tuple[float, ...] = DEPTHS

    name = "needle"

    def __post_init__(self) -> None:
        if self.needles < 1 or self.digits < 1:
            raise ValueError(f"a needle has a fact and a digit at least, not {self.needles} and {self.digits}")
        if not self.depths or any(not 0 <= depth <= 1 for depth in self.depths):
            raise ValueError(f"depths are numbers from 0 (beginning) to 1 (end), not {self.depths}")
        if not self.hay:
            raise ValueError("the filler is empty")
        if self.length < (needed := self._needed()):
            raise ValueError(f"needles and their question take {needed} tokens or more, not {self.length}")

    @cached_property
    def hay(self) -> tuple[int, ...]:
        return tuple(self.encode(self.filler))

    def draw(self, batch: int, generator: torch.Generator, first: int = 0) -> Examples:
        rows, answers, lengths, depths = [], [], [], []
        for number in range(first, first + batch):
            depth = self.depths[number % len(self.depths)]
            row, place, answer_len = self._one(depth, generator)
            rows.append(row)
            answers.append([self.length - answer_len])
            lengths.append([answer_len])
            depths.append([place])
        return Examples(torch.stack(rows), torch.tensor(answers), torch.tensor(lengths), torch.tensor(depths))

    def _one(self, depth: float, generator: torch.Generator) -> tuple[Tensor, float, int]:
        """Ids (T,), the depth that was asked for, and the tokens of the answer."""
        keys = self._keys(generator)
        values = [str(self._number(10 ** (self.digits - 1), 10**self.digits, generator)) for _ in keys]
        facts = [self.encode(FACT.format(key=key, value=value)) for key, value in zip(keys, values, strict=True)]
        question, answer = self.encode(QUESTION.format(key=keys[0])), self.encode(ANSWER.format(value=values[0]))
        room = self.length - len(self.prefix) - len(question) - len(answer) - sum(map(len, facts))
        if room < 0:
            raise ValueError(f"needles and their question do not fit into {self.length} tokens")
        places = [round(depth * room), *(self._number(0, room + 1, generator) for _ in facts[1:])]
        # Of facts at one place the one that is asked for comes last: at depth 1 nothing follows it.
        order = sorted(range(len(facts)), key=lambda idx: (places[idx], idx == 0))
        start, done = self._number(0, len(self.hay), generator), 0
        ids = list(self.prefix)
        for idx in order:
            ids += self._hay(start, done, places[idx])
            ids += facts[idx]
            done = places[idx]
        ids += [*self._hay(start, done, room), *question, *answer]
        return torch.tensor(ids, dtype=torch.int64), depth, len(answer)

    def _hay(self, start: int, begin: int, end: int) -> list[int]:
        """Tokens `begin` to `end` of the filler of an example."""
        return [self.hay[(start + place) % len(self.hay)] for place in range(begin, end)]

    def _keys(self, generator: torch.Generator) -> list[str]:
        """Different ones, that which is asked for first."""
        found: dict[str, None] = {}
        while len(found) < self.needles:
            letters = torch.randint(len(ALPHABET), (KEY_LETTERS,), generator=generator)
            found["".join(ALPHABET[letter] for letter in letters)] = None
        return list(found)

    def _needed(self) -> int:
        """Tokens of an example without filler, as far as one can say before drawing it."""
        key, value = "a" * KEY_LETTERS, "1" * self.digits
        fact = len(self.encode(FACT.format(key=key, value=value)))
        rest = len(self.encode(QUESTION.format(key=key))) + len(self.encode(ANSWER.format(value=value)))
        return len(self.prefix) + self.needles * fact + rest

    @staticmethod
    def _number(low: int, high: int, generator: torch.Generator) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))
