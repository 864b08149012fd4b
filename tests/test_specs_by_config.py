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


def attention(config: dict[str, Any]) -> int:
    width, head_dim = config["width"], config["head_dim"]
    inner, kv = config["heads"] * head_dim, config["kv_heads"] * head_dim
    biases = (inner + 2 * kv) * config.get("qkv_bias", 0) + width * config.get("out_bias", 0)
    return 2 * width * (inner + kv) + biases + 2 * head_dim * config.get("qk_norm", 0)


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
    layer = attention(config) + feed_forward(config, experts) + config["norms_a_layer"] * norm
    ends = vocab * width * (1 if config["tied"] else 2) + vocab * config.get("head_bias", 0) + norm
    return config["layers"] * layer + ends + width * config.get("position_rows", 0)


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
        elements = 2 * config["layers"] * config["kv_heads"] * config["head_dim"]
        tokens = min(context, config.get("window", context))
        assert plan.cache_bytes(batch, context, "bfloat16") == batch * 2 * elements * tokens
