"""Linear maps, computed by whoever is fastest for the number of rows at hand."""

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.runtime import kernels


class Linear(nn.Linear):
    """`nn.Linear` that is computed by `kernels`, once `row_kernels` says so."""

    row_kernels = False

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.row_kernels)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, row_kernels: bool) -> Tensor:
    """x weight^T + bias. Shapes: x (B, S, inputs), weight (outputs, inputs)."""
    if not (row_kernels and kernels.serves(x)):
        return F.linear(x, weight, bias)
    single = x.ndim == 3 and x.shape[1] == 1
    return kernels.linear(x, weight, bias) if single else kernels.linear_of_many(x, weight, bias)
