"""A call of a unit, taken apart: tensors, modules, and the rest, which is part of the compiled function."""

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from archspec.runtime.network import Network

Form = Any
"""Nested tuples of plain values: arguments without their tensors and modules."""


class Call(NamedTuple):
    """Arguments of a unit. The order of tensors and modules is that of the arguments."""

    tensors: list[Tensor]
    modules: list[nn.Module]
    form: Form


def taken_apart(args: tuple[Any, ...]) -> Call:
    """The arguments of a call.

    A whole number that stands alone may change from call to call; it becomes the length of a tensor, and so a size of
    the graph as any other.
    """
    call = Call([], [], ())
    form = tuple(
        _form(sized(arg) if type(arg) is int else arg, call)  # bool is another type
        for arg in args
    )
    return call._replace(form=form)


def _form(value: Any, call: Call) -> Form:
    if isinstance(value, Tensor):
        call.tensors.append(value)
        return "tensor"
    if isinstance(value, nn.Module):
        call.modules.append(value)
        return "module"
    if isinstance(value, tuple | list):
        return tuple([_form(item, call) for item in value])
    if isinstance(value, dict):
        return tuple(value), tuple([_form(item, call) for item in value.values()])
    return value.__qualname__ if callable(value) else value


def put_together(args: tuple[Any, ...], tensors: list[Tensor], modules: list[nn.Module]) -> tuple[Any, ...]:
    """Arguments like `args`, with other tensors and modules. The inverse of `taken_apart`."""
    rest, others = iter(tensors), iter(modules)
    return tuple(next(rest).shape[0] if type(arg) is int else _filled(arg, rest, others) for arg in args)


def _filled(value: Any, tensors: Iterator[Tensor], modules: Iterator[nn.Module]) -> Any:
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, nn.Module):
        return next(modules)
    if isinstance(value, tuple | list):
        items = [_filled(item, tensors, modules) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: _filled(item, tensors, modules) for key, item in value.items()}
    return value


def results_form(out: Any) -> Form:
    """What a unit returns, without its tensors."""
    return [results_form(item) for item in out] if isinstance(out, tuple | list) else None if out is None else "tensor"


def results(form: Form, tensors: Iterator[Tensor]) -> Any:
    """The inverse: nested tuples."""
    if isinstance(form, list):
        return tuple([results(item, tensors) for item in form])
    return None if form is None else next(tensors)


@cache
def sized(number: int) -> Tensor:
    """A tensor of that length, which takes no memory."""
    return torch.zeros(1).expand(number)


def key_of(unit: Callable[..., Any], kind: object, form: Form, prints: tuple[str, ...]) -> str:
    """The same in every process for calls that one compiled function may serve, given the fingerprints of modules."""
    text = repr((unit.__name__, kind, form, prints))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Fingerprints:
    """Of modules: equal for those that differ in nothing but the values of their parameters.

    Kinds say how a layer is built. A stack has no kind; there are two in a model at most, known by their names.
    """

    def __init__(self, model: nn.Module) -> None:
        self._stacks = {module: name for name, module in model.named_modules() if isinstance(module, Network)}
        self._made: dict[nn.Module, str] = {}

    def __getitem__(self, module: nn.Module) -> str:
        made = self._made.get(module)
        if made is None:
            made = self._made[module] = self._print(module)
        return made

    def _print(self, module: nn.Module) -> str:
        if module in self._stacks:
            return f"stack {self._stacks[module]}"
        tensors = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in named_tensors(module)]
        return f"{type(module).__name__} {tensors}"


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers."""
    yield from module.named_parameters()
    yield from module.named_buffers()
