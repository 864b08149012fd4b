"""The fixed sets of workloads: what `make bench` and `make bench-gpu` run. No torch.

Sizes are chosen so that `cpu` ends within 15 minutes on two cores, `gpu` within 10 on one H100.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from archspec.bench.workloads import Kind, Workload

Dtype = Literal["float32", "bfloat16"]
K = 1024
BUDGET = 302_000_000
"""Bytes: two sequences of 2048 tokens of the dense 110M model in float32."""


@dataclass(frozen=True)
class Part:
    """One section: specs by their path under `specs/`, and what they do."""

    title: str
    specs: tuple[str, ...]
    workloads: tuple[Workload, ...]
    peers: bool = False
    packages: bool = False
    baselines: bool = False
    alone: bool = False
    reference: str | None = None


def _grid(
    kind: Kind, batches: Sequence[int], contexts: Sequence[int], dtypes: Sequence[Dtype] = ("float32",)
) -> tuple[Workload, ...]:
    return tuple(Workload(kind, d, b, c) for d in dtypes for c in contexts for b in batches)


def _within(budget: int, context: int, dtype: Dtype = "float32") -> tuple[Workload, ...]:
    return (Workload("budget", dtype, 1, context, budget),)


_DENSE, _YOCO, _BLOCK = "bench/llama_110m", "bench/yoco_110m", "bench/block_110m"
_LCKV_2, _LCKV_0 = "bench/lckv_110m_w2", "bench/lckv_110m_w0"

CPU = (
    Part(
        "Decoding beside transformers",
        (_DENSE,),
        _grid("decode", (1, 8), (512, 4000)),
        peers=True,
        packages=True,
        reference="llama_110m in transformers",
    ),
    Part(
        "Decoding beside transformers in bfloat16",
        (_DENSE,),
        _grid("decode", (1, 8), (512, 4000), ("bfloat16",)),
        peers=True,
        reference="llama_110m in transformers",
    ),
    Part(
        "Sharing beside the dense model: decoding",
        (_DENSE, _YOCO, _BLOCK, _LCKV_2),
        _grid("decode", (8,), (2 * K, 8 * K)),
    ),
    Part(
        "Sharing beside the dense model: equal cache bytes",
        (_DENSE, _YOCO, _BLOCK, _LCKV_2, _LCKV_0),
        _within(BUDGET, 2 * K),
    ),
    Part(
        "Gated retention beside windows",
        (_YOCO, "bench/yoco_110m_retention"),
        (*_grid("prefill", (1,), (8 * K,)), *_grid("decode", (8,), (8 * K,))),
    ),
    Part(
        "Training step beside transformers",
        (_DENSE,),
        _grid("train", (1,), (512,)),
        peers=True,
        reference="llama_110m in transformers",
    ),
    Part("Compile time and depth", (_DENSE, "bench/llama_195m"), _grid("compile", (1,), (512,))),
    Part(
        "Sharing beside the dense model: prefill",
        (_DENSE, _YOCO, _BLOCK),
        _grid("prefill", (1,), (2 * K, 8 * K, 32 * K)),
    ),
)

GPU = (
    Part(
        "YOCO 3B beside a dense 3B",
        ("yoco/transformer_3b_gqa", "yoco/yoco_3b_window", "yoco/yoco_3b"),
        (
            *_grid("prefill", (1,), (32 * K, 64 * K, 128 * K), ("bfloat16",)),
            *_grid("decode", (1,), (32 * K, 128 * K, 256 * K, 512 * K, 1024 * K), ("bfloat16",)),
        ),
        alone=True,
    ),
    Part(
        "Block Transformer 85M at its largest batch",
        ("block/block_main_b4_85",),
        (*_within(40_000_000_000, 2 * K, "bfloat16"), *_within(40_000_000_000, 8 * K, "bfloat16")),
        baselines=True,
        alone=True,
    ),
    Part(
        "LCKV 7B at its largest batch",
        ("llama/llama_2_7b", "bench/llama_7b_lckv_w2"),
        _within(40_000_000_000, 4 * K, "bfloat16"),
        alone=True,
    ),
    Part(
        "Decoding beside transformers",
        (_DENSE,),
        _grid("decode", (1, 32), (4000,), ("bfloat16",)),
        peers=True,
        reference="llama_110m in transformers",
    ),
)

SUITES: dict[str, tuple[Part, ...]] = {"cpu": CPU, "gpu": GPU}

_NANO = {"block": "nano/nano_block", "lckv": "nano/nano_lckv", "yoco": "nano/nano_yoco"}
TINY_CONTEXT, TINY_BATCH = 32, 2


def tiny(part: Part) -> Part:
    """The same with specs and sizes that end in seconds, to try a suite out; what it finds means nothing."""
    specs = tuple(dict.fromkeys(_nano(name) for name in part.specs))
    loads = (
        replace(
            load,
            dtype="float32",
            batch=min(load.batch, TINY_BATCH),
            context=min(load.context, TINY_CONTEXT),
            budget=None if load.budget is None else min(load.budget, 1 << 20),
        )
        for load in part.workloads
        if load.kind != "compile"
    )
    reference = None if part.reference is None else part.reference.replace("llama_110m", "nano_llama")
    return replace(part, specs=specs, workloads=tuple(dict.fromkeys(loads)), reference=reference, packages=False)


def _nano(name: str) -> str:
    stem = name.rpartition("/")[2]
    return next((nano for word, nano in _NANO.items() if word in stem), "nano/nano_llama")


def specs_folder() -> Path:
    """Where the specs of suites are: `specs` here, or in the clone that archspec is run from.

    Errors: FileNotFoundError where neither is, as in an installation without a clone.
    """
    for folder in (Path("specs"), Path(__file__).parents[2] / "specs"):
        if (folder / "bench").is_dir():
            return folder
    raise FileNotFoundError("suites measure the specs of a clone of archspec, in `specs/bench`: run them in one")
