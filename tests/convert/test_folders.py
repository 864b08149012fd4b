"""Weights in every kind of file; folders that are not whole checkpoints get one clear error, and nothing is written."""

import json

import pytest
import torch
from checkpoints import GPT_NEOX, LLAMA, YOCO, tensors_of, write_checkpoint, write_config
from safetensors.torch import load_file, save_file

import archspec
from archspec.convert import CheckpointError, ImportRefused, import_checkpoint, write_imported
from archspec.convert.importing import model_name

TIED = {**LLAMA, "tie_word_embeddings": True}


def written(folder, out):
    write_imported(import_checkpoint(folder), out)
    return load_file(out / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def llama(tmp_path):
    return write_checkpoint(tmp_path / "llama", LLAMA)


def message(folder):
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_shards(tmp_path, llama):
    expected = written(llama, tmp_path / "out")
    tensors = load_file(llama / "model.safetensors")
    (llama / "model.safetensors").unlink()
    halves = {"a.safetensors": list(tensors)[::2], "b.safetensors": list(tensors)[1::2]}
    for file, names in halves.items():
        save_file({name: tensors[name] for name in names}, llama / file)
    weight_map = {name: file for file, names in halves.items() for name in names}
    index = llama / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert same(written(llama, tmp_path / "again"), expected)

    (llama / "b.safetensors").unlink()
    assert "names b.safetensors, which is not in this folder" in message(llama)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "../llama/a.safetensors")}))
    assert "which is not in this folder" in message(llama)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "a.safetensors")}))
    assert "is not in a.safetensors" in message(llama)
    index.write_text("[]")
    assert "not an index of weight files" in message(llama)


@pytest.mark.parametrize("nested", [False, True])
def test_pickles_of_weights(tmp_path, nested):
    """The authors' training code of YOCO saves torch state dicts, under the names of the wrapper."""
    expected = written(write_checkpoint(tmp_path / "yoco", YOCO), tmp_path / "out")
    state = {f"decoder.model.{name}": tensor for name, tensor in tensors_of(YOCO).items()}
    folder = write_config(tmp_path / "pickled", YOCO, "params.json")
    torch.save({"model": state, "step": 3} if nested else state, folder / "checkpoint.pth")
    assert same(written(folder, tmp_path / "again"), expected)


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (print, ("code of a checkpoint ran",))


def test_pickles_never_run_code(tmp_path, capsys):
    folder = write_config(tmp_path / "bad", LLAMA)
    torch.save({"weights": Trap()}, folder / "pytorch_model.bin")
    assert "not a file of weights alone" in message(folder)
    torch.save({"step": 3}, folder / "pytorch_model.bin")
    assert "holds more than named tensors" in message(folder)
    (folder / "pytorch_model.bin").write_bytes(b"nonsense")
    assert "not a file of weights alone" in message(folder)
    (folder / "other.pth").write_bytes(b"nonsense")
    assert "several weight files" in message(folder)
    assert capsys.readouterr().out == ""


def test_what_a_trainer_leaves_beside_pickled_weights(tmp_path, llama):
    expected = written(llama, tmp_path / "out")
    folder = write_config(tmp_path / "trained", LLAMA)
    torch.save(tensors_of(LLAMA), folder / "pytorch_model.bin")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        torch.save(Trap(), folder / name)
    assert same(written(folder, tmp_path / "again"), expected)


@pytest.mark.parametrize("num_heads", [1, 4])
def test_fused_queries_keys_and_values(tmp_path, num_heads):
    """GPT-NeoX: the rows of a head's q, k and v follow one another, then those of the next head."""
    config = {**GPT_NEOX, "num_attention_heads": num_heads}
    tensors = tensors_of(config)
    found = written(write_checkpoint(tmp_path / "neox", config, tensors), tmp_path / "out")
    size = 32 // num_heads
    for kind in ("weight", "bias"):
        rows = tensors[f"gpt_neox.layers.1.attention.query_key_value.{kind}"].split(size)
        assert torch.equal(found[f"layers.1.mixer.q_proj.{kind}"], torch.cat(rows[0::3]))
        assert torch.equal(found[f"layers.1.mixer.kv.k_proj.{kind}"], torch.cat(rows[1::3]))
        assert torch.equal(found[f"layers.1.mixer.kv.v_proj.{kind}"], torch.cat(rows[2::3]))


def test_masks_of_gpt_neox_are_ignored(tmp_path):
    masks = {"attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8), "attention.masked_bias": torch.tensor(-1e9)}
    tensors = {**tensors_of(GPT_NEOX), **{f"gpt_neox.layers.0.{name}": mask for name, mask in masks.items()}}
    expected = written(write_checkpoint(tmp_path / "new", GPT_NEOX), tmp_path / "out")
    assert same(written(write_checkpoint(tmp_path / "old", GPT_NEOX, tensors), tmp_path / "again"), expected)


def test_fused_tensors_of_another_shape(tmp_path):
    tensors = tensors_of(GPT_NEOX)
    tensors["gpt_neox.layers.0.attention.query_key_value.bias"] = torch.zeros(32)
    said = message(write_checkpoint(tmp_path / "toy", GPT_NEOX, tensors))
    assert "query_key_value.bias is [32], not [96]" in said


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtypes_are_kept(tmp_path, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in tensors_of(LLAMA).items()}
    folder = write_checkpoint(tmp_path / "half", LLAMA, tensors)
    assert {tensor.dtype for tensor in written(folder, tmp_path / "out").values()} == {dtype}
    model = archspec.load(tmp_path / "out", compile=False)
    assert model.dtype == dtype
    assert model(torch.tensor([[1, 2, 3]])).dtype == dtype


def test_tables_of_angles_are_ignored(tmp_path, llama):
    expected = written(llama, tmp_path / "out")
    tensors = {**tensors_of(LLAMA), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    assert same(written(write_checkpoint(tmp_path / "old", LLAMA, tensors), tmp_path / "again"), expected)


def test_tied_embeddings_saved_twice(tmp_path):
    tensors = tensors_of(TIED)
    assert "lm_head.weight" not in tensors
    twice = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    assert "lm_head.weight" not in written(write_checkpoint(tmp_path / "twice", TIED, twice), tmp_path / "out")
    twice["lm_head.weight"] = twice["lm_head.weight"] + 1
    assert "lm_head.weight differs from" in message(write_checkpoint(tmp_path / "untied", TIED, twice))


def test_folders_that_are_no_checkpoints(tmp_path, llama):
    assert "no such folder" in message(tmp_path / "absent")
    assert "is a file" in message(llama / "config.json")
    (tmp_path / "empty").mkdir()
    assert "no config.json or params.json" in message(tmp_path / "empty")
    assert "no weights: looked for model.safetensors" in message(write_config(tmp_path / "bare", LLAMA))
    (llama / "model.safetensors").write_bytes(b"nonsense, and enough of it for a header")
    assert "not a safetensors file" in message(llama)


@pytest.mark.parametrize("text", ["{", "[1]", "", "\xff", "[" * 100_000])
def test_configs_that_are_no_json_objects(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    said = message(tmp_path)
    assert "not valid JSON" in said or "holds no JSON object" in said


def test_tensors_that_do_not_fit(tmp_path):
    tensors = tensors_of(LLAMA)
    tensors["model.layers.1.self_attn.q_proj.bias"] = torch.zeros(16)
    tensors["lm_head.weight"] = torch.zeros(20, 16)
    del tensors["model.norm.weight"]
    said = message(write_checkpoint(tmp_path / "toy", LLAMA, tensors))
    assert "1 missing: model.norm.weight" in said
    assert "1 unexpected: model.layers.1.self_attn.q_proj.bias" in said
    assert "lm_head.weight is [20, 16], not [19, 16]" in said


def test_quantized_tensors(tmp_path):
    tensors = {name: tensor.to(torch.int8) for name, tensor in tensors_of(LLAMA).items()}
    assert "is int8, not one of" in message(write_checkpoint(tmp_path / "toy", LLAMA, tensors))


def test_nothing_is_written_over_a_checkpoint(llama):
    before = (llama / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="choose another folder"):
        write_imported(import_checkpoint(llama), llama)
    assert (llama / "model.safetensors").read_bytes() == before
    assert not (llama / "model.arch").exists()


def test_errors_are_value_errors():
    assert issubclass(CheckpointError, ValueError)
    assert issubclass(ImportRefused, ValueError)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Llama-2-7b-hf", "Llama-2-7b-hf"),
        ("7b model!", "_7b_model_"),
        ("model", "model"),
        ("-x", "_-x"),
        ("layers", "layers"),
    ],
)
def test_the_folder_names_the_model(tmp_path, folder, name):
    path = write_checkpoint(tmp_path / folder, LLAMA)
    assert model_name(path) == name
    assert archspec.parse_spec_text(import_checkpoint(path).text).name == name
