"""What a sweep can measure of a plan. All are integers, and less is better."""

from collections.abc import Callable
from dataclasses import dataclass

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import DTYPE_BYTES, Plan


@dataclass(frozen=True)
class Workload:
    """What the bytes are counted for."""

    batch: int = 1
    context: int = 4096
    dtype: str = "bfloat16"


@dataclass(frozen=True)
class Metric:
    """A number of a plan under a workload, and what it means."""

    measure: Callable[[AnyPlan, Workload], int]
    meaning: str
    is_bytes: bool = False


def _cache_bytes(plan: AnyPlan, workload: Workload) -> int:
    return plan.cache_bytes(workload.batch, workload.context, workload.dtype)


def _weight_bytes(plan: AnyPlan, workload: Workload) -> int:
    return plan.num_parameters() * DTYPE_BYTES[workload.dtype]


def _total_bytes(plan: AnyPlan, workload: Workload) -> int:
    return _cache_bytes(plan, workload) + _weight_bytes(plan, workload)


def _prefill_runs(plan: AnyPlan, workload: Workload) -> int:
    """Layer runs of a prefill: passes count, and layers behind the exit run for one position."""
    if isinstance(plan, LevelsPlan):
        return _stack_runs(plan.blocks, plan.num_blocks(workload.context)) * workload.batch
    return _stack_runs(plan, workload.context) * workload.batch


def _stack_runs(plan: Plan, positions: int) -> int:
    runs, rows = 0, positions
    for step in plan.prefill_steps():
        if step.op == "last":
            rows = 1
        elif step.op == "layer":
            runs += rows
        elif step.op == "iterate":
            group = plan.groups[step.idx]
            runs += rows * group.num_passes * sum(inner.op == "layer" for inner in group.steps)
    return runs


METRICS: dict[str, Metric] = {
    "cache_bytes": Metric(_cache_bytes, "bytes of caches and states", is_bytes=True),
    "parameters": Metric(lambda plan, _: plan.num_parameters(), "number of parameters"),
    "weight_bytes": Metric(_weight_bytes, "bytes of weights", is_bytes=True),
    "total_bytes": Metric(_total_bytes, "bytes of weights and caches", is_bytes=True),
    "prefill_runs": Metric(_prefill_runs, "runs of layers, one a position and pass, that a prefill takes"),
}
