"""Attention masks of left-padded batches, as lengths of padding.

Legend: B batch, T tokens.
"""

import torch
from torch import Tensor

from archspec.plan import AttentionPlan, Plan


def pad_lens(attention_mask_BT: Tensor | None, input_ids_BT: Tensor) -> Tensor | None:
    """Number of leading zeros of every row, int64 (B,); None if there is no mask or no padding.

    Errors: ValueError unless the mask fits the ids and every row is zeros, then at least one one.
    """
    if attention_mask_BT is None:
        return None
    _check_form(attention_mask_BT, input_ids_BT)
    real_BT = attention_mask_BT != 0
    # One transfer from the device tells all three.
    ends, rises, full = torch.stack(
        (real_BT[:, -1].all(), (real_BT[:, 1:] >= real_BT[:, :-1]).all(), real_BT.all())
    ).tolist()
    if not (ends and rises):
        _refuse(real_BT)
    return None if full else (~real_BT).sum(-1)


def refuse_padded_sinks(plan: Plan, unit: str) -> None:
    """Errors: ValueError if first positions stay visible, of a slot or to a reader: padding would take their place."""
    readers = any(isinstance(layer.mixer, AttentionPlan) and layer.mixer.sinks for layer in plan.layers)
    if readers or any(slot.sinks for slot in plan.slots):
        raise ValueError(f"padding would take the place of the first {unit}, which this model keeps as sinks")


def _check_form(attention_mask_BT: Tensor, input_ids_BT: Tensor) -> None:
    if attention_mask_BT.shape != input_ids_BT.shape or attention_mask_BT.is_floating_point():
        raise ValueError(
            f"an attention mask has one integer or bool a token: shape {tuple(input_ids_BT.shape)}, "
            f"not {str(attention_mask_BT.dtype).removeprefix('torch.')} of shape {tuple(attention_mask_BT.shape)}"
        )
    if attention_mask_BT.device != input_ids_BT.device:
        raise ValueError(f"the attention mask is on {attention_mask_BT.device}, the ids on {input_ids_BT.device}")


def _refuse(real_BT: Tensor) -> None:
    for row, real_T in enumerate(real_BT.tolist()):
        if not any(real_T):
            raise ValueError(f"row {row} of the attention mask is all zeros: there is nothing to attend to")
        if real_T != sorted(real_T):
            raise ValueError(
                f"row {row} of the attention mask has a 0 behind a 1: only leading positions may be padding"
            )
