"""The universal oracle for specs with two levels: every way to compute the same logits gives the same logits.

What a prompt's length decides, where blocks begin, is the same on both sides of a comparison.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from archspec.testing.oracle import TOLERANCE, assert_chunks, assert_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from archspec.runtime.levels import LevelsModel


def assert_level_oracle(
    model: "LevelsModel", input_ids: "Tensor", chunks: Sequence[int], tolerance: float = TOLERANCE
) -> None:
    """Raise AssertionError, naming the two paths, unless all paths agree on `input_ids` (B, T).

    The first `sum(chunks)` tokens are the prompt, prefilled at once and in chunks of these sizes; the rest is decoded.
    """
    import torch

    prompt, first = sum(chunks), chunks[0]
    with torch.no_grad():
        full = model(input_ids, prompt_len=prompt)
        wanted = full[:, prompt - 1 :]
        _close(cached_logits(model, input_ids, [prompt]), wanted, "prefill + decode", tolerance)
        for early_exit in (True, False):
            path = f"prefill in chunks of {list(chunks)} with early_exit={early_exit}"
            found = cached_logits(model, input_ids, chunks, prompt_len=prompt, early_exit=early_exit)
            _close(found, wanted, path, tolerance)
        _close(model(input_ids, prompt_len=prompt, exact=True), full, "token by token", tolerance)
        other = model(input_ids, prompt_len=first)[:, prompt - 1 :]
        _close(cached_logits(model, input_ids, chunks), other, f"blocks counted from the first of {chunks}", tolerance)
        decoded = cached_logits(model, input_ids, [1])
        _close(decoded, model(input_ids, prompt_len=1), "decoding alone", tolerance)
        assert_chunks(model, input_ids[:, :prompt], min(chunks), tolerance)
    assert_loss(model, input_ids, tolerance)
    assert_sizes(model, *input_ids.shape)  # type: ignore[arg-type]


def assert_loss(model: "LevelsModel", input_ids: "Tensor", tolerance: float) -> None:
    """The loss is that of the rows behind the first block, where the last token ends a block."""
    import torch.nn.functional as F

    num_tokens, length = input_ids.shape[1], model.plan.block_length
    first = length - model.plan.padding(num_tokens)
    if num_tokens <= first:
        return
    rows = model(input_ids[:, :-1], prompt_len=num_tokens)[:, first - 1 :]
    wanted = F.cross_entropy(rows.flatten(0, 1), input_ids[:, first:].flatten())
    gap = float((model.loss(input_ids) - wanted).abs().detach())
    assert gap <= tolerance, f"the loss differs from that of the logits by {gap:.2e}"


def cached_logits(
    model: "LevelsModel",
    input_ids: "Tensor",
    chunks: Sequence[int],
    prompt_len: int | None = None,
    early_exit: bool = True,
) -> "Tensor":
    """Logits (B, T - P + 1, V) of positions P - 1 .. T - 1: the last of a prefill of P = sum(chunks), then decoding."""
    import torch

    cache = model.new_cache(batch=input_ids.shape[0], context=input_ids.shape[1])
    rows: list[Tensor] = []
    position = 0
    for size in chunks:
        chunk = input_ids[:, position : position + size]
        rows = [model.prefill(chunk, cache, prompt_len=prompt_len, early_exit=early_exit)]
        position += size
    rows += [model.decode(input_ids[:, t], cache) for t in range(position, input_ids.shape[1])]
    return torch.stack(rows, dim=1)


def _close(got: "Tensor", wanted: "Tensor", path: str, tolerance: float) -> None:
    gap = float((got - wanted).abs().max())
    assert gap <= tolerance, f"{path} differs from the full forward by {gap:.2e}"
