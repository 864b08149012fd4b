"""Cross entropy of next tokens, a part of the tokens at a time, so that the logits of all are never held.

The gradients of a part are computed with its loss and kept in place of its logits: nothing is computed twice, and what
waits for the backward pass are the gradients of the hidden states and of the output matrix.

Legend: N tokens of all sequences, R of a chunk, B batch, S query tokens, D hidden, V vocab.
Source: as in Liger Kernel (arXiv 2410.10989, section 3.2).
"""

import importlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from archspec.runtime.network import Network, logits_of

IGNORED = -100
"""Target of a prediction that does not count."""
LOGITS_AT_ONCE = 1 << 24
FEWEST_ROWS, FEWEST_CHUNKS = 256, 4
"""A chunk has about `LOGITS_AT_ONCE` logits, but no fewer than `FEWEST_ROWS` tokens, since each chunk reads the output
matrix anew; and never more than one of `FEWEST_CHUNKS` parts of all tokens."""
FUSED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def mean_loss(network: Network, x_BSD: Tensor, targets_BS: Tensor, count: Tensor | float | None = None) -> Tensor:
    """Mean cross entropy of the targets that are not `IGNORED`, given what left the last layer; float32 or wider.

    `count` is what the sum is divided by instead of their number: of a batch of which these are a part, say.
    """
    h_ND = network.call(normed_rows, "", network, x_BSD)
    targets_N = targets_BS.flatten()
    matrix, bias = network.output_matrix(), network.output_bias()
    if matrix is None:
        raise ValueError("a loss needs logits, and this network gives vectors")
    wide = torch.promote_types(h_ND.dtype, torch.float32)
    fused = pick_fused(h_ND.device, h_ND.dtype)
    if fused is not None:
        if count is None:
            return _by_kernel(fused, network, h_ND, targets_N, matrix, bias, "mean").to(wide)
        return _by_kernel(fused, network, h_ND, targets_N, matrix, bias, "sum").to(wide) / count
    if count is None:
        count = (targets_N != IGNORED).sum()
    if not torch.is_grad_enabled():
        return _forward_only(network, h_ND, targets_N, matrix, bias) / count
    summed: Tensor = _ChunkedLoss.apply(network, h_ND, targets_N, matrix, bias)
    return summed / count


class Rows(NamedTuple):
    """What left the last layer, before the last norm, for logits and losses."""

    network: Network
    hidden: Tensor
    """(B, S, D); row t is for token t + 1."""
    known: Tensor | None = None
    """Boolean (B, S): rows that predict something, and the logits of others are zeros; None if all do."""

    def logits(self) -> Tensor:
        """(B, S, V), in the dtype of the network. To be called within `Caller.settings`, as what follows."""
        logits_BSV = self.network.end(self.hidden)
        return logits_BSV if self.known is None else logits_BSV.masked_fill(~self.known[..., None], 0)

    def loss(self, targets_BS: Tensor, count: Tensor | float | None = None) -> Tensor:
        """`mean_loss` of the targets of these rows."""
        if self.known is not None:
            targets_BS = targets_BS.masked_fill(~self.known, IGNORED)
        return mean_loss(self.network, self.hidden, targets_BS, count)

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Rows":
        """`move` of all rows, (B, S, ...) -> (B, R, ...): some of them, or the same in other places."""
        return Rows(self.network, move(self.hidden), None if self.known is None else move(self.known))


Reader = Callable[[Rows], Any]


def normed_rows(network: Network, x_BSD: Tensor) -> Tensor:
    """What the output matrix is applied to, (N, D). A unit."""
    h_BSD: Tensor = network.norm(x_BSD)
    return h_BSD.flatten(0, 1)


def chunk_loss(network: Network, h_RD: Tensor, targets_R: Tensor, matrix_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """Summed cross entropy of a chunk, in float32 or wider. A unit."""
    logits_RV = logits_of(network.plan, h_RD, matrix_VD, bias_V)
    wide = torch.promote_types(logits_RV.dtype, torch.float32)
    return F.cross_entropy(logits_RV.to(wide), targets_R, ignore_index=IGNORED, reduction="sum")


def chunk_sizes(num_rows: int, vocab_size: int) -> list[int]:
    """Tokens of every chunk; they differ by one at most, and none is alone unless it is all there is."""
    most = max(FEWEST_ROWS, LOGITS_AT_ONCE // vocab_size)
    num_chunks = max(-(-num_rows // most), FEWEST_CHUNKS)
    num_chunks = max(1, min(num_chunks, num_rows // 2))
    size, longer = divmod(num_rows, num_chunks)
    return [size + 1] * longer + [size] * (num_chunks - longer)


def _chunks(h_ND: Tensor, targets_N: Tensor, vocab_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Copies: where a view begins would be a size of the graph."""
    sizes = chunk_sizes(h_ND.shape[0], vocab_size)
    for h_RD, targets_R in zip(h_ND.detach().split(sizes), targets_N.split(sizes), strict=True):
        yield h_RD.clone(), targets_R.clone()


def _forward_only(network: Network, h_ND: Tensor, targets_N: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    chunks = _chunks(h_ND, targets_N, matrix.shape[0])
    return torch.stack([network.call(chunk_loss, "", network, h, targets, matrix, bias) for h, targets in chunks]).sum()


class _ChunkedLoss(torch.autograd.Function):
    """The sum of `chunk_loss` over all chunks."""

    @staticmethod
    def forward(
        ctx: Any, network: Network, h_ND: Tensor, targets_N: Tensor, matrix: Tensor, bias: Tensor | None
    ) -> Tensor:
        # Aliases: hooks on a parameter are for the sum of its gradients, not for those of chunks.
        aliases = [None if part is None else nn.Parameter(part.detach(), part.requires_grad) for part in (matrix, bias)]
        wanted = [alias for alias in aliases if alias is not None and alias.requires_grad]
        losses: list[Tensor] = []
        grads_h: list[Tensor] = []
        sums: list[Tensor] = []
        for h_RD, targets_R in _chunks(h_ND, targets_N, matrix.shape[0]):
            with torch.enable_grad():
                loss = network.call(chunk_loss, "", network, h_RD.requires_grad_(), targets_R, *aliases)
            grad_h, *grads = torch.autograd.grad(loss, (h_RD, *wanted))
            losses.append(loss.detach())
            grads_h.append(grad_h)
            if not sums:
                sums = [grad.to(torch.promote_types(grad.dtype, torch.float32)) for grad in grads]
            else:
                for total, grad in zip(sums, grads, strict=True):
                    total += grad
        ctx.dtypes = [alias.dtype for alias in wanted]
        ctx.is_wanted = [alias is not None and alias.requires_grad for alias in aliases]
        ctx.save_for_backward(torch.cat(grads_h), *sums)
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_h, *sums = ctx.saved_tensors
        # Rounded while multiplied: a wide product of the size of the matrix would be one more.
        scaled = [
            torch.mul(total, grad, out=torch.empty_like(total, dtype=dtype))
            for total, dtype in zip(sums, ctx.dtypes, strict=True)
        ]
        of_head = [scaled.pop(0) if is_wanted else None for is_wanted in ctx.is_wanted]
        return None, grad_h * grad, None, *of_head


def pick_fused(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """Liger Kernel's fused linear cross entropy, where it is installed and serves; None: chunks."""
    return _liger() if device.type == "cuda" and dtype in FUSED_DTYPES else None


@cache
def _liger() -> Callable[..., Tensor] | None:
    try:
        module = importlib.import_module("liger_kernel.transformers.functional")
    except ImportError:
        return None
    return getattr(module, "liger_fused_linear_cross_entropy", None)


def _by_kernel(
    fused: Callable[..., Tensor],
    network: Network,
    h_ND: Tensor,
    targets_N: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    reduction: str,
) -> Tensor:
    scale, softcap = network.plan.logit_scale, network.plan.final_softcap
    if scale != 1:  # the kernel knows no scale
        h_ND, bias = h_ND * scale, None if bias is None else bias * scale
    options: dict[str, Any] = {}
    if "accum_dtype" in inspect.signature(fused).parameters:  # since 0.6.3
        options["accum_dtype"] = torch.float32
    options |= {"ignore_index": IGNORED, "reduction": reduction, "softcap": softcap}
    return fused(h_ND, matrix, targets_N, bias=bias, **options)
