"""The universal oracle: for any valid spec, every way to compute the same logits gives the same logits.

Teacher-forced forward = prefill + cached decode = chunked prefill = prefill without the exit = token by token; the
chunks that a model makes of a long prompt leave the caches of a whole prefill; planned bytes and parameters = allocated
ones. A spec with `iterate` agrees as far as its passes reach: the first n positions after n passes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from archspec.runtime.build import AnyModel
    from archspec.runtime.model import Model

TOLERANCE = 1e-4
"""Largest difference of a logit in float32."""


def assert_oracle(model: "Model", input_ids: "Tensor", chunks: Sequence[int], tolerance: float = TOLERANCE) -> None:
    """Raise AssertionError, naming the two paths, unless all paths agree on `input_ids` (B, T).

    The first `sum(chunks)` tokens are the prompt, prefilled at once and in chunks of these sizes; the rest is decoded.
    """
    import torch

    with torch.no_grad():
        full = model(input_ids)
        prompt = sum(chunks)
        wanted = full[:, prompt - 1 :]
        _close(cached_logits(model, input_ids, [prompt]), wanted, "prefill + decode", tolerance)
        _close(cached_logits(model, input_ids, chunks), wanted, f"prefill in chunks of {list(chunks)}", tolerance)
        _close(cached_logits(model, input_ids, chunks, early_exit=False), wanted, "the exit off", tolerance)
        _close(model(input_ids, exact=True), full, "token by token", tolerance)
        assert_chunks(model, input_ids[:, :prompt], min(chunks), tolerance)
    assert_sizes(model, *input_ids.shape)


def cached_logits(model: "Model", input_ids: "Tensor", chunks: Sequence[int], early_exit: bool = True) -> "Tensor":
    """Logits (B, T - P + 1, V) of positions P - 1 .. T - 1: the last of a prefill of P = sum(chunks), then decoding."""
    import torch

    cache = model.new_cache(batch=input_ids.shape[0], context=input_ids.shape[1])
    rows: list[Tensor] = []
    position = 0
    for size in chunks:
        rows = [model.prefill(input_ids[:, position : position + size], cache, early_exit=early_exit)]
        position += size
    rows += [model.decode(input_ids[:, t], cache) for t in range(position, input_ids.shape[1])]
    return torch.stack(rows, dim=1)


def assert_chunks(model: "AnyModel", input_ids: "Tensor", chunk: int, tolerance: float = TOLERANCE) -> None:
    """Raise AssertionError unless a prefill of `input_ids` (B, T), `chunk` tokens at a time, gives the logits and
    leaves the caches of a whole one, with the exit and without.

    Caches and states may differ by `tolerance` of their largest number, if that is more than 1.
    """
    import torch

    for early_exit in (True, False):
        logits, caches = [], []
        for size in (chunk, None):
            cache: Any = model.new_cache(*input_ids.shape)
            with torch.no_grad(), prefilling(model, size):
                logits.append(model.prefill(input_ids, cache, early_exit=early_exit))
            caches.append(dict(_stored(cache)))
        path = f"prefill, {chunk} tokens at a time, with early_exit={early_exit},"
        _close(logits[0], logits[1], path, tolerance, than="a whole prefill")
        for name, wanted in caches[1].items():
            largest = max(1.0, float(wanted.abs().max()))
            _close(caches[0][name], wanted, f"{name} after {path}", tolerance * largest, than="that of a whole prefill")


@contextmanager
def prefilling(model: "AnyModel", chunk: int | None) -> "Iterator[None]":
    """Prompts are taken up `chunk` tokens at a time, or whole. Effects: changes the model, and takes that back."""
    before, model.prefill_chunk = model.prefill_chunk, chunk
    try:
        yield
    finally:
        model.prefill_chunk = before


def _stored(cache: Any) -> "Iterator[tuple[str, Tensor]]":
    """Slots and states of a cache by name, those of both levels where there are two."""
    for level in ("blocks", "tokens") if hasattr(cache, "blocks") else ("",):
        stack = getattr(cache, level) if level else cache
        for kind, tensors in (("slot", stack.storage.slots), ("state", stack.storage.states)):
            yield from ((f"{level} {kind} {idx}".strip(), tensor) for idx, tensor in enumerate(tensors))


def assert_sizes(model: "Model", batch: int, context: int) -> None:
    """Planned cache bytes are those of the real buffers, planned parameters those of the real modules."""
    planned = model.plan.cache_bytes(batch, context, str(model.dtype).removeprefix("torch."))
    allocated = model.new_cache(batch=batch, context=context).nbytes
    assert planned == allocated, f"planned {planned} bytes of cache, allocated {allocated}"
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert list(shapes.items()) == list(model.plan.parameter_shapes())
    buffers = {name: tuple(value.shape) for name, value in model.named_buffers() if name in model.state_dict()}
    assert buffers == dict(model.plan.buffer_shapes())
    counted = sum(value.numel() for value in model.parameters())
    assert model.plan.num_parameters() == counted, (
        f"planned {model.plan.num_parameters()} parameters, counted {counted}"
    )


def _close(got: "Tensor", wanted: "Tensor", path: str, tolerance: float, than: str = "the full forward") -> None:
    gap = float((got - wanted).abs().max())
    assert gap <= tolerance, f"{path} differs from {than} by {gap:.2e}"
