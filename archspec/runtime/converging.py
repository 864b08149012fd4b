"""Passes until the caches of an iterated model stop moving, and how far they moved in the last one.

The number of passes in a plan is a choice of its author; this measures what it costs. After n passes the first n
positions are exact, so that a sequence of T tokens needs at most T (LCKV, arXiv 2405.10637, section 2.2).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from archspec.plan import IterationGroup
from archspec.runtime.passes import Pass


@dataclass(frozen=True)
class Convergence:
    """The logits (B, T, V) after iterating, and how it ended.

    `num_passes` is the largest number over the plan's groups, 0 without any; `change` the largest change of a key or
    value of a late slot between the last two passes, zeros counting as pass 0; `converged` says that no change was
    above the tolerance, in any group, before the bound on passes was hit.
    """

    logits: Tensor
    num_passes: int
    change: float
    converged: bool


@dataclass(frozen=True)
class SettlingPass(Pass):
    """A pass in which groups iterate until late slots change by at most `tolerance`, or `max_passes` times."""

    tolerance: float = 0.0
    max_passes: int = 1
    num_passes: list[int] = field(default_factory=list)
    """By group, as they come."""
    changes: list[Tensor] = field(default_factory=list)
    """The last change of each group; scalars."""

    def iterate(self, group: IterationGroup, x_BSD: Tensor) -> Tensor:
        late = self.zeros(group, x_BSD)
        number, settled = 0, False
        while number < self.max_passes and not settled:
            before = late
            y_BSD, late = self.once(group, x_BSD, before, keep=True)
            change = torch.stack([(new - old).abs().max() for new, old in zip(late, before, strict=True)]).max()
            number, settled = number + 1, bool(change <= self.tolerance)
        self.num_passes.append(number)
        self.changes.append(change)
        return y_BSD

    def outcome(self, logits: Tensor) -> Convergence:
        """What the pass came to, given its output."""
        change = float(torch.stack(self.changes).max()) if self.changes else 0.0
        return Convergence(logits, max(self.num_passes, default=0), change, change <= self.tolerance)
