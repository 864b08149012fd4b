"""Products of rows with one matrix a group of rows, as one operation of a graph whatever the sizes of the groups.

Legend: R rows sorted by group, E groups, D inputs, F outputs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNMENT = 16
"""Bytes of which torch's grouped product needs its rows to be a multiple."""


def grouped_product(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """Rows (R, F): those before `ends_E[e]`, and not before the end of another group, times matrix e.

    Only matrices of groups that have rows are read. Shapes: ends_E int32, ascending, its last R.
    """
    if x_RD.device.type == "cuda" and x_RD.dtype == torch.bfloat16 and _aligned(weight_EFD):
        return by_kernel(x_RD, weight_EFD, ends_E)
    return by_loop(x_RD, weight_EFD, ends_E)


def by_kernel(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """`grouped_product` by torch's kernel, which does not ask the device how long the groups are."""
    return F.grouped_mm(x_RD, weight_EFD.transpose(-1, -2), offs=ends_E)


def _aligned(weight: Tensor) -> bool:
    return all(size * weight.element_size() % ALIGNMENT == 0 for size in weight.shape[1:])


@torch.library.custom_op("archspec::grouped_linear", mutates_args=())
def by_loop(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """`grouped_product` for every device and dtype."""
    out_RF = x_RD.new_empty(x_RD.shape[0], weight_EFD.shape[1])
    begin = 0
    for group, end in enumerate(ends_E.tolist()):
        if end > begin:
            torch.mm(x_RD[begin:end], weight_EFD[group].T, out=out_RF[begin:end])
        begin = end
    return out_RF


@torch.library.custom_op("archspec::grouped_outer", mutates_args=())
def _grouped_outer(y_RF: Tensor, x_RD: Tensor, ends_E: Tensor) -> Tensor:
    """Sum of y x^T over the rows of each group, (E, F, D)."""
    out_EFD = y_RF.new_zeros(ends_E.shape[0], y_RF.shape[1], x_RD.shape[1])
    begin = 0
    for group, end in enumerate(ends_E.tolist()):
        if end > begin:
            torch.mm(y_RF[begin:end].T, x_RD[begin:end], out=out_EFD[group])
        begin = end
    return out_EFD


@by_loop.register_fake
def _(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    return x_RD.new_empty(x_RD.shape[0], weight_EFD.shape[1])


@_grouped_outer.register_fake
def _(y_RF: Tensor, x_RD: Tensor, ends_E: Tensor) -> Tensor:
    return y_RF.new_empty(ends_E.shape[0], y_RF.shape[1], x_RD.shape[1])


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_RF: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x_RD, weight_EFD, ends_E = ctx.saved_tensors
    wants_x, wants_weight, _ = ctx.needs_input_grad
    grad_x = by_loop(grad_RF, weight_EFD.transpose(1, 2), ends_E) if wants_x else None
    grad_weight = _grouped_outer(grad_RF, x_RD, ends_E) if wants_weight else None
    return grad_x, grad_weight, None


by_loop.register_autograd(_backward, setup_context=_remember)
