"""How samples are taken and what becomes of them: with a clock that only turns when a run says so."""

import pytest

from archspec.bench.page import cells
from archspec.bench.report import Line, with_speeds
from archspec.bench.rounds import Method, Spread, Trial, paired, spread
from archspec.bench.workloads import Workload


class World:
    """A clock, and what happened in which order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def trial(self, name: str, seconds: float, **kwargs: object) -> Trial:
        def run() -> None:
            self.log.append(f"run {name}")
            self.now += seconds

        def begin() -> None:
            self.log.append(f"begin {name}")
            self.now += 100.0  # not timed

        return Trial(name, begin=begin, run=run, tokens=2, **kwargs)  # type: ignore[arg-type]

    def method(self, rounds: int = 3, patience: float = 1e9) -> Method:
        return Method(lambda: self.now, lambda: None, lambda call: (call(), 77)[1], rounds, patience)


def test_rounds_interleave_and_take_turns() -> None:
    world = World()
    trials = [world.trial(name, 1.0) for name in "abc"]
    world.method().sample(trials)
    runs = [entry[-1] for entry in world.log if entry.startswith("run")]
    assert runs == list("abc" + "bca" + "cab")
    assert world.log[0::2] == [entry.replace("run", "begin") for entry in world.log[1::2]]


def test_only_runs_are_timed_and_repeated_ones_are_divided() -> None:
    world = World()
    trial = world.trial("a", 0.1, most=16)
    world.method().warm_up(trial)
    assert trial.repeats == 4  # of 0.1 seconds each, for 0.4
    world.method().sample([trial])
    assert trial.samples == pytest.approx([0.4] * 3)
    assert trial.working_bytes == 77


@pytest.mark.parametrize(("seconds", "most", "repeats"), [(1e-6, 16, 16), (5.0, 16, 1), (0.0, 3, 3), (0.2, 16, 2)])
def test_repeats_stay_within_what_has_room(seconds: float, most: int, repeats: int) -> None:
    world = World()
    trial = world.trial("a", seconds, most=most)
    world.method().warm_up(trial)
    assert trial.repeats == repeats


def test_what_is_too_long_to_warm_up_is_not_run() -> None:
    world = World()
    trial = world.trial("a", 1000.0)
    trial.warm = lambda: world.log.append("warm a")
    world.method().warm_up(trial)
    assert world.log == ["begin a", "warm a"]


def test_patience_ends_after_a_whole_round() -> None:
    world = World()
    trials = [world.trial("a", 30.0), world.trial("b", 10.0)]
    world.method(rounds=9, patience=300.0).sample(trials)
    assert [len(trial.samples) for trial in trials] == [2, 2]


def test_spread() -> None:
    assert spread([3.0]) == Spread(3.0, 3.0, 3.0)
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    # A round in which the machine was half as fast changes no ratio.
    assert paired([2.0, 1.0, 4.0], [1.0, 0.5, 2.0]) == Spread(2.0, 2.0, 2.0)


def line(model: str, rates: tuple[float, ...], what: str = "w") -> Line:
    return Line(
        workload=Workload("decode"),
        what=what,
        model=model,
        batch=1,
        rates=rates,
        tokens_per_second=spread(rates),
    )


def test_speeds_are_against_the_reference_at_the_same_workload() -> None:
    lines = [line("a", (1.0, 2.0)), line("b", (3.0, 6.0)), line("b", (5.0,), "only b"), line("c", (4.0, 4.0, 8.0))]
    speeds = [one.speed for one in with_speeds(lines, "a")]
    assert speeds[0] == Spread(1.0, 1.0, 1.0)
    assert speeds[1] == Spread(3.0, 3.0, 3.0)
    assert speeds[2] is None
    assert speeds[3] == spread([4.0 / 1.5, 4.0 / 1.5, 8.0 / 1.5])  # another number of rounds: against the median


def test_a_first_token_has_its_seconds_beside_its_speed() -> None:
    first = line("a", (0.25,)).model_copy(update={"workload": Workload("compile")})
    lines = with_speeds([first, line("b", (2.0,))], "a")
    assert [cells(one)[3] for one in lines] == ["1.00 (4.0 s)", "8.00"]
