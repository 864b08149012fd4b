"""Attention masks as transformers has them, and what they leave of the labels.

Legend: B batch, T tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.runtime.cache_rows import AnyCache
from archspec.runtime.level_cache import LevelsCache
from archspec.runtime.loss import IGNORED


@dataclass(frozen=True)
class Padded:
    """A batch as archspec takes it, padded on the left, and the way back."""

    input_ids: Tensor
    attention_mask: Tensor | None
    shifts: Tensor | None = None
    """Places by which each row was turned to the right; None if they were not."""

    def turned_back(self, rows_BTX: Tensor) -> Tensor:
        """Rows of the result in the places of the given tokens."""
        return rows_BTX if self.shifts is None else _turned(rows_BTX, -self.shifts)


def without_right_padding(plan: AnyPlan, input_ids: Tensor, attention_mask: Tensor | None) -> Padded:
    """A batch whose rows may have padding on both sides, zeros of the mask.

    Nothing depends on what stands behind it, so padding on the right may count as tokens. Not so with blocks, which
    are counted from the end: there rows are turned so that all padding stands on the left.
    """
    if attention_mask is None or attention_mask.shape != input_ids.shape or bool((attention_mask[:, -1] != 0).all()):
        return Padded(input_ids, attention_mask)
    real_BT = attention_mask != 0
    behind_BT = real_BT.flip(1).cumsum(1).flip(1) == 0
    behind_BT &= real_BT.any(1, keepdim=True)  # a row of nothing but padding stays one, and is refused
    if not isinstance(plan, LevelsPlan):
        return Padded(input_ids, (real_BT | behind_BT).long())
    shifts_B = behind_BT.sum(1)
    return Padded(_turned(input_ids, shifts_B), _turned(real_BT.long(), shifts_B), shifts_B)


def _turned(rows_BTX: Tensor, shifts_B: Tensor) -> Tensor:
    """Row b turned by `shifts_B[b]` places to the right."""
    length = rows_BTX.shape[1]
    places_BT = (torch.arange(length, device=rows_BTX.device) - shifts_B[:, None]) % length
    return rows_BTX[torch.arange(rows_BTX.shape[0], device=rows_BTX.device)[:, None], places_BT]


def predicted_labels(plan: AnyPlan, labels_BT: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Labels without those that no row predicts: of padding, of the first token, and with blocks of the first block.

    A row's first block ends so that its last token ends one: it has 1 to `block_length` tokens.
    """
    real_BT = torch.ones_like(labels_BT, dtype=torch.bool) if attention_mask is None else attention_mask != 0
    numbers_BT = real_BT.cumsum(1)
    first_B = torch.ones_like(numbers_BT[:, -1])
    if isinstance(plan, LevelsPlan):
        length = plan.block_length
        first_B = (numbers_BT[:, -1] - 1) % length + 1
    return labels_BT.masked_fill(~real_BT | (numbers_BT <= first_B[:, None]), IGNORED)


def check_continued(mask_BT: Tensor, cache: AnyCache, num_new: int) -> None:
    """Errors: ValueError unless a mask says of the tokens of a cache and the new ones what the cache knows.

    The mask is of both, or of the new ones alone.
    """
    num_cached, columns = cache.num_cached_tokens, mask_BT.shape[1]
    if columns not in (num_new, num_cached + num_new):
        raise ValueError(
            f"the attention mask has {columns} columns: the cache holds {num_cached} tokens and {num_new} are new"
        )
    expected_BT = torch.ones_like(mask_BT, dtype=torch.bool)
    if isinstance(cache, LevelsCache):  # it has counted its padding in blocks
        expected_BT[:, :-num_new] = mask_BT[:, :-num_new] != 0
    elif cache.pad_lens_B is not None and columns > num_new:
        expected_BT = torch.arange(columns, device=mask_BT.device) >= cache.pad_lens_B[:, None]
    if not torch.equal(mask_BT != 0, expected_BT):
        raise ValueError(
            "a cache keeps the padding of its first tokens: the attention mask must repeat it, and have ones behind it"
        )
