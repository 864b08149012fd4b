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
