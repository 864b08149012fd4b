"""The method: warm up, then rounds in which every contestant runs once, in an order that turns from round to round.

A machine that slows down, or that others use, slows all contestants of a round alike; so a ratio is that of two samples
of the same round, and the median of these is reported, with quartiles.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

SAMPLE_SECONDS = 0.4
"""A sample repeats what it measures until about this long has passed."""


@dataclass
class Trial:
    """One contestant, ready to do one workload again and again.

    A sample is `begin`, which is not timed, and then `run`, `repeats` times.
    """

    contestant: str
    begin: Callable[[], object]
    run: Callable[[], object]
    tokens: int
    """That one `run` takes in or makes, of all sequences."""
    batch: int = 1
    most: int = 1
    """Runs that have room between one `begin` and the next."""
    weight_bytes: int = 0
    cache_bytes: int = 0
    run_bytes: int | None = None
    """Bytes that one `run` has to read; None where reading is not the limit."""
    warm: Callable[[], object] | None = None
    """Compiles all that `run` needs, where `run` would take too long for that."""
    repeats: int = 1
    samples: list[float] = field(default_factory=list)
    """Seconds of each sample."""
    working_bytes: int | None = None
    """The most that was allocated while it ran, over weights and caches; None where nobody can say."""


@dataclass(frozen=True)
class Method:
    """How samples are taken. `clock` gives seconds; `sync` waits until a device has done what it was given."""

    clock: Callable[[], float]
    sync: Callable[[], object]
    peak_of: Callable[[Callable[[], object]], int | None]
    """Runs something, and gives the bytes that it allocated at its peak."""
    rounds: int = 5
    patience: float = 15.0
    """Seconds after which no further round begins."""

    def warm_up(self, trial: Trial) -> None:
        """Compile, allocate, and find out how long one run takes. Effects: sets `repeats`."""
        trial.begin()
        (trial.warm or trial.run)()
        self.sync()
        if trial.most > 1:
            trial.begin()
            trial.repeats = max(1, min(trial.most, round(SAMPLE_SECONDS / max(self._timed(trial, 1), 1e-9))))

    def sample(self, trials: Sequence[Trial]) -> None:
        """Rounds over trials that are warm. Effects: fills their `samples`, as many of each, and `working_bytes`."""
        start = self.clock()
        for idx in range(self.rounds):
            if idx and self.clock() - start > self.patience:
                break
            turn = idx % len(trials)
            for trial in (*trials[turn:], *trials[:turn]):
                trial.begin()
                if idx:
                    self._sample(trial)
                else:
                    trial.working_bytes = self.peak_of(partial(self._sample, trial))

    def _sample(self, trial: Trial) -> None:
        trial.samples.append(self._timed(trial, trial.repeats))

    def _timed(self, trial: Trial, repeats: int) -> float:
        self.sync()
        start = self.clock()
        for _ in range(repeats):
            trial.run()
        self.sync()
        return self.clock() - start


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value; quartiles by linear interpolation between the values."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def paired(rates: Sequence[float], others: Sequence[float]) -> Spread:
    """How many times faster than the other, round by round."""
    return spread([rate / other for rate, other in zip(rates, others, strict=True)])
