"""Calls of attention of every structure that passes make, and what must come out, by loops over the definition."""

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from archspec.runtime.attention import Scoring, Sight, Visibility

HEADS, DIM = 4, 16


@dataclass(frozen=True)
class Case:
    """Keys as a pass has them, and who looks at them."""

    name: str
    q: tuple[int, ...]
    k: tuple[int, ...]
    window: int | None = None
    sinks: int = 0
    front: int | None = None
    stored_sinks: int = 0
    line: bool = False
    ring: int | None = None
    tail: bool = False
    late: bool = False
    pads: tuple[int, ...] | None = None
    softcap: float | None = None
    sink_logits: bool = False
    kv_heads: int = 2
    turned_apart: bool = False

    def __str__(self) -> str:
        words = [self.name, f"kv{self.kv_heads}"]
        words += [word for word in ("late", "pads", "softcap", "sink_logits", "turned_apart") if getattr(self, word)]
        return "-".join(words)


def run(*bounds: int) -> tuple[int, ...]:
    return tuple(range(*bounds))


STRUCTURES = [
    Case("start", run(7), run(7), front=0),
    Case("start-window", run(9), run(9), front=0, window=3),
    Case("start-window-of-1", run(5), run(5), front=0, window=1),
    Case("start-sinks", run(9), run(9), front=0, window=3, sinks=2),
    Case("first-row", (0,), (0,), front=0),
    Case("chunk", run(5, 9), run(9), line=True),
    Case("chunk-behind-others", run(5, 9), run(9), line=True, tail=True),
    Case("chunk-window", run(5, 9), run(9), line=True, window=4),
    Case("row", (5,), (*run(6), -1, -1), line=True),
    Case("row-window", (5,), (*run(6), -1, -1), line=True, window=3),
    Case("row-sinks", (5,), (*run(6), -1, -1), line=True, window=3, sinks=1),
    Case("near", run(5, 9), run(2, 9), front=3, window=4),
    Case("near-narrower", run(5, 9), run(2, 9), front=3, window=2),
    Case("near-empty", run(2, 5), (-1, 0, 1, 2, 3, 4), front=3, window=4),
    Case("near-sinks", run(5, 9), (0, 1, *run(2, 9)), front=3, stored_sinks=2, window=4, sinks=2),
    Case("ring", (9,), (8, 9, 6, 7), window=4, ring=4),
    Case("ring-not-full", (2,), (0, 1, 2, -1), window=4, ring=4),
    Case("ring-sinks", (9,), (0, 1, 8, 9, 6, 7), window=4, sinks=2, ring=6),
    Case("ring-narrower", (9,), (8, 9, 6, 7), window=2, ring=4),
]
PADS = (0, 3)


def cases() -> list[Case]:
    """Every structure with every other property that it can have."""
    found = []
    for case, late, pads, softcap, logits, kv_heads in product(
        STRUCTURES, (False, True), (None, PADS), (None, 2.0), (False, True), (1, 2, 4)
    ):
        # Heads are apart from all else: other numbers of them are tried with one of the properties, or none.
        if kv_heads != 2 and late + (pads is not None) + (softcap is not None) + logits > 1:
            continue
        if pads is not None and case.sinks:  # refused: see `refuse_padded_sinks`
            continue
        changed = replace(case, late=late, pads=pads, softcap=softcap, sink_logits=logits, kv_heads=kv_heads)
        found.append(changed)
        if case.sinks and kv_heads == 2:
            found.append(replace(changed, turned_apart=True))
    return found


@dataclass
class Given:
    q: Tensor
    keys: Tensor
    values: Tensor
    visibility: Visibility
    scoring: Scoring

    def args(self) -> tuple[Tensor, Tensor, Tensor, Visibility, Scoring]:
        return self.q, self.keys, self.values, self.visibility, self.scoring


def given(case: Case, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Given:
    """Random queries, keys and values; keys and values lie in memory as slots do."""
    generator = torch.Generator().manual_seed(1)
    width = DIM * (2 if case.turned_apart else 1)
    q = torch.randn(2, HEADS, len(case.q), width, generator=generator)
    slot = torch.randn(2, case.kv_heads, 2, len(case.k), DIM, generator=generator)
    logits = torch.tensor([-30.0, -1.0, 0.5, 3.0], device=device) if case.sink_logits else None
    keys, values = slot.to(device, dtype).unbind(2)
    pads = None if case.pads is None else torch.tensor(case.pads, device=device)
    visibility = Visibility(
        torch.tensor(case.q, device=device), torch.tensor(case.k, device=device),
        Sight(case.window, case.sinks, not case.late), pads, case.front, case.stored_sinks, case.line, case.ring, case.tail,
    )  # fmt: skip
    return Given(q.to(device, dtype), keys, values, visibility, Scoring(0.3, case.softcap, logits))


def seen(case: Case, row: int, at: int) -> list[int]:
    """Places of the keys that a query at position `at` sees."""
    pad = 0 if case.pads is None else case.pads[row]

    def is_seen(place: int) -> bool:
        reached = place < at or (place == at and not case.late)
        near = case.window is None or at - place < case.window or place < case.sinks
        return place >= max(pad, 0) and reached and near

    return [t for t, place in enumerate(case.k) if is_seen(place)]


def expected(case: Case, inputs: Given) -> tuple[Tensor, Tensor]:
    """Outputs in float64, one query of one head at a time, and whether a query sees anything, (B, S)."""
    q, keys, values = (x.cpu().double() for x in (inputs.q, inputs.keys, inputs.values))
    out = torch.zeros(2, HEADS, len(case.q), DIM, dtype=torch.float64)
    sees = torch.zeros(2, len(case.q), dtype=torch.bool)
    for b, (s, at) in product(range(2), enumerate(case.q)):
        places = seen(case, b, at)
        sees[b, s] = bool(places)
        for n in range(HEADS) if places else ():
            total, sums = 0.0, torch.zeros(DIM, dtype=torch.float64)
            for t in places:
                kv = n // (HEADS // case.kv_heads)
                is_sink = case.turned_apart and case.k[t] < case.sinks
                vector = q[b, n, s, DIM:] if is_sink else q[b, n, s, :DIM]
                score = inputs.scoring.scale * (vector @ keys[b, kv, t])
                if case.softcap is not None:
                    score = case.softcap * torch.tanh(score / case.softcap)
                total = total + score.exp()
                sums = sums + score.exp() * values[b, kv, t]
            if inputs.scoring.sink_logits is not None:
                total = total + inputs.scoring.sink_logits[n].cpu().double().exp()
            out[b, n, s] = sums / total
    return out, sees


def assert_as_defined(case: Case, inputs: Given, found: Tensor, tolerance: float) -> None:
    """Equal where a query sees anything; finite elsewhere."""
    wanted, sees = expected(case, inputs)
    assert found.shape == wanted.shape
    assert found.dtype == inputs.q.dtype
    assert bool(found.isfinite().all())
    sees_B1S1 = sees[:, None, :, None]
    torch.testing.assert_close(
        found.detach().cpu().double() * sees_B1S1, wanted * sees_B1S1, atol=tolerance, rtol=tolerance
    )
