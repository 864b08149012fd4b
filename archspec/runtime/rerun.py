"""Gradients of an operator by running it again: for kernels whose public functions are differentiable, and no more."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradients(
    function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor], grads: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Of `function(*inputs)` with respect to all inputs, given those of its outputs; usable inside a custom operator.

    Nothing but inputs has to be kept for it, and no version's internals are called; the price is one more forward.
    """
    keys = torch._C.DispatchKey
    hidden = torch._C._dispatch_tls_local_exclude_set()
    for key in (keys.AutogradFunctionality, keys.AutogradOther, keys.ADInplaceOrView):  # type: ignore[attr-defined]
        hidden = hidden.remove(key)
    shown = torch._C._dispatch_tls_local_include_set()
    # Inside an operator nothing is recorded, since it has a backward of its own; this is it.
    with torch._C._ForceDispatchKeyGuard(shown, hidden), torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        outputs = function(*leaves)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        found = torch.autograd.grad(outputs, leaves, [grad.contiguous() for grad in grads])
    return tuple(grad.contiguous() for grad in found)
