"""Gradient checkpointing: what a layer's parts compute is thrown away and computed again for the gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from archspec.runtime.layers import Block


@contextmanager
def checkpointed(model: nn.Module, checkpoint: Callable[..., Any], every: int = 1) -> Iterator[None]:
    """Inside of it mixers and feed-forward parts run under `checkpoint` (`torch.utils.checkpoint`, not re-entrant).

    Kept of a layer are the inputs of its parts, and keys and values, which other layers may read. `every` 2 spares
    every other layer, and so on.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)][::every]
    parts = [part for block in blocks for part in (block.mixer, block.ffn) if part is not None]
    # What hooks of others have put in place stays in place.
    replaced = {part: part.__dict__.get("forward") for part in parts}
    try:
        for part in parts:
            part.forward = partial(checkpoint, part.forward)  # type: ignore[method-assign]
        yield
    finally:
        for part, own in replaced.items():
            if own is None:
                del part.forward
            else:
                part.forward = own  # type: ignore[method-assign]
