"""Linear maps and attention of a few rows on a CPU, as a decode step has them (`linear.h`, `attend.h`).

A step is bound by the bytes of weights and caches that it reads. These read them once, in the layout in which a model
holds them anyway, at the speed of memory; libraries' matrix products for many rows do not, or want a packed copy of
every weight.
"""

import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.runtime.kernels.building import KernelBuildError, build

if TYPE_CHECKING:
    from archspec.runtime.attention import Scoring, Visibility

HAS_TILES = bool(torch.cpu.get_capabilities().get("amx_bf16"))
TORCH_HAS_BFLOAT16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""Otherwise, on processors before AVX-512, torch multiplies bfloat16 at a small part of the speed of float32."""
MOST_ROWS = {torch.float32: 32, torch.bfloat16: (32 if HAS_TILES else 8) if TORCH_HAS_BFLOAT16 else 64}
"""Rows up to which `linear` is faster than torch's: beyond, arithmetic is what it waits for (docs/benchmarks)."""

FOLDER = Path(__file__).parent
_given: list[Path] = []
"""Libraries to load instead of building one."""


def library() -> Path | None:
    """The library that is loaded; None if there is none."""
    if not load_rows():
        return None
    return _given[-1] if _given else build(FOLDER, "rows")


def use_library(path: Path) -> None:
    """Load the kernels from a library that was built before from the same source, unless they are loaded already.

    Errors: OSError if it cannot be loaded.
    """
    if load_rows.cache_info().currsize and load_rows():
        return
    load_rows.cache_clear()
    _given.append(path)
    if not load_rows():
        _given.pop()
        raise OSError(f"{path} cannot be loaded")


@cache
def load_rows() -> bool:
    """Build and load the kernels if need be; whether they are there. Effects: a warning, once, if they are not."""
    try:
        torch.ops.load_library(str(_given[-1] if _given else build(FOLDER, "rows")))
    except (KernelBuildError, OSError) as error:
        warnings.warn(f"decoding goes on without its own kernels: {error}", stacklevel=2)
        return False
    torch.library.register_fake("archspec_rows::linear", _linear_shape)
    torch.library.register_fake("archspec_rows::attend", _attend_shape)
    return True


def serves(x: Tensor) -> bool:
    """Whether the kernels take tensors like this one, in what is being computed now."""
    if x.device.type != "cpu" or x.dtype not in MOST_ROWS:
        return False
    # Autocast chooses the dtypes of torch's own operators; ours would meet two of them.
    return not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` where `serves(x)`, by whoever is faster for that many rows."""
    if x.numel() // x.shape[-1] > MOST_ROWS[x.dtype]:
        return linear_of_many(x, weight, bias)
    out: Tensor = torch.ops.archspec_rows.linear(x, weight, bias)
    return out


def linear_of_many(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`; in float32, from weights that are widened for the while, where torch is slow at the dtype."""
    if x.dtype == torch.bfloat16 and not TORCH_HAS_BFLOAT16:
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
    return F.linear(x, weight, bias)


def attend_row(
    q_BN1E: Tensor, keys_BKTH: Tensor, values_BKTD: Tensor, visibility: "Visibility", scoring: "Scoring"
) -> Tensor:
    """Attention of one query a sequence, (B, N, 1, D); zeros for a query that sees nothing.

    With E = 2 H the second half of a query is what it turns towards sinks.
    """
    sight = visibility.sight
    out: Tensor = torch.ops.archspec_rows.attend(
        q_BN1E,
        keys_BKTH,
        values_BKTD,
        visibility.k_positions,
        visibility.q_positions,
        -1 if sight.window is None else sight.window,
        sight.sinks,
        sight.sees_self,
        visibility.pad_lens,
        scoring.scale,
        scoring.softcap or 0.0,
        scoring.sink_logits,
    )
    return out


def _linear_shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _attend_shape(q: Tensor, keys: Tensor, values: Tensor, *rest: object) -> Tensor:
    return q.new_empty((*q.shape[:3], values.shape[3]))
