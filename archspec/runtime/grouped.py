"""Products of rows with one matrix a group of rows, as one operation of a graph whatever the sizes of the groups.

On CUDA nothing waits for the sizes of groups where a step of decoding could be captured; see `way_of`.

Legend: R rows sorted by group, E groups, D inputs, F outputs.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNMENT = 16
"""Bytes of which torch's grouped product needs its rows to be a multiple."""
KERNEL_MAJORS = (9, 10)
"""Major compute capabilities for which torch's grouped product is one kernel (`GroupedBlas.cpp` of its CUDA code)."""
FEW_ROWS = 64
"""Rows of which a step of decoding has no more, unless its batch is large."""

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def grouped_product(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """Rows (R, F): those before `ends_E[e]`, and not before the end of another group, times matrix e.

    Only matrices of groups that have rows are read. Shapes: ends_E int32, ascending, its last R.
    """
    if x_RD.device.type == "cuda" and x_RD.dtype == torch.bfloat16 and _aligned(weight_EFD) and has_kernel():
        return by_kernel(x_RD, weight_EFD, ends_E)
    return grouped_linear(x_RD, weight_EFD, ends_E)


@torch.compiler.assume_constant_result
def has_kernel() -> bool:
    """Whether torch's grouped product is one kernel here; elsewhere it asks the device for the ends of groups."""
    return serves(torch.cuda.get_device_capability())


def serves(capability: tuple[int, int]) -> bool:
    """Compute capabilities for which torch has the kernel."""
    return capability[0] in KERNEL_MAJORS


def by_kernel(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """`grouped_product` by torch's kernel, which does not ask the device how long the groups are."""
    return F.grouped_mm(x_RD, weight_EFD.transpose(-1, -2), offs=ends_E)


def _aligned(weight: Tensor) -> bool:
    return all(size * weight.element_size() % ALIGNMENT == 0 for size in weight.shape[1:])


@torch.library.custom_op("archspec::grouped_linear", mutates_args=())
def grouped_linear(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """`grouped_product` for every device and dtype."""
    on_cuda = x_RD.device.type == "cuda"
    way = way_of(x_RD.shape[0], weight_EFD.shape[0], on_cuda, on_cuda and torch.cuda.is_current_stream_capturing())
    return way(x_RD, weight_EFD, ends_E)


def way_of(num_rows: int, num_groups: int, on_cuda: bool, capturing: bool) -> Way:
    """Who computes a product. Nobody looks at numbers on the device where rows are as few as in a step of decoding,
    captured or not, or where they must not be looked at.

    Copied matrices are read, written and read again: so many rows are not worth it.
    """
    if not on_cuda or (num_rows > FEW_ROWS and not capturing):
        return by_loop
    return by_copies if 3 * num_rows <= num_groups else by_all


def by_copies(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """Each row with a copy of its matrix."""
    weight_RFD = weight_EFD[_groups(x_RD, ends_E)]
    return torch.bmm(weight_RFD, x_RD[:, :, None])[:, :, 0]


def by_all(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """All rows with all matrices, and of each row the product with its own."""
    out_ERF = torch.bmm(x_RD.expand(weight_EFD.shape[0], -1, -1), weight_EFD.transpose(1, 2))
    return out_ERF[_groups(x_RD, ends_E), torch.arange(x_RD.shape[0], device=x_RD.device)]


def _groups(x_RD: Tensor, ends_E: Tensor) -> Tensor:
    """The group of every row, (R,)."""
    numbers_R = torch.arange(x_RD.shape[0], device=x_RD.device, dtype=ends_E.dtype)
    return torch.searchsorted(ends_E, numbers_R, right=True)


def by_loop(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """One group after the other; waits for the ends of groups."""
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


@grouped_linear.register_fake
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
    grad_x = grouped_linear(grad_RF, weight_EFD.transpose(1, 2), ends_E) if wants_x else None
    grad_weight = _grouped_outer(grad_RF, x_RD, ends_E) if wants_weight else None
    return grad_x, grad_weight, None


grouped_linear.register_autograd(_backward, setup_context=_remember)
