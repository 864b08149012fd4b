"""Every shipped spec is clean, and those of published models have the published sizes to the byte."""

import json
from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec.driver import analyse

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs").rglob("*.arch"))
ZOO = json.loads((ROOT / "tests" / "data" / "zoo.json").read_text())
PUBLISHED = json.loads((ROOT / "tests" / "data" / "published.json").read_text())
"""Specs that are not in the zoo: sizes as published, and the numbers of their configs."""


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_clean_and_printable(path: Path) -> None:
    analysis = analyse(path)
    assert not analysis.diagnostics
    spec = archspec.parse(path)
    assert archspec.parse_spec_text(archspec.format_spec(spec)) == spec
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_header_comment_names_the_source(path: Path) -> None:
    comment = path.read_text().split("model ")[0]
    assert comment.startswith("# ")
    assert "arXiv" in comment or path.parent.name == "nano"


@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: Path(entry["spec"]).stem)
def test_sizes_of_published_models(entry: dict[str, Any]) -> None:
    plan = archspec.plan(archspec.parse(ROOT / "specs" / entry["spec"]))
    for batch, context in ((1, 1), (1, 777), (3, 5000), (2, 1 << 20)):
        windows = sum(count * min(context, int(window)) for window, count in entry["window_terms"].items())
        elements = entry["per_token_full"] * context + windows
        states = entry["state_elems"] * 4  # recurrent states are float32
        assert plan.cache_bytes(batch, context, "bfloat16") == batch * (2 * elements + states)
    counted = plan.num_parameters()
    embeddings = 2 * plan.vocab_size * plan.hidden_size
    matrices = sum(
        shape[0] * shape[1] for name, shape in plan.parameter_shapes() if len(shape) == 2 and name.startswith("layers")
    )
    published = entry["params"]
    if isinstance(published, int):
        assert counted == published
    elif "untied_total" in published:
        assert counted == published["untied_total"]
        assert counted - embeddings == published["non_embedding"]
    else:
        assert matrices == published["matrices_without_embedding_and_norms"]


def parameters_by_config(config: dict[str, Any]) -> int:
    """Scalars of a gated dense decoder, from its config's numbers alone."""
    width, heads, kv_heads = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    head_dim, ffn = config["head_dim"], config["intermediate_size"]
    layer = 2 * width * heads * head_dim + 2 * width * kv_heads * head_dim + 3 * width * ffn
    layer += config.get("norms_per_layer", 2) * width
    layer += (heads + 2 * kv_heads) * head_dim if config.get("qkv_bias") else 0
    layer += {"none": 0, "head": 2 * head_dim, "across": (heads + kv_heads) * head_dim}[config.get("qk_norm", "none")]
    matrices = 1 if config["tie_word_embeddings"] else 2
    return config["num_hidden_layers"] * layer + matrices * config["vocab_size"] * width + width


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: Path(entry["spec"]).stem)
def test_sizes_by_published_configs(entry: dict[str, Any]) -> None:
    config, plan = entry["config"], archspec.plan(archspec.parse(ROOT / "specs" / entry["spec"]))
    assert plan.num_parameters() == entry["params"] == parameters_by_config(config)
    assert f"{entry['params']:,}" in (ROOT / "specs" / entry["spec"]).read_text().replace("\n# ", " ")
    every = config.get("full_attention_every")
    for batch, context in ((1, 1), (1, 777), (3, 5000), (2, 1 << 20)):
        positions = 0
        for number in range(1, config["num_hidden_layers"] + 1):
            windowed = "sliding_window" in config and (every is None or number % every)
            positions += min(context, config["sliding_window"]) if windowed else context
        elements = 2 * config["num_key_value_heads"] * config["head_dim"] * positions
        assert plan.cache_bytes(batch, context, "bfloat16") == batch * 2 * elements
        assert plan.cache_bytes(batch, context, "float32") == batch * 4 * elements
