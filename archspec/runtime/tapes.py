"""Tapes: what a decode step does, noted once and done again without the program that decides about it.

A step of a model that compiles is a row of calls: of compiled graphs, and of single operators in between. Finding each
of them, with guards and arguments, takes longer than a small layer computes. A tape holds the calls themselves, each
with the weights and buffers it had, and knows which values enter which call; played back, they compute what is new.
Of graphs that can be watched it holds the launches of kernels alone (`launches.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain, groupby
from operator import is_
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from archspec.runtime.launches import Buffers, Launches, Watch

Graph = Callable[[list[Any]], Any]
"""A compiled graph: flat tensors and numbers in, flat tensors out. It may empty the list that it is given."""


class _Call(NamedTuple):
    """A call of a tape, to be given the values that are not its own."""

    run: Graph
    """Or an operator, and what comes out may be one tensor."""
    args: list[Any]
    """All that is the same every time."""
    places: tuple[tuple[int, int], ...]
    """Where in `args` what comes from a register goes."""
    registers: tuple[int | None, ...]
    """Of what comes out; None: of no further use."""
    dead: list[int]
    """Registers that nothing later reads."""


class Tape(NamedTuple):
    """A step."""

    calls: list[_Call]
    num_registers: int
    result: int
    num_launches: int
    """Kernels that some of the calls launch."""
    unwatched: tuple[str, ...]
    """Why graphs are called as they are."""

    def play(self, given: list[Tensor]) -> Tensor:
        """The output of the step for other inputs. Effects: those of the step."""
        registers: list[Any] = given + [None] * (self.num_registers - len(given))
        for run, fixed, places, outs, dead in self.calls:
            args = fixed.copy()
            for place, register in places:
                args[place] = registers[register]
            out = run(args)
            if len(outs) == 1 and isinstance(out, Tensor):
                out = (out,)
            for target, value in zip(outs, out, strict=True):
                if target is not None:
                    registers[target] = value
            for register in dead:
                registers[register] = None
        found: Tensor = registers[self.result]
        return found


class Recorder(TorchDispatchMode):
    """Notes what is called while it is active, on its way to a tape."""

    def __init__(self, given: list[Tensor], buffers: Buffers) -> None:
        super().__init__()
        self.failure: str | None = None
        """Why there can be no tape."""
        self.unwatched: list[str] = []
        """Why graphs are not on the tape by their launches."""
        self._buffers = buffers
        self._calls: list[_Call | Launches] = []
        self._met: list[Any] = [*given]
        """Everything, so that no address is given to two."""
        self._registers: dict[int, int] = {id(tensor): number for number, tensor in enumerate(given)}
        self._fixed: set[int] = set()
        self._kept: set[int] = set()
        """Storages of what watched graphs return: they are written anew whenever the tape is played."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is torch.ops.aten._local_scalar_dense.default:
            self.failure = "the step looks at a number on its device"
        leaves, form = tree_flatten((args, kwargs))
        flat = not kwargs and len(leaves) == len(args) and not any(isinstance(arg, list | tuple) for arg in args)

        def run(leaves: list[Any]) -> Any:
            if flat:
                out = func(*leaves)
            else:
                args, kwargs = tree_unflatten(leaves, form)
                out = func(*args, **kwargs)
            return out if isinstance(out, Tensor) else tree_leaves(out)

        self.note(run, leaves, tree_leaves(out))
        return out

    def graph(self, run: Graph, args: list[Any], watchable: bool) -> Any:
        """`run(args)`."""
        leaves = args.copy()
        if not watchable:
            out = run(args)
            self.note(run, leaves, out)
            return out
        numbers = [(self._registers.get(id(arg)), arg) for arg in leaves if isinstance(arg, Tensor)]
        watch = Watch(self._buffers, {number: arg for number, arg in numbers if number is not None})
        out = watch.run(run, args)
        if watch.failure is not None:
            self.unwatched.append(watch.failure)
            self.note(run, leaves, out)
            return out
        self._met += [leaves, out]
        self._kept.update(tensor.untyped_storage().data_ptr() for tensor in out if isinstance(tensor, Tensor))
        self._calls.append(watch.launches)
        return out

    def note(self, run: Graph, args: list[Any], outs: Sequence[Any]) -> None:
        """A call that was made."""
        self._met += [args, outs]
        places = []
        for place, arg in enumerate(args):
            register = self._registers.get(id(arg)) if isinstance(arg, Tensor) else None
            if register is not None:
                places.append((place, register))
            elif isinstance(arg, Tensor):
                self._fixed.add(id(arg))
        held = {place for place, _ in places}
        fixed = [None if place in held else arg for place, arg in enumerate(args)]
        self._calls.append(_Call(run, fixed, tuple(places), tuple(map(self._register, outs)), []))

    def _register(self, out: Any) -> int | None:
        if not isinstance(out, Tensor) or id(out) in self._fixed:
            return None
        return self._registers.setdefault(id(out), len(self._registers))

    def own(self, result: Tensor) -> Tensor:
        """The output of the step, in memory that the next step does not write."""
        if result.untyped_storage().data_ptr() not in self._kept:
            return result
        own = result.clone()
        self.note(_clone, [result], [own])
        return own

    def tape(self, result: Tensor) -> Tape | None:
        """What was noted, with what came of it; None if it cannot be done again."""
        register = self._registers.get(id(result))
        if register is None:
            self.failure = self.failure or "the step returns what it did not compute"
        if self.failure is not None or register is None:
            return None
        num_launches = sum(call.count for call in self._calls if isinstance(call, Launches))
        calls = list(_runs(self._calls))
        last: dict[int, _Call] = {}
        for call in calls:
            last.update(dict.fromkeys([r for _, r in call.places] + [r for r in call.registers if r is not None], call))
        for number, call in last.items():
            if number != register:
                call.dead.append(number)
        return Tape(calls, len(self._registers), register, num_launches, tuple(self.unwatched))


def _clone(args: list[Any]) -> Tensor:
    out: Tensor = args[0].clone()
    return out


def _runs(calls: list[_Call | Launches]) -> Iterator[_Call]:
    """The same calls, where launches that follow one another are one."""
    for launches, group in groupby(calls, lambda call: isinstance(call, Launches)):
        if not launches:
            yield from cast(Iterator[_Call], group)
            continue
        joined = Launches()
        for some in cast(Iterator[Launches], group):
            joined.extend(some)
        player, registers = joined.player()
        yield _Call(player.play, [None] * len(registers), tuple(enumerate(registers)), (), [])


_RECORDER: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def record(step: Callable[[], Tensor], given: list[Tensor], buffers: Buffers) -> tuple[Tensor, Recorder]:
    """`step()`, and what it did. Effects: those of the step; what it needs for itself is in `buffers`."""
    recorder = Recorder(given, buffers)
    token = _RECORDER.set(recorder)
    try:
        with recorder:
            out = step()
        return recorder.own(out), recorder
    finally:
        _RECORDER.reset(token)


def noted(run: Graph, args: list[Any], watchable: bool = False) -> Any:
    """`run(args)`, which goes on a tape if one is being made: by its launches, if it can be watched."""
    recorder = _RECORDER.get()
    return run(args) if recorder is None else recorder.graph(run, args, watchable)


@contextmanager
def compiled_call() -> Iterator[None]:
    """While a compiled function is called: of all that happens then, only what is `noted` is part of the step."""
    recorder = _RECORDER.get()
    if recorder is None:
        yield
        return
    recorder.__exit__(None, None, None)
    try:
        yield
    finally:
        recorder.__enter__()


class Structure:
    """The modules and parameters of a stack as they were: what replaces one, or its memory, has to be seen."""

    def __init__(self, stack: nn.Module) -> None:
        modules = list(stack.modules())
        # As they are held, since names would have to be looked up, for every step that is played.
        self._held: list[dict[str, Any]] = [
            held for module in modules for held in (module._modules, module._parameters, module._buffers) if held
        ]
        self._parts = list(self._now())
        tensors = [part for part in self._parts if isinstance(part, Tensor)]
        plain = all(type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
        self._tensors = tensors if plain else []
        self._addresses = self._where()
        self.known = plain and all(type(m).__module__.split(".")[0] in ("archspec", "torch") for m in modules)
        """No module of others is among them, which may compute something else from one step to the next, and no tensor
        of another kind, which has its numbers elsewhere."""

    def _now(self) -> Iterator[object]:
        """What is held, and an end, so that one more or one less is seen."""
        return chain(chain.from_iterable(map(dict.values, self._held)), (self,))

    def holds(self) -> bool:
        """Whether everything is still in its place."""
        return all(map(is_, self._now(), self._parts)) and self._where() == self._addresses

    def _where(self) -> list[int]:
        """Addresses of the tensors."""
        return [tensor.data_ptr() for tensor in self._tensors]
