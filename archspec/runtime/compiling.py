"""`torch.compile` around units: one compiled function for each kind, for every length and position."""

import types
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from archspec.runtime.cache import Cache
from archspec.runtime.launches import make_watchable
from archspec.runtime.tapes import compiled_call, noted
from archspec.runtime.vector_isa import remember_vector_instructions

COMPILER = "inductor"
"""The name of what compiles graphs, as `torch.compile` knows it."""
INDUCTOR_OPTIONS = {"size_asserts": False}
"""Sizes of what a compiled function is given are guarded already; it need not look at each of them again."""


def _compiled(unit: Callable[..., Any]) -> Callable[..., Any]:
    # Guards on globals ask whether archspec and torch still have the functions that they had: a third of all guards,
    # and a step of decoding waits for guards once for every layer.
    options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_guard_on_globals_unsafe}
    return torch.compile(unit, fullgraph=True, dynamic=True, backend=_graph_compiled, options=options)


def _graph_compiled(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """A graph as `COMPILER` compiles it, whose calls can be noted."""
    options: dict[str, Any] = {}
    if COMPILER == "inductor":
        options["config_patches"] = INDUCTOR_OPTIONS
        if any(isinstance(x, Tensor) and x.device.type == "cpu" for x in inputs):
            remember_vector_instructions()
    compiled = torch._dynamo.lookup_backend(COMPILER)(graph, inputs, **options)
    watchable = COMPILER == "inductor" and make_watchable()

    def unpacked(args: list[Any]) -> Any:
        return compiled(*args)

    def run(*args: Any) -> Any:
        return noted(unpacked, list(args), watchable)

    return run


class Caller:
    """Calls units, compiled or not. Models with parts in common share one.

    A unit is compiled once for each kind that it is called with: what decides about the graph besides shapes and
    modules of equal structure. Graphs are kept, and their number limited, per code object: every kind gets one of its
    own, so that they do not count against each other.
    """

    chooses = True
    """Tokens are chosen in the unit that computes their logits."""

    def __init__(self, compile: bool) -> None:
        self.compile = compile
        self._made: dict[object, Callable[..., Any]] = {}

    def __call__(self, unit: Callable[..., Any], kind: object, *args: Any) -> Any:
        """`unit(*args)`."""
        if not self.compile:
            return unit(*args)
        key = (unit, kind, torch.is_grad_enabled())
        made = self._made.get(key)
        if made is None:
            copy = types.FunctionType(unit.__code__.replace(), unit.__globals__, unit.__name__)
            made = self._made[key] = _compiled(copy)
        with compiled_call():
            return made(*args)

    def lie(self, x: Tensor) -> tuple[object, ...]:
        """How a tensor (B, K, T, H) lies in memory and whence it comes, as far as compiled functions tell it apart."""
        return (x.stride(2), x.is_contiguous(), x._is_view(), x.requires_grad) if self.compile else ()

    def settings(self) -> AbstractContextManager[None]:
        """What must hold while units run, since any call may compile."""
        if not self.compile:
            return nullcontext()
        # Every eps of every norm would be an input of the graph otherwise; and two lengths that happen to be equal at
        # first would be taken for one.
        dynamo = torch._dynamo.config.patch(specialize_float=True)
        shapes = torch.fx.experimental._config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
        return _Both(dynamo, shapes)

    def marked(self, inputs: Tensor) -> Tensor:
        """`inputs` as a tensor whose length stays dynamic in a graph, even where it equals another size."""
        if not self.compile:
            return inputs
        # A copy: of a view with a gradient the sizes of what it is a view of would enter the graph, and an axis of
        # length 1 may have any stride and still be contiguous, but graphs are guarded by strides.
        own = inputs.clone(memory_format=torch.contiguous_format)
        own = own if inputs.requires_grad else own.detach()
        if own.is_floating_point():  # vectors: later layers get theirs from graphs, without marks
            return own
        if own.shape[1] > 1:
            torch._dynamo.maybe_mark_dynamic(own, 1)
        if own.ndim > 2:  # the length of blocks
            torch._dynamo.mark_static(own, 2)
        return own

    def mark_slots(self, cache: Cache) -> None:
        """Tell the compiler which sizes of the buffers never change: all but batch and length."""
        if not self.compile:
            return
        for buffer in cache.storage.slots:
            torch._dynamo.mark_static(buffer, [1, 2, 4])
        for state in cache.storage.states:
            torch._dynamo.mark_static(state, [1, 2, 3])


class _Both:
    """Two context managers as one."""

    def __init__(self, *managers: AbstractContextManager[Any]) -> None:
        self.managers = managers

    def __enter__(self) -> None:
        for manager in self.managers:
            manager.__enter__()

    def __exit__(self, *reason: Any) -> None:
        for manager in reversed(self.managers):
            manager.__exit__(*reason)
