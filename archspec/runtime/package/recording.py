"""Which units a model calls, with what: a few short runs that differ in every size that may change.

What is equal in all runs is taken for a constant of the compiled function; so no list has to say which sizes change.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from archspec.levels_plan import LevelsPlan
from archspec.plan import AttentionPlan, Plan
from archspec.runtime import near
from archspec.runtime.build import AnyModel
from archspec.runtime.compiling import Caller
from archspec.runtime.network import Network
from archspec.runtime.package.calls import Fingerprints, Form, key_of, named_tensors, results_form, taken_apart

GROUPS = ((3, 2, 2), (1, 1, 2), (3, 2, 0), (1, 1, 0))
"""Groups of two runs: their batches, and how many blocks of a window their prompts fill at least.

What the runs of one group differ in changes. One sequence, or one block, are cases of their own where what serves many
does not serve one.
"""
ROOM = 300
"""Positions of a cache besides those of the prompt; every other run has few."""
DECODED = 2


@dataclass
class Recorded:
    """Calls of a unit that one compiled function is to serve."""

    unit: Callable[..., Any]
    key: str
    args: tuple[Any, ...]
    """Of the first call."""
    outputs: Form
    met: dict[tuple[torch.Size, ...], list[Tensor]]
    """Tensors of the calls, one call for all of the same sizes."""
    weights: dict[str, None] = field(default_factory=dict)
    """Names of the parameters and buffers that it looked at, behind the number of their module."""
    served: set[nn.Module] = field(default_factory=set)

    def changing(self, number: int) -> list[int]:
        """Dimensions of a tensor that had more than one size."""
        shapes = [tensors[number].shape for tensors in self.met.values()]
        return [dim for dim, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1]


class Recorder(Caller):
    """Runs units as they are, and notes what they are called with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(compile=False)
        self.prints, self.group = Fingerprints(model), 0
        self.found: dict[object, Recorded] = {}

    def __call__(self, unit: Callable[..., Any], kind: object, *args: Any) -> Any:
        tensors, modules, form = taken_apart(args)
        names = {tensor: f"{i}.{name}" for i, module in enumerate(modules) for name, tensor in named_tensors(module)}
        key = key_of(unit, kind, form, tuple(self.prints[module] for module in modules))
        place = (key, self.group, *(layout(tensor) for tensor in tensors))
        with _Looks(names) as looks:
            out = unit(*args)
        if place not in self.found:
            self.found[place] = Recorded(unit, key, args, results_form(out), {})
        recorded = self.found[place]
        recorded.met.setdefault(tuple(tensor.shape for tensor in tensors), tensors)
        recorded.weights.update(looks.seen)
        recorded.served.update(modules[-1:])
        return out


class _Looks(TorchDispatchMode):
    """Notes which of some tensors operations take."""

    def __init__(self, names: dict[Tensor, str]) -> None:
        super().__init__()
        self.names, self.seen = names, dict[str, None]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for arg in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(arg, Tensor) and arg in self.names:
                self.seen[self.names[arg]] = None
        return func(*args, **(kwargs or {}))


def layout(tensor: Tensor) -> tuple[object, ...]:
    """The same for tensors whose strides follow from their sizes in the same way, as far as that can be told."""
    ones = tuple(size == 1 for size in tensor.shape)
    dims = [dim for dim, one in enumerate(ones) if not one]
    strides = tensor.stride()
    order = sorted(dims, key=lambda dim: (-strides[dim], dim))
    expected, dense = 1, True
    for dim in reversed(order):
        dense = dense and strides[dim] == expected
        expected *= tensor.shape[dim]
    return ones, tuple(order), dense, tensor.dtype


def record(model: AnyModel) -> list[Recorded]:
    """The units of prefill, from the first token on, and of decode."""
    stacks = [module for module in model.modules() if isinstance(module, Network)]
    before = [stack.call for stack in stacks]
    recorder = Recorder(model)
    try:
        for stack in stacks:
            stack.call = recorder
        for recorder.group, (*batches, blocks) in enumerate(GROUPS):
            for number, batch in enumerate(batches):
                _run(model, number, batch, blocks)
    finally:
        for stack, call in zip(stacks, before, strict=True):
            stack.call = call
    return list(recorder.found.values())


def _run(model: AnyModel, number: int, batch: int, blocks: int) -> None:
    """The second run has a longer prompt, in a cache that it almost fills. With two levels, lengths count blocks."""
    plan, length = model.plan, 1
    if isinstance(plan, LevelsPlan):
        length, plan = plan.block_length, plan.blocks
    num_tokens, context = _lengths(plan, number, blocks)
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(model.plan.vocab_size, (batch, num_tokens * length), generator=generator)
    cache = model.new_cache(batch, context * length)
    model.prefill(ids, cache)  # type: ignore[arg-type]
    for _ in range(DECODED * length):  # past the end of a block
        model.decode(ids[:, 0].clone(), cache)  # type: ignore[arg-type]


def _lengths(plan: Plan, number: int, blocks: int) -> tuple[int, int]:
    """Of a prompt and of a cache: no two sizes are equal."""
    windows = [layer.mixer.window for layer in plan.layers if isinstance(layer.mixer, AttentionPlan)]
    longest = max((near.block_len(window) for window in windows if window is not None), default=0)
    num_tokens = (blocks + number if blocks else 0) * longest + (7, 11)[number]
    context = num_tokens + (DECODED if number else ROOM)
    if plan.max_context is not None:
        context = min(context, plan.max_context - number)
    return max(1, min(num_tokens, context - DECODED)), context
