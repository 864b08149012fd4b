"""Block Transformer checkpoints: what the importer reads, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import archspec
import archspec.spec.model
from archspec.convert import ImportRefused, import_checkpoint, write_imported
from archspec.convert.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden" / "block_b4_prefix2"
CONFIG = json.loads((GOLDEN / "config.json").read_text())


def changed(**paths):
    """The golden config with other values: `embedder__cls="roberta"`; None takes a field out."""
    config = json.loads(json.dumps(CONFIG))
    for path, value in paths.items():
        *parents, key = path.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        if value is None:
            place.pop(key)
        else:
            place[key] = value
    return config


def imported(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "weights.safetensors").symlink_to(GOLDEN / "weights.safetensors")
    return import_checkpoint(folder)


def test_the_spec_is_one_that_a_person_can_read():
    assert (
        import_checkpoint(GOLDEN).text
        == """\
# Imported from a checkpoint of Block Transformer (itsnamgyu/block-transformer).
model block_b4_prefix2 {
  vocab 131, ffn gelu(256), norm layernorm(1e-5), rope 10000 on 25%, bias, residual parallel

  blocks of 4 tokens {
    layers 2, width 64, embed lookup 16 concat
    layers 1-2 attend, heads 4 x 16
    emit context
  }
  tokens in block {
    layers 2, width 64
    prefix 2 from blocks.context
    layers 1-2 attend, heads 4 x 16
  }
}
"""
    )


@pytest.mark.parametrize(
    ("paths", "feature"),
    [
        ({"embedder__cls": "roberta"}, "an embedder other than a lookup table"),
        ({"embedder__projection_method": "projection_layer"}, "a projection of the block's embedding"),
        ({"embedder__n_embedding_tokens": 2}, "more than one vector a block"),
        ({"embedder__config__pad_token_id": 3}, "a padding token other than 0"),
        ({"token_decoder__decoding_strategy": "cross_attention"}, "contexts other than prefixes and sums"),
        ({"token_decoder__cls": "t5"}, "a decoder other than GPT-NeoX"),
        ({"token_decoder__config__vocab_size": 130}, "vocabularies that differ"),
        ({"block_decoder__config__rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling"),
        ({"block_decoder__config__novelty": 7}, "novelty"),
        ({"novelty": 7}, "novelty"),
    ],
)
def test_features_that_are_refused(tmp_path, paths, feature):
    with pytest.raises(ImportRefused, match="cannot import") as caught:
        imported(tmp_path / "b", changed(**paths))
    assert feature in str(caught.value)


def test_all_parts_are_refused_at_once(tmp_path):
    paths = {"embedder__cls": "roberta", "token_decoder__cls": "t5", "block_decoder__config__novelty": 7}
    with pytest.raises(ImportRefused) as caught:
        imported(tmp_path / "b", changed(**paths))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ({"block_length": 0}, "`block_length` must be a whole number of at least 1"),
        ({"embedder": 3}, "`embedder` must be an object"),
        ({"block_decoder__config__num_attention_heads": 5}, "block_decoder: config: `num_attention_heads` must be"),
        ({"embedder__config__hidden_size": 12}, "a block becomes 4 x 12 = 48 numbers"),
        ({"token_decoder__expansion_ratio": 3}, "tensor"),
    ],
)
def test_configs_that_make_no_model(tmp_path, paths, said):
    with pytest.raises(CheckpointError, match=re.escape(said)):
        imported(tmp_path / "b", changed(**paths))


def test_what_the_authors_code_fills_in(tmp_path):
    """Training configs leave out heads and ffn: heads of 32 up to width 256."""
    left_out = ("num_attention_heads", "intermediate_size", "vocab_size", "bos_token_id", "eos_token_id")
    paths = {f"{part}_decoder__config__{key}": None for part in ("block", "token") for key in left_out}
    spec = imported(tmp_path / "b", changed(**paths)).spec
    assert spec.blocks.statements[0].settings.heads == archspec.spec.model.Heads(count=2, head_dim=32)
    assert spec.defaults.ffn == archspec.spec.model.Ffn(kind="gelu", hidden_size=256)


def test_summation_and_tied_embeddings(tmp_path):
    config = changed(token_decoder__decoding_strategy="summation", token_decoder__expansion_ratio=None)
    config["token_decoder"]["config"]["tie_word_embeddings"] = True
    tensors = load_file(GOLDEN / "weights.safetensors")
    tensors["token_decoder.embed_out.weight"] = tensors["token_decoder.gpt_neox.embed_in.weight"].clone()
    for name in ("weight", "bias"):
        key = f"token_decoder.expansion_layer.{name}"
        tensors[key] = torch.cat((tensors[key], tensors[key]))
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    write_imported(import_checkpoint(folder), tmp_path / "out")
    assert "summation from blocks.context" in (tmp_path / "out" / "model.arch").read_text()
    model = archspec.load(tmp_path / "out", compile=False)
    assert model(torch.zeros((1, 8), dtype=torch.int64)).shape == (1, 8, 131)
    with pytest.raises(ImportRefused, match="a start token other than 0"):
        imported(tmp_path / "c", {**config, "token_decoder": _with_start(config["token_decoder"], 5)})


def _with_start(decoder, token):
    return {**decoder, "config": {**decoder["config"], "bos_token_id": token}}
