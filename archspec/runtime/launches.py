"""Launches: kernels of compiled graphs on a CPU, noted with the addresses that they are given, and run again at once.

A graph of inductor's is a Python program around its kernels, which allocates, makes views and takes tensors apart; that
takes longer than a small kernel computes. While a graph is watched, what it allocates comes from `Buffers` and stays
there, so that its kernels can be called with the same addresses again, from one loop in C++: what CUDA graphs are on a
GPU.
"""

import ctypes
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._inductor.codecache import PyCodeCache
from torch.utils._python_dispatch import TorchDispatchMode

from archspec.runtime.kernels import launching
from archspec.runtime.kernels.rows import load_rows

_allocate: Callable[..., Tensor] = torch._C._dynamo.guards._empty_strided_cpu  # type: ignore[attr-defined]
_as_strided: Callable[..., Tensor] = torch._C._dynamo.guards._reinterpret_tensor  # type: ignore[attr-defined]
"""As inductor's programs have them, which no dispatcher sees."""

_WATCH: ContextVar["Watch | None"] = ContextVar("watch", default=None)


class Buffers:
    """Memory of what watched graphs compute. What one graph needs only for itself, others use too."""

    def __init__(self) -> None:
        self._free: dict[object, list[Tensor]] = {}
        self._taken: list[tuple[object, Tensor]] = []

    def take(self, sizes: tuple[int, ...], strides: tuple[int, ...] | None, dtype: torch.dtype) -> Tensor:
        """A tensor that nobody else has; contiguous without `strides`. Its elements are anything."""
        if strides is None:
            strides = _strides(sizes)
        length = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        length = 0 if 0 in sizes else length
        key = (length, dtype, torch.is_inference_mode_enabled())
        free = self._free.setdefault(key, [])
        flat = free.pop() if free else _allocate((length,), (1,), dtype)
        self._taken.append((key, flat))
        return _as_strided(flat, sizes, strides, 0)

    def settle(self, kept: Iterable[Tensor]) -> None:
        """Of what was taken, only what `kept` lies in is needed any longer."""
        storages = {_storage(tensor) for tensor in kept}
        for key, flat in self._taken:
            if _storage(flat) not in storages:
                self._free[key].append(flat)
        self._taken.clear()


class Launches:
    """Kernels in the order in which they are called."""

    def __init__(self) -> None:
        self.words: list[int] = []
        """As `launching.launch` takes them."""
        self.given: list[tuple[int, int, int]] = []
        """Words that are another address every time: which one, of which register of a tape, how many bytes on."""
        self.held: list[Tensor] = []
        """Whose addresses the other words are."""
        self.count = 0

    def extend(self, others: "Launches") -> None:
        """Effects: the kernels of `others` follow."""
        behind = len(self.words)
        self.words += others.words
        self.given += [(behind + word, register, offset) for word, register, offset in others.given]
        self.held += others.held
        self.count += others.count

    def player(self) -> tuple["Player", tuple[int, ...]]:
        """What runs them, given registers, and which ones."""
        registers = tuple(dict.fromkeys(register for _, register, _ in self.given))
        given = [(word, registers.index(register), offset) for word, register, offset in self.given]
        return Player(launching.array(self.words), given, self.held), registers


class Player(NamedTuple):
    """Launches, to be given the tensors whose addresses they lack."""

    words: ctypes.Array[ctypes.c_int64]
    given: list[tuple[int, int, int]]
    """Which word is the address of which tensor, and how many bytes on."""
    held: list[Tensor]

    def play(self, args: list[Any]) -> tuple[()]:
        for word, place, offset in self.given:
            self.words[word] = args[place].data_ptr() + offset
        launching.launch(self.words)
        return ()


class Watch(TorchDispatchMode):
    """Runs watched graphs, and notes what they launch."""

    def __init__(self, buffers: Buffers, registers: dict[int, Tensor]) -> None:
        super().__init__()
        self.failure: str | None = None
        """Why the launches are not all that happens."""
        self.launches = Launches()
        self.buffers = buffers
        self._registers = {_storage(tensor): (number, tensor.data_ptr()) for number, tensor in registers.items()}
        self._row_kernels: dict[Any, Callable[..., Tensor | None]] = {
            torch.ops.archspec_rows.linear.default: self._linear,
            torch.ops.archspec_rows.attend.default: self._attend,
        }

    def run(self, graph: Callable[[list[Any]], Any], args: list[Any]) -> Any:
        """`graph(args)`. Effects: those, and `launches` or `failure`."""
        token = _WATCH.set(self)
        try:
            with self:
                outs = graph(args)
        finally:
            _WATCH.reset(token)
        tensors = [out for out in outs if isinstance(out, Tensor)]
        if any(_storage(out) in self._registers for out in tensors):
            self.failure = self.failure or "it returns a view of what it is given"
        self.buffers.settle(tensors)
        return outs

    def note(self, address: int, words: Iterable[launching.Given], by_address: bool = False) -> None:
        """A kernel that is called."""
        words, launches = list(words), self.launches
        launches.count += 1
        launches.words += [address, -len(words) if by_address else len(words)]
        for word in words:
            if isinstance(word, Tensor):
                register = self._registers.get(_storage(word))
                if register is None:
                    launches.held.append(word)
                else:
                    launches.given.append((len(launches.words), register[0], word.data_ptr() - register[1]))
            launches.words.append(word.data_ptr() if isinstance(word, Tensor) else word or 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        row_kernel = self._row_kernels.get(func)
        out = row_kernel(*args) if row_kernel is not None and not kwargs else None
        if out is not None:
            return out
        out = func(*args, **(kwargs or {}))
        inputs = {_storage(arg) for arg in args if isinstance(arg, Tensor)}
        if func._schema.is_mutable or not isinstance(out, Tensor) or _storage(out) not in inputs:
            self.failure = f"it calls {func}"
        return out

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        if not (x.is_contiguous() and weight.is_contiguous() and x.dtype == weight.dtype):
            return None
        out = self.buffers.take((*x.shape[:-1], weight.shape[0]), None, x.dtype)
        return self._row_kernel("linear", launching.linear_words(x, weight, bias, out), out)

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, *rest: Any) -> Tensor | None:
        if not (q.is_contiguous() and keys.stride(3) == 1 == values.stride(3)):
            return None
        out = self.buffers.take((*q.shape[:3], values.shape[3]), None, q.dtype)
        return self._row_kernel("attend", launching.attend_words(out, q, keys, values, *rest), out)

    def _row_kernel(self, name: str, words: list[launching.Given], out: Tensor) -> Tensor:
        begin = len(self.launches.words)
        self.note(launching.address_of_row_kernel(name, out.dtype), words, by_address=True)
        launching.launch(launching.array(self.launches.words[begin:]))
        return out


class _Kernel:
    """A kernel of inductor's, whose calls can be watched."""

    def __init__(self, kernel: Callable[..., None], address: int) -> None:
        self._kernel, self._address = kernel, address

    def __call__(self, *args: Any) -> None:
        watch = _WATCH.get()
        self._kernel(*args)
        if watch is None:
            return
        if len(args) > launching.MOST_WORDS or not all(type(arg) is int or isinstance(arg, Tensor) for arg in args):
            watch.failure = "a kernel takes more, or other things, than a launch has"
            return
        watch.note(self._address, args)


def _empty(sizes: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`empty_strided_cpu` of inductor's programs."""
    watch = _WATCH.get()
    return _allocate(sizes, strides, dtype) if watch is None else watch.buffers.take(sizes, strides, dtype)


def make_watchable() -> bool:
    """Make the programs that inductor has loaded watchable; whether that can be done.

    Effects: kernels and allocations in these programs go through this module from now on.
    """
    config = torch._inductor.config
    if config.cpp_wrapper or config.cpu_backend != "cpp" or not load_rows():
        return False
    return all(map(_make_watchable, PyCodeCache.modules))


def _make_watchable(program: ModuleType) -> bool:
    held = vars(program)
    kernels = {name: value for name, value in held.items() if name.startswith("cpp_") and callable(value)}
    for name, value in kernels.items():
        address = launching.address_of_inductor_kernel(value)
        if address is not None:
            held[name] = _Kernel(value, address)
        elif not isinstance(value, _Kernel):
            return False
    if "empty_strided_cpu" in held:
        held["empty_strided_cpu"] = _empty
    return True


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Of a contiguous tensor."""
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
