"""What a run is: the numbers that decide its curve, and those that only say how it is computed and watched."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from archspec.files import write_text

RUN_FILE = "train.json"
WATCHES = 10
"""Evaluations and checkpoints of a run, unless told otherwise."""


@dataclass(frozen=True)
class Settings:
    """Numbers of a run. Errors: ValueError for those that cannot be."""

    steps: int = 1000
    batch: int = 16
    """Rows of a step, of all processes and parts together."""
    context: int = 256
    """Tokens of a row that predict another."""
    lr: float = 1e-3
    """Learning rate after the warmup; a cosine leads from there to `min_lr` times as much."""
    min_lr: float = 0.1
    warmup: int | None = None
    """Steps; a twentieth of all unless told otherwise."""
    weight_decay: float = 0.1
    """Of matrices; norms and biases have none."""
    beta2: float = 0.95
    clip: float = 1.0
    """Largest norm of a gradient."""
    seed: int = 0
    """Of the weights of a spec, and of the order of rows."""
    bf16: bool = False
    """Compute in bfloat16; weights and optimizer stay in float32."""
    accumulate: int = 1
    """Parts that a process cuts its rows of a step into."""
    checkpointing: bool = False
    """Compute activations again for the gradient instead of keeping them."""
    compile: bool = True
    eval_every: int | None = None
    save_every: int | None = None
    """Steps; a tenth of all unless told otherwise, and after the last in any case."""
    log_every: int | None = None
    """Steps; one, of long runs ten, unless told otherwise."""
    eval_rows: int | None = None
    """Held-out rows of an evaluation; as many as eight steps take unless told otherwise."""
    keep: int = 2
    """Checkpoints that are kept, the newest."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "keep", "eval_every", "save_every", "log_every", "eval_rows"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"`{name}` is a number from 1 on, not {value}")
        if self.context < 2:
            raise ValueError(f"`context` is at least 2 tokens, not {self.context}")
        for name in ("lr", "clip"):
            if not 0 < (value := getattr(self, name)) < float("inf"):
                raise ValueError(f"`{name}` is a number above 0, not {value}")
        for name in ("min_lr", "weight_decay", "beta2"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"`{name}` is a number from 0 to 1, not {value}")
        if self.warmup is not None and not 0 <= self.warmup < self.steps:
            raise ValueError(f"`warmup` is from 0 on and fewer than all {self.steps} steps, not {self.warmup}")

    @property
    def warmup_steps(self) -> int:
        return self.steps // 20 if self.warmup is None else self.warmup

    @property
    def evals(self) -> int:
        """Steps from one evaluation to the next."""
        return self.eval_every or max(1, self.steps // WATCHES)

    @property
    def saves(self) -> int:
        """Steps from one checkpoint to the next."""
        return self.save_every or max(1, self.steps // WATCHES)

    @property
    def logs(self) -> int:
        """Steps from one line of the curve to the next."""
        return self.log_every or (1 if self.steps <= 1000 else 10)

    def rows_at_once(self, processes: int) -> int:
        """Rows that a process computes at once. Errors: ValueError if they cannot be shared evenly."""
        parts = processes * self.accumulate
        if self.batch % parts:
            raise ValueError(
                f"a batch of {self.batch} rows cannot be cut into {parts} equal parts "
                f"({processes} processes x accumulate {self.accumulate})"
            )
        return self.batch // parts


_DECIDING = (
    "steps", "batch", "context", "lr", "min_lr", "warmup_steps", "weight_decay", "beta2", "clip", "seed", "bf16",
    "logs",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What must be the same for a folder's run to go on."""

    spec: str
    start: str
    """Where the weights come from: `seed N`, or the digest of those that were given."""
    tokens: str
    """Digest of the stream that is trained on, and how much of it."""
    settings: dict[str, Any]

    @classmethod
    def of(cls, spec: str, start: str, tokens: str, settings: Settings) -> "Run":
        return cls(spec, start, tokens, {name: getattr(settings, name) for name in _DECIDING})

    def write(self, folder: Path) -> None:
        """Effects: makes FOLDER/train.json."""
        write_text(folder / RUN_FILE, json.dumps(asdict(self), indent=1) + "\n")

    def check_same(self, folder: Path) -> None:
        """Errors: ValueError if the folder's run is another one, with what differs."""
        try:
            found = Run(**json.loads((folder / RUN_FILE).read_text("utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder / RUN_FILE} describes no run: {error}") from error
        differing = [
            f"{what} is another"
            for what, here, there in (
                ("the spec", self.spec, found.spec),
                ("the start of the weights", self.start, found.start),
                ("the text", self.tokens, found.tokens),
            )
            if here != there
        ]
        differing += [
            f"{name} was {found.settings.get(name)} and is {value}"
            for name, value in self.settings.items()
            if found.settings.get(name) != value
        ]
        if differing:
            raise ValueError(
                f"{folder} holds another run: {'; '.join(differing)}; give the same to go on with it, or another folder"
            )


def holds_run(folder: Path) -> bool:
    """Whether a run of `archspec train` began in a folder."""
    return (folder / RUN_FILE).is_file()
