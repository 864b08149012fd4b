"""Choosing the next token from logits.

Legend: B batch, V vocab.
"""

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


def sample(
    logits_BV: Tensor,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Token ids (B,); temperature 0 takes the most likely one. `top_k` applies before `top_p`."""
    if temperature == 0:
        return logits_BV.argmax(-1)
    scaled_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32)) / temperature
    if top_k is not None:
        scaled_BV = keep_top_k(scaled_BV, top_k)
    if top_p is not None:
        scaled_BV = keep_top_p(scaled_BV, top_p)
    return torch.multinomial(scaled_BV.softmax(-1), 1, generator=generator)[:, 0]


def keep_top_k(logits_BV: Tensor, top_k: int) -> Tensor:
    """-inf for all but the `top_k` largest."""
    kth_B1 = logits_BV.topk(min(top_k, logits_BV.shape[-1]), dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)


def keep_top_p(logits_BV: Tensor, top_p: float) -> Tensor:
    """-inf for all but the fewest most likely tokens whose probability reaches `top_p`; at least one stays."""
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
    probs_BV = sorted_BV.softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV
    drop_BV = (before_BV >= top_p).scatter(1, order_BV, before_BV >= top_p)
    return logits_BV.masked_fill(drop_BV, -torch.inf)
