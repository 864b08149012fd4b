"""What came of a job: raw numbers, one small file each, from which the page and the plot are made. No torch."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from archspec.files import write_text
from archspec.quality.variants import Job

VERSION = 1
"""Of the JSON form."""


class Part(BaseModel):
    """Base of all parts: immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Bin(Part):
    """Mean loss of the predictions from `first` to `last` tokens of context."""

    first: int
    last: int
    loss: float
    predictions: int


class Recall(Part):
    """Answers to questions about that many pairs."""

    pairs: int
    asked: int
    right: int
    loss: float

    @property
    def accuracy(self) -> float:
        return self.right / self.asked


class Point(Part):
    """Held-out loss in the middle of training."""

    step: int
    loss: float


class Result(Part):
    """A trained and evaluated model. Losses are in nats a byte."""

    version: int = VERSION
    form: str
    variant: str
    seed: int
    spec: str
    """Text of the spec that was trained."""
    parameters: int
    cache_bytes: int
    """Of one sequence at the training context, in bfloat16."""
    context: int
    steps: int
    tokens: int
    """Bytes that training predicted."""
    corpus: str
    """Digest of the stream."""
    text_bytes: int
    """Of the library, what is held out included."""
    loss: float
    bits_per_byte: float
    predictions: int
    bins: tuple[Bin, ...]
    recall: tuple[Recall, ...]
    curve: tuple[Point, ...]
    date: str
    hardware: str
    hardware_slug: str
    versions: dict[str, str]

    @property
    def losses(self) -> dict[tuple[int, int], float]:
        """By first and last position. A model of blocks predicts none of a window's first positions."""
        return {(bin.first, bin.last): bin.loss for bin in self.bins}

    @property
    def recall_accuracy(self) -> float:
        """Mean over the numbers of pairs."""
        return sum(row.accuracy for row in self.recall) / len(self.recall)


def result_file(folder: Path, job: Job) -> Path:
    """Where a job's result is kept."""
    return folder / job.form.name / f"{job.name}.json"


def write_result(folder: Path, job: Job, result: Result) -> None:
    """Effects: makes the job's file, at once."""
    path = result_file(folder, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, result.model_dump_json(indent=1) + "\n")


def read_results(folder: Path, form: str) -> list[Result]:
    """All that are in, by file name. Errors: ValueError for a file that is no result."""
    return [Result.model_validate_json(path.read_text("utf-8")) for path in sorted((folder / form).glob("*-*.json"))]
