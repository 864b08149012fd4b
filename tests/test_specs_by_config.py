"""Specs of published models have the sizes that follow from their configs' numbers, counted here by themselves.

`parameters` in the data is the published total where `source` names one, and the count by config elsewhere.
"""

import json
from pathlib import Path
from typing import Any

import pytest

import archspec

ROOT = Path(__file__).parents[1]
ENTRIES = json.loads((ROOT / "tests" / "data" / "published_configs.json").read_text())


def attention(config: dict[str, Any], number: int = 1) -> int:
    """Of layer `number`, counted from 1. Where `full` is given, every so many layers have heads of their own, and
    may lack the values' matrix."""
    config = of_layer(config, number)
    width, head_dim = config["width"], config["head_dim"]
    inner, kv = config["heads"] * head_dim, config["kv_heads"] * head_dim
    biases = (inner + 2 * kv) * config.get("qkv_bias", 0) + width * config.get("out_bias", 0)
    norms = 2 * head_dim * config.get("qk_norm", 0) + (inner + kv) * config.get("qk_norm_across_heads", 0)
    return 2 * width * inner + (config.get("matrices", 4) - 2) * width * kv + biases + norms


def of_layer(config: dict[str, Any], number: int) -> dict[str, Any]:
    """The config as it holds for one layer."""
    full = number % config["full_every"] == 0 if "full_every" in config else "window" not in config
    return {**config, **(config.get("full", {}) | {"window": None} if full else {})}


def cached_elements(config: dict[str, Any], context: int) -> int:
    layers = [of_layer(config, number) for number in range(1, config["layers"] + 1)]
    return sum(2 * layer["kv_heads"] * layer["head_dim"] * min(context, layer["window"] or context) for layer in layers)


def feed_forward(config: dict[str, Any], experts: int) -> int:
    """Of one layer, with so many of its experts."""
    width, moe = config["width"], config.get("moe")
    if moe is None:
        bias = config["ffn"] + width if config.get("ffn_bias") else 0
        return config["ffn_matrices"] * width * config["ffn"] + bias
    shared = 3 * width * moe.get("shared", 0) + width * moe.get("shared_gate", 0)
    return width * moe["experts"] + experts * 3 * width * moe["width"] + shared


def parameters(config: dict[str, Any], experts: int) -> int:
    width, vocab, norm = config["width"], config["vocab"], config["vectors_a_norm"] * config["width"]
    layers = sum(attention(config, number) for number in range(1, config["layers"] + 1))
    layers += config["layers"] * (feed_forward(config, experts) + config["norms_a_layer"] * norm)
    ends = vocab * width * (1 if config["tied"] else 2) + vocab * config.get("head_bias", 0) + norm
    return layers + ends + width * config.get("position_rows", 0)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: Path(entry["spec"]).stem)
def test_sizes(entry: dict[str, Any]) -> None:
    config = entry["config"]
    text = (ROOT / "specs" / entry["spec"]).read_text()
    plan = archspec.plan(archspec.parse(ROOT / "specs" / entry["spec"]))
    moe = config.get("moe", {"experts": 0, "top": 0})
    assert plan.num_parameters() == entry["parameters"] == parameters(config, moe["experts"])
    assert plan.num_active_parameters() == entry.get("active", entry["parameters"]) == parameters(config, moe["top"])
    comment = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert f"{entry['parameters']:,}" in comment
    assert "active" not in entry or f"{entry['active']:,}" in comment
    for batch, context in ((1, 1), (1, 777), (3, 1000), (2, 1 << 20)):
        if plan.max_context is not None and context > plan.max_context:
            continue
        assert plan.cache_bytes(batch, context, "bfloat16") == batch * 2 * cached_elements(config, context)
