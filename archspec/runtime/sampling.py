"""Choosing the next token from logits.

Chance is drawn before, outside of what is compiled: one exponential variable a token of the vocabulary, and the token
whose probability over its variable is largest is taken. So a seed means the same tokens whoever computes the logits.

Legend: B batch, V vocab.
Source: the exponential form of the Gumbel-max trick (arXiv 1611.01144, section 2), which `torch.multinomial` has too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Errors: ValueError for values that mean nothing."""
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 (greedy) or positive, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")


class Draw(NamedTuple):
    """What a choice that is not greedy depends on besides logits."""

    noise: Tensor
    """(B, V), exponentially distributed."""
    temperature: Tensor
    top_k: int | None
    top_p: Tensor | None


@dataclass(frozen=True)
class Chooser:
    """How next tokens are chosen: temperature 0 takes the most likely one. `top_k` applies before `top_p`.

    Errors: ValueError for values that mean nothing.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    generator: torch.Generator | None = None
    """Without one, the global generator of the device."""

    def __post_init__(self) -> None:
        check_sampling(self.temperature, self.top_k, self.top_p)

    @property
    def kind(self) -> object:
        """What decides about the graph of `choose`; the numbers themselves do not."""
        return None if self.temperature == 0 else (self.top_k is None, self.top_p is None)

    def draw(self, shape_BV: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Draw | None:
        """Chance for one more token of every sequence; None if none is needed. Nothing waits for the device."""
        if self.temperature == 0:
            return None
        wide = torch.promote_types(dtype, torch.float32)
        noise = torch.empty(shape_BV, dtype=wide, device=device).exponential_(generator=self.generator)
        temperature = torch.full((), self.temperature, dtype=wide, device=device)
        top_k = None if self.top_k is None else min(self.top_k, shape_BV[1])
        top_p = None if self.top_p is None else torch.full((), self.top_p, dtype=wide, device=device)
        return Draw(noise, temperature, top_k, top_p)


def choose(logits_BV: Tensor, draw: Draw | None) -> Tensor:
    """Token ids (B,)."""
    if draw is None:
        return logits_BV.argmax(-1)
    scaled_BV = logits_BV.to(draw.noise.dtype) / draw.temperature
    if draw.top_k is not None:
        scaled_BV = keep_top_k(scaled_BV, draw.top_k)
    if draw.top_p is not None:
        scaled_BV = keep_top_p(scaled_BV, draw.top_p)
    # Noise of zero would be chosen for certain, or be no number.
    noise_BV = draw.noise.clamp(min=torch.finfo(draw.noise.dtype).tiny)
    return (scaled_BV - noise_BV.log()).argmax(-1)


def sample(
    logits_BV: Tensor,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Token ids (B,); temperature 0 takes the most likely one. `top_k` applies before `top_p`."""
    chooser = Chooser(temperature, top_k, top_p, generator)
    batch, vocab_size = logits_BV.shape
    return choose(logits_BV, chooser.draw((batch, vocab_size), logits_BV.dtype, logits_BV.device))


def keep_top_k(logits_BV: Tensor, top_k: int) -> Tensor:
    """-inf for all but the `top_k` largest."""
    kth_B1 = logits_BV.topk(min(top_k, logits_BV.shape[-1]), dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)


def keep_top_p(logits_BV: Tensor, top_p: float | Tensor) -> Tensor:
    """-inf for all but the fewest most likely tokens whose probability reaches `top_p`; at least one stays."""
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
    probs_BV = sorted_BV.softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV
    drop_BV = (before_BV >= top_p).scatter(1, order_BV, before_BV >= top_p)
    return logits_BV.masked_fill(drop_BV, -torch.inf)
