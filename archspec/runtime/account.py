"""What `torch.compile` makes of a model, by dynamo's own account: units, graphs, guards, recompilations, time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._dynamo.utils import clear_compilation_metrics, counters, get_compilation_metrics

from archspec.runtime.build import AnyModel
from archspec.runtime.compiling import Caller
from archspec.runtime.decode_tapes import DecodeTapes
from archspec.runtime.explaining import Explained, explain
from archspec.runtime.levels import LevelsModel
from archspec.runtime.network import Network

BATCH = 2
PROMPTS = (24, 40)
"""Lengths of the prompts, in tokens or blocks: what changes between them must not compile anything anew."""
DECODED = 3
ROOM = 200
"""Positions of the caches besides; the view of a slot takes two lengths."""


@dataclass
class Compiled:
    """What calls of a unit, with modules of one kind, made dynamo do in one phase."""

    phase: str
    unit: str
    served: list[str] = field(default_factory=list)
    """Names of the layers and caches."""
    graphs: int = 0
    breaks: int = 0
    operations: int = 0
    guards: int = 0
    seconds: float = 0.0
    recompiles: list[str] = field(default_factory=list)
    """Reasons."""


@dataclass(frozen=True)
class Tape:
    """What a stack plays a decode step from."""

    stack: str
    calls: int
    launches: int
    """Kernels that the calls launch."""
    unwatched: tuple[str, ...]
    """Why compiled graphs are called as they are instead."""


@dataclass(frozen=True)
class Account:
    """Of a prefill, decode steps and, if asked for, a training step, in a process that had compiled nothing."""

    backends: tuple[Explained, ...]
    """Of all layers with a mixer, and why; with two levels those of blocks first."""
    rows: tuple[Compiled, ...]
    tapes: tuple[Tape, ...]
    """Of stacks on a CPU."""
    cache_hits: int
    """Graphs whose code came from inductor's cache on disk."""
    cache_misses: int

    @property
    def graphs(self) -> int:
        return sum(row.graphs for row in self.rows)


class Accountant(Caller):
    """Compiles units, and notes what that took."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(compile=True)
        self.phase = ""
        self.rows: dict[object, Compiled] = {}
        self._names = dict(_names(model))

    def __call__(self, unit: Callable[..., Any], kind: object, *args: Any) -> Any:
        names = [self._names[arg] for arg in args if isinstance(arg, nn.Module) and arg in self._names]
        # Two stacks have the same kinds of ends.
        stack = names[-1].rpartition(" ")[0] if names else ""
        row = self.rows.setdefault((self.phase, unit, kind, stack), Compiled(self.phase, unit.__name__))
        row.served += [name for name in names[-1:] if name not in row.served]
        with noted(row):
            return super().__call__(unit, kind, *args)


@contextmanager
def noted(row: Compiled) -> Iterator[None]:
    """Add what dynamo does meanwhile. Effects: clears its metrics."""
    clear_compilation_metrics()
    graphs, breaks = _count()
    yield
    after = _count()
    row.graphs += after[0] - graphs
    row.breaks += after[1] - breaks
    for metrics in get_compilation_metrics():
        row.guards += metrics.guard_count or 0
        row.operations += metrics.graph_op_count or 0
        row.seconds += (metrics.duration_us or 0) / 1e6
        if metrics.recompile_reason:
            row.recompiles.append(metrics.recompile_reason)


def _count() -> tuple[int, int]:
    """Graphs and graph breaks so far."""
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def _names(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Layers, projections of caches and stacks, by names that a person knows."""
    for path, stack in model.named_modules():
        if not isinstance(stack, Network):
            continue
        prefix = f"{path} " if path else ""
        yield stack, f"{prefix}ends"
        yield from ((block, f"{prefix}{idx}") for idx, block in enumerate(stack.layers, start=1))
        for slot, (_, project) in zip(stack.plan.slots, stack.writers, strict=True):
            yield project, f"{prefix}{slot.name}"


def account(model: AnyModel, training: bool = False) -> Account:
    """Run a model that compiles, and say what was compiled.

    Effects: resets dynamo; the model goes on with what was compiled.
    """
    torch._dynamo.reset()
    counters.clear()
    accountant = Accountant(model)
    stacks = [module for module in model.modules() if isinstance(module, Network)]
    for stack in stacks:
        stack.call = accountant
    _generate(model, accountant)
    if training:
        _train(model, accountant)
    inductor = counters["inductor"]
    return Account(
        tuple(explained for stack in stacks for explained in _explained(model, stack)),
        tuple(accountant.rows.values()),
        tuple(_tapes(model)),
        inductor["fxgraph_cache_hit"],
        inductor["fxgraph_cache_miss"],
    )


def _tapes(model: AnyModel) -> Iterator[Tape]:
    for path, module in model.named_modules():
        kept = module.kept_steps if isinstance(module, Network) else None
        if isinstance(kept, DecodeTapes) and kept.latest is not None:
            tape = kept.latest
            yield Tape(path, len(tape.calls), tape.num_launches, tape.unwatched)


def _explained(model: AnyModel, stack: Network) -> Iterator[Explained]:
    level = next(path for path, module in model.named_modules() if module is stack)
    return (explained._replace(stack=level) for explained in explain(stack))


def _generate(model: AnyModel, accountant: Accountant) -> None:
    length = model.plan.block_length if isinstance(model, LevelsModel) else 1
    for number, prompt in enumerate(PROMPTS):
        context = prompt + (ROOM if number else DECODED)
        if model.plan.max_context is not None:
            context = min(context, model.plan.max_context)
        ids = _ids(model, min(prompt, context - DECODED) * length)
        cache = model.new_cache(BATCH, context * length)
        accountant.phase = "prefill"
        model.prefill(ids, cache)  # type: ignore[arg-type]
        accountant.phase = "decode"
        for _ in range(DECODED * length):
            model.decode(ids[:, 0].clone(), cache)  # type: ignore[arg-type]


def _train(model: AnyModel, accountant: Accountant) -> None:
    accountant.phase = "training"
    length = model.plan.block_length if isinstance(model, LevelsModel) else 1
    backward = accountant.rows.setdefault("backward", Compiled("training", "all, backward"))
    for prompt in PROMPTS:
        loss = model.loss(_ids(model, prompt * length))
        with noted(backward):
            loss.backward()
    model.zero_grad()


def _ids(model: AnyModel, num_tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.plan.vocab_size, (BATCH, num_tokens), generator=generator).to(model.device)
