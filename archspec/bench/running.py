"""A section of a run: models are built, warmed up and sampled side by side, workload by workload."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

import torch

from archspec.bench.contestants import Compiled, Contestant
from archspec.bench.first_token import cold_and_warm
from archspec.bench.machine import synchronize
from archspec.bench.packaged import Packaged, offered, packaged_name
from archspec.bench.peaks import peak_bytes
from archspec.bench.peers import Transformers, llama_config, peer_name
from archspec.bench.report import Left, Line, Measured, Section, with_speeds
from archspec.bench.rounds import Method, Trial, spread
from archspec.bench.workloads import Entry, Workload
from archspec.units import format_bytes

SLACK = 0.9
"""Share of the free memory that caches may take."""


@dataclass(frozen=True)
class Setting:
    """Where and how."""

    device: torch.device
    method: Method
    compile: bool = True
    free_memory: Callable[[], int | None] = lambda: None
    notify: Callable[[str], object] = lambda _: None
    """Told what is going on."""


def method_for(device: torch.device, rounds: int) -> Method:
    """Real time on a device."""
    return Method(
        clock=time.perf_counter,
        sync=lambda: synchronize(device),
        peak_of=lambda call: peak_bytes(device, call),
        rounds=rounds,
    )


@dataclass(frozen=True)
class Comparison:
    """Models and workloads of one section. Peers are those of the entries that transformers has.

    `packages`: every entry runs as an ahead-of-time package too.
    `alone`: models are measured one after the other instead of side by side, so that each has all of the memory.
    """

    title: str
    entries: tuple[Entry, ...]
    workloads: tuple[Workload, ...]
    peers: bool = False
    packages: bool = False
    alone: bool = False
    reference: str | None = None
    """The name of a model; the first entry unless given."""

    def contestants(self) -> list[tuple[str, Entry]]:
        """Every name in the order of measuring, with the entry it belongs to."""
        names = [(entry.name, entry) for entry in self.entries]
        if self.packages:
            names += [(packaged_name(entry.name), entry) for entry in self.entries]
        if self.peers:
            llamas = [entry for entry in self.entries if llama_config(entry.plan) is not None]
            names += [(peer_name(entry.name, static), entry) for entry in llamas for static in (False, True)]
        return names


@dataclass
class _Found:
    """Results while they come in."""

    lines: list[Line] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    @contextmanager
    def noting(self, workload: Workload, model: str) -> Iterator[None]:
        """Notes what cannot be measured, and goes on."""
        try:
            yield
        except (RuntimeError, MemoryError, ValueError, NotImplementedError) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            self.left.append(Left(workload=workload, model=model, why=reason))


class Pool:
    """Models that are built once, with all that they have compiled, and stay for the next section."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._made: dict[tuple[Entry, str], Compiled] = {}
        self._packages: dict[tuple[Entry, str], Packaged] = {}
        self._peers: dict[tuple[Entry, str], list[Transformers]] = {}

    def contestants(
        self, comparison: Comparison, dtype: str, workloads: Sequence[Workload], found: _Found
    ) -> list[Contestant]:
        """Those of a comparison in one dtype. One that cannot be built is noted for the first workload."""
        ready: list[Contestant] = []
        for entry in comparison.entries:
            with found.noting(workloads[0], entry.name):
                ready.append(own := self._own(entry, dtype))
                if comparison.packages and any(map(offered, workloads)):
                    with found.noting(workloads[0], packaged_name(entry.name)):
                        ready.append(self._packaged(entry, own))
                if comparison.peers and llama_config(entry.plan) is not None:
                    peers = self._peers.setdefault((entry, dtype), [])
                    peers += [Transformers(own, static=static) for static in (False, True)][len(peers) :]
                    ready += peers
        return ready

    def _own(self, entry: Entry, dtype: str) -> Compiled:
        key, setting = (entry, dtype), self._setting
        if key not in self._made:
            setting.notify(f"building {entry.name}, {dtype}")
            where = str(setting.device)
            self._made[key] = Compiled(entry.name, entry.plan, device=where, dtype=dtype, compile=setting.compile)
        return self._made[key]

    def _packaged(self, entry: Entry, own: Compiled) -> Packaged:
        key = (entry, own.dtype)
        if key not in self._packages:
            self._setting.notify(f"packaging {entry.name}, {own.dtype}")
            self._packages[key] = Packaged(own)
        return self._packages[key]

    def clear(self) -> None:
        """Give all of it back."""
        self._packages.clear()
        self._made.clear()
        self._peers.clear()
        _tidy(self._setting.device)


def run_section(comparison: Comparison, setting: Setting, pool: Pool) -> Section:
    """Measure everything. What fails for one model is noted, and the others go on."""
    found = _Found()
    here = [workload for workload in comparison.workloads if workload.kind != "compile"]
    for (dtype, trains), group in groupby(here, key=lambda workload: (workload.dtype, workload.kind == "train")):
        workloads = list(group)
        # A training step wants models that have served nothing, whose weights are as they were made.
        models = Pool(setting) if trains else pool
        contestants = models.contestants(comparison, dtype, workloads, found)
        for workload in workloads:
            _measure(contestants, workload, comparison.alone, found, setting)
        if models is not pool or comparison.alone:
            contestants.clear()
            models.clear()
    for workload in comparison.workloads:
        if workload.kind == "compile":
            setting.notify(str(workload))
            _measure_compiling(comparison, workload, found, setting)
    reference = comparison.reference or comparison.entries[0].name
    order = [name for name, _ in comparison.contestants()]
    lines = sorted(with_speeds(found.lines, reference), key=lambda line: _place(line, comparison, order))
    return Section(
        title=comparison.title,
        reference=reference,
        models=tuple(_measured(name, entry) for name, entry in comparison.contestants()),
        lines=tuple(lines),
        left=tuple(found.left),
    )


def _place(line: Line, comparison: Comparison, order: list[str]) -> tuple[int, str, int]:
    return comparison.workloads.index(line.workload), line.what, order.index(line.model)


def _measured(name: str, entry: Entry) -> Measured:
    role = entry.role if name == entry.name else "package" if name == packaged_name(entry.name) else "peer"
    return Measured(name=name, role=role, parameters=entry.plan.num_parameters())


def _measure(
    contestants: Sequence[Contestant], workload: Workload, alone: bool, found: _Found, setting: Setting
) -> None:
    """One workload by all who offer it."""
    offering = [contestant for contestant in contestants if contestant.offers(workload)]
    for group in [[one] for one in offering] if alone else [offering]:
        trials: list[Trial] = []
        for contestant in group:
            with found.noting(workload, contestant.name):
                setting.notify(f"{workload}: {contestant.name}")
                trials.append(_warm(contestant, workload, setting))
        if trials:
            setting.notify(f"{workload}: {len(trials)} side by side" if not alone else str(workload))
            with found.noting(workload, ", ".join(trial.contestant for trial in trials)):
                setting.method.sample(trials)
                found.lines += [_line(trial, workload) for trial in trials]
        trials.clear()
        _tidy(setting.device)


def _warm(contestant: Contestant, workload: Workload, setting: Setting) -> Trial:
    """A trial that is ready. Errors: RuntimeError where it does not fit."""
    batch = workload.batch_of(contestant.plan)
    needed = contestant.plan.cache_bytes(max(batch, 1), workload.context, workload.dtype)
    if not batch:
        raise RuntimeError(f"one sequence has caches of {format_bytes(needed)}")
    free = setting.free_memory()
    if free is not None and needed > SLACK * free:
        raise RuntimeError(f"caches of {format_bytes(needed)} do not fit the {format_bytes(free)} that are free")
    trial = contestant.trial(workload, batch)
    setting.method.warm_up(trial)
    return trial


def _line(trial: Trial, workload: Workload) -> Line:
    rates = tuple(trial.tokens * trial.repeats / seconds for seconds in trial.samples)
    standing = trial.weight_bytes + trial.cache_bytes
    return Line(
        workload=workload,
        what=str(workload),
        model=trial.contestant,
        batch=trial.batch,
        rates=rates,
        tokens_per_second=spread(rates),
        bytes_per_step=None if trial.run_bytes is None else trial.run_bytes * trial.batch // trial.tokens,
        weight_bytes=trial.weight_bytes,
        cache_bytes=trial.cache_bytes,
        peak_bytes=None if trial.working_bytes is None else standing + trial.working_bytes,
    )


def _measure_compiling(comparison: Comparison, workload: Workload, found: _Found, setting: Setting) -> None:
    """The first token of new processes, one model after the other."""
    for entry in comparison.entries:
        setting.notify(f"{workload}: {entry.name}")
        with found.noting(workload, entry.name):
            times = cold_and_warm(
                entry.spec,
                device=str(setting.device),
                dtype=workload.dtype,
                batch=workload.batch,
                threads=torch.get_num_threads(),
            )
            for word, seconds in zip(("cold", "warm"), times, strict=True):
                found.lines.append(_first_token(entry, workload, word, seconds))


def _first_token(entry: Entry, workload: Workload, word: str, seconds: float) -> Line:
    rates = (workload.batch / seconds,)
    what = f"{workload}, {word}"
    return Line(
        workload=workload,
        what=what,
        model=entry.name,
        batch=workload.batch,
        rates=rates,
        tokens_per_second=spread(rates),
    )


def _tidy(device: torch.device) -> None:
    """Give memory back, so that the next trial starts as the first did."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
