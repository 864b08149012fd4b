"""Attention of a chunk of a prompt to all that is before it and to itself, on CPUs: two calls of a kernel that need no
mask, put together by the logarithms of their sums. Only what is visible is computed, and nothing of size S x T is held.

Legend: B batch, S query tokens, T keys in a view, N heads, K kv heads, H head_dim.
Source: attention in parts, FlashAttention (arXiv 2205.14135), section 3.1.
"""

import torch
from torch import Tensor

from archspec.runtime.attention import EVERYTHING, Scoring, Visibility


def fits(q_BNSE: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring) -> bool:
    """Whether `attend_past` can serve: nothing but order hides keys, and the kernel can score them."""
    if torch.is_autocast_enabled("cpu"):  # keys are copies then, of whose parts a compiler cannot tell the strides
        return False
    plain = visibility.sight == EVERYTHING and visibility.pad_lens is None and scoring.softcap is None
    return plain and visibility.tail and q_BNSE.device.type == "cpu" and q_BNSE.shape[-1] == values_BKTH.shape[-1]


def attend_past(
    q_BNSH: Tensor, keys_BKTH: Tensor, values_BKTH: Tensor, visibility: Visibility, scoring: Scoring
) -> Tensor:
    """A `Backend` for views whose last S keys are the queries' own, with others before them."""
    num_past = keys_BKTH.shape[2] - q_BNSH.shape[2]
    past, own = ((keys_BKTH[:, :, part], values_BKTH[:, :, part]) for part in (slice(num_past), slice(num_past, None)))
    o_past, sums_past = _attend(q_BNSH, *past, scoring, causal=False)
    o_own, sums_own = _attend(q_BNSH, *own, scoring, causal=True)
    share_BNS1 = torch.sigmoid(sums_own - sums_past)[..., None]
    o_BNSH = o_past + share_BNS1 * (o_own - o_past)
    if scoring.sink_logits is not None:
        sums = torch.logaddexp(sums_own, sums_past)
        o_BNSH = o_BNSH * torch.sigmoid(sums - scoring.sink_logits[:, None])[..., None]
    return o_BNSH.to(q_BNSH.dtype)


def _attend(q: Tensor, keys: Tensor, values: Tensor, scoring: Scoring, causal: bool) -> tuple[Tensor, Tensor]:
    """Output, and the logarithm of the sum of all weights before they are divided by it (B, N, S), float32 or wider."""
    o, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, keys, values, 0.0, causal, scale=scoring.scale
    )
    return o, sums
