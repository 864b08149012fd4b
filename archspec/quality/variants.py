"""The models of the table, how long they are trained, and what their papers claim. No torch."""

from dataclasses import dataclass

SPECS_FOLDER = "quality"
"""Under `specs/`."""
REFERENCE = "dense"
CONTEXT = 512
"""Tokens of a row, and of an example of recall."""


@dataclass(frozen=True)
class Variant:
    """A spec of the table."""

    name: str
    """Of the model, and of its file."""
    title: str
    papers: str
    claim: str
    """What they say of quality, after their abstracts."""


VARIANTS = (
    Variant("dense", "dense", "2302.13971", "the baseline: a Llama with one kv head"),
    Variant(
        "yoco_window",
        "YOCO, window 64",
        "2405.05254",
        "favorable performance compared to Transformer in various settings of model size and training tokens",
    ),
    Variant(
        "yoco_retention",
        "YOCO, gated retention",
        "2405.05254",
        "the same; at 3B and a context of 1M near-perfect accuracy of needle retrieval",
    ),
    Variant(
        "lckv_w2",
        "LCKV, w 2",
        "2405.10637, 2410.14442",
        "competitive in language modeling and downstream tasks; with less than half the cache, reading upper layers "
        "does better than other ways to share, for more training and a slower prefill",
    ),
    Variant("lckv_w4", "LCKV, w 4", "2405.10637, 2410.14442", "the same, with more caches"),
    Variant("cla2", "CLA2", "2405.12981", "half the cache at nearly the same accuracy as unmodified MQA, at 1B and 3B"),
    Variant(
        "block4",
        "Block Transformer, blocks of 4",
        "2406.02657",
        "10 to 20 times the throughput of vanilla transformers of equivalent perplexity (not of equal size)",
    ),
)


@dataclass(frozen=True)
class Form:
    """How much is done."""

    name: str
    steps: int
    seeds: int
    held_out_bytes: int
    recall_examples: int
    """For each number of pairs."""
    batch: int = 8
    lr: float = 2e-3
    compile: bool = True
    specs: tuple[str, ...] = tuple(variant.name for variant in VARIANTS)


FORMS = {
    form.name: form
    for form in (
        Form("full", steps=1000, seeds=3, held_out_bytes=1 << 18, recall_examples=64),
        Form("short", steps=80, seeds=1, held_out_bytes=1 << 15, recall_examples=8),
    )
}
"""`full` takes about four hours on two cores, `short` about ten minutes."""


@dataclass(frozen=True)
class Job:
    """One model to train."""

    form: Form
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.seed}"


def jobs(form: Form) -> list[Job]:
    """All of a form: every model with one seed, then with the next, so that a table that is cut off is a table."""
    return [Job(form, variant, seed) for seed in range(form.seeds) for variant in form.specs]
