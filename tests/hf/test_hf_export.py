"""`archspec export`: what lies in the folder, who can load it, and that it is there whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import SYSTEMS, core, exported, loaded, random_ids
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import archspec
from archspec.cli.main import app, main
from archspec.files import replaced_folder
from archspec.hf import ArchSpecConfig, ArchSpecForCausalLM, byte_tokenizer, export, wrap

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("name", SYSTEMS)


def run(monkeypatch, capsys, *arguments) -> tuple[int, str]:
    """The command line in this process: exit code and what it says."""
    monkeypatch.setattr(sys, "argv", ["archspec", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return end.value.code or 0, out + err


@EVERY
def test_the_model_is_the_same(name):
    model = AutoModelForCausalLM.from_pretrained(exported(name))
    assert isinstance(model, ArchSpecForCausalLM)
    own, ids = core(name), random_ids(2, 13)
    assert torch.equal(model(ids).logits, own(ids))
    assert {
        key.removeprefix("model."): tensor for key, tensor in model.state_dict().items()
    }.keys() == own.state_dict().keys()
    assert model.num_parameters() == own.plan.num_parameters()


@EVERY
def test_the_config_holds_the_spec_in_its_json_form(name):
    config = AutoConfig.from_pretrained(exported(name))
    spec = archspec.parse_spec_text(SYSTEMS[name])
    assert config.spec == json.loads(spec.model_dump_json())
    assert config.read_spec() == spec
    assert config.vocab_size == 256
    assert config.tie_word_embeddings == (name == "dense")
    fields = json.loads((exported(name) / "config.json").read_text())
    assert fields["auto_map"]["AutoModelForCausalLM"] == "modeling_archspec.ArchSpecForCausalLM"
    assert fields["architectures"] == ["ArchSpecForCausalLM"]


@EVERY
def test_an_export_is_read_back_without_transformers(name, tmp_path, monkeypatch, capsys):
    ids, expected = random_ids(2, 13), core(name)
    assert torch.equal(archspec.load(exported(name), compile=False)(ids), expected(ids))
    app(["import", str(exported(name)), "-o", str(tmp_path / "back")], standalone_mode=False)
    assert torch.equal(archspec.load(tmp_path / "back", compile=False)(ids), expected(ids))


def test_reading_it_back_runs_nothing_and_imports_no_transformers():
    code = f"import sys, archspec; archspec.load({str(exported('cla'))!r}, compile=False); print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


def test_what_is_saved_again_loads_again(tmp_path):
    model = loaded("yoco_window")
    with torch.no_grad():
        model.model.lm_head.weight.mul_(2)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(random_ids(1, 9)).logits, model(random_ids(1, 9)).logits)
    python = {path.name for path in tmp_path.glob("*.py")}
    assert python == {"configuration_archspec.py", "modeling_archspec.py"}


def test_sharded_weights_are_read_back_too(tmp_path):
    loaded("cla").save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ids = random_ids(1, 9)
    assert torch.equal(archspec.load(tmp_path, compile=False)(ids), core("cla")(ids))
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, core("cla")(ids))


REMOTE = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
assert "archspec" not in sys.modules
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer("def f", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=4, do_sample=False)[0]).encode())
model.save_pretrained(sys.argv[2])
"""


def offline(tmp_path) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": str(ROOT)}


def test_remote_code_needs_no_import_of_archspec(tmp_path):
    saved = tmp_path / "saved"
    program = [sys.executable, "-c", REMOTE, str(exported("yoco_window")), str(saved)]
    done = subprocess.run(program, env=offline(tmp_path), capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stderr
    prompt = torch.tensor([list(b"def f")])
    assert done.stdout.strip() == str(
        bytes(core("yoco_window").generate(prompt, 4)[0].tolist()).decode(errors="replace").encode()
    )
    assert {path.name for path in saved.glob("*.py")} == {"configuration_archspec.py", "modeling_archspec.py"}
    assert torch.equal(archspec.load(saved, compile=False)(prompt), core("yoco_window")(prompt))


def test_without_trust_nothing_in_the_folder_runs(tmp_path):
    folder = tmp_path / "evil"
    shutil.copytree(exported("dense"), folder)
    for name in ("configuration_archspec.py", "modeling_archspec.py"):
        (folder / name).write_text("raise SystemExit('ran')\n")
    assert isinstance(AutoModelForCausalLM.from_pretrained(folder), ArchSpecForCausalLM)


def test_the_command_takes_tokenizer_and_generation_config_along(tmp_path, monkeypatch, capsys):
    own = tmp_path / "own"
    core("cla").save(own)
    byte_tokenizer().save_pretrained(own)
    (own / "generation_config.json").write_text('{"eos_token_id": 10, "max_new_tokens": 3}')
    out = tmp_path / "out"
    app(["export", str(own), "--to", "transformers", "-o", str(out), "--dtype", "bfloat16"], standalone_mode=False)
    assert "from_pretrained" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == 10
    assert model.generate(random_ids(1, 4), eos_token_id=None).shape == (1, 7)
    assert AutoTokenizer.from_pretrained(out)("ab").input_ids == [97, 98]
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}


def test_what_cannot_be_exported_ends_with_one_line(tmp_path, monkeypatch, capsys):
    own, other = tmp_path / "own", tmp_path / "other"
    core("dense").save(own)
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    cases = [
        ((own, "-o", other), 1, "holds something else"),
        ((own, "-o", tmp_path / "file"), 1, "holds something else"),
        ((own, "-o", own), 1, "holds something else"),
        ((tmp_path / "none", "-o", tmp_path / "x"), 1, "no such file"),
        ((own, "-o", tmp_path / "x", "--tokenizer", other), 1, "holds no tokenizer"),
        ((own, "-o", tmp_path / "x", "--to", "tensorflow"), 2, "transformers"),
    ]
    for arguments, code, message in cases:
        found, said = run(monkeypatch, capsys, "export", *arguments)
        assert (found, message in said) == (code, True), said
    assert (other / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other", "own"]


def test_a_broken_config_is_refused_by_what_is_wrong(tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(exported("dense"), folder)
    fields = json.loads((folder / "config.json").read_text())
    fields["spec"]["statements"][0]["mixer"] = "recite"
    (folder / "config.json").write_text(json.dumps(fields))
    for load in (AutoModelForCausalLM.from_pretrained, archspec.load):
        with pytest.raises(ValueError, match="statements"):
            load(folder)
    with pytest.raises(ValueError, match="has no `spec`"):
        ArchSpecForCausalLM(ArchSpecConfig())


def test_a_new_export_replaces_all_of_an_old_one(tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported("cla"), out)
    core("dense").save(tmp_path / "own")
    export(tmp_path / "own", out)
    assert AutoConfig.from_pretrained(out).spec["name"] == "dense"
    assert not (out / "tokenizer.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "own"]


KILLED = """
import os, signal, sys
import archspec.hf
left = int(sys.argv[3])

def count(event, arguments):
    # Looks that change nothing are no places of their own.
    global left
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "ctypes.dlsym") or (
        event == "open" and "w" in str(arguments[1])
    ):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

# One process a place to die at: forked, since imports take longer than all exports.
while True:
    at = left
    child = os.fork()
    if child == 0:
        sys.addaudithook(count)
        archspec.hf.export(sys.argv[1], sys.argv[2], tokenizer="bytes")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    config = archspec.hf.ArchSpecConfig.from_pretrained(sys.argv[2])
    model = archspec.load(sys.argv[2], compile=False)
    print(config.spec["name"], model.plan.name, sorted(os.listdir(sys.argv[2])) == sys.argv[4].split(","), flush=True)
    if os.WIFEXITED(status):
        break
    left = at + 1
"""


def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported("cla"), out)
    core("dense").save(tmp_path / "own")
    files = ",".join(sorted(os.listdir(out)))
    program = [sys.executable, "-c", KILLED, str(tmp_path / "own"), str(out), "1", files]
    done = subprocess.run(program, env=offline(tmp_path), capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr
    states = done.stdout.split("\n")[:-1]
    assert set(states) == {"cla cla True", "dense dense True"}
    assert states == sorted(states)  # once new, it stays new
    assert states.count("cla cla True") > 5


def test_without_exchange_a_folder_is_replaced_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("archspec.files._exchange", lambda a, b: False)
    target = tmp_path / "folder"
    for text in ("old", "new"):
        with replaced_folder(target) as fresh:
            (fresh / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "folder"
    with replaced_folder(target) as fresh:
        (fresh / "old").write_text("old")

    def fail() -> None:
        with replaced_folder(target) as fresh:
            (fresh / "new").write_text("new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@EVERY
def test_a_wrapped_model_is_the_model_itself(name):
    own = core(name)
    before = {key: tensor.clone() for key, tensor in own.state_dict().items()}
    model = wrap(own)
    assert model.model is own
    assert all(torch.equal(before[key], tensor) for key, tensor in own.state_dict().items())


def test_new_weights_are_drawn_as_archspec_draws_them():
    model = AutoModelForCausalLM.from_config(ArchSpecConfig.of(archspec.parse_spec_text(SYSTEMS["block_prefix"])))
    own = archspec.compile(archspec.parse_spec_text(SYSTEMS["block_prefix"]), compile=False)
    for (name, found), expected in zip(model.model.named_parameters(), own.parameters(), strict=True):
        # six standard errors of a difference: what two draws of one distribution never differ by
        error = expected.std().item() * (2 / expected.numel()) ** 0.5
        assert found.mean().item() == pytest.approx(expected.mean().item(), abs=6 * error), name
        assert found.std().item() == pytest.approx(expected.std().item(), abs=6 * error), name


FEATURES = {
    "experts": "ffn moe(top 2 of 8 swiglu(24), router sigmoid, selection bias), rope 10000",
    "scalars": "layer-scalar, ffn swiglu(48), rope 10000, bias",
    "positions": "no rope, positions learned 24, ffn gelu(48)",
    "sinks": "rope 10000, ffn swiglu(48), window 6, sinks 2",
}


@pytest.mark.parametrize("feature", FEATURES)
def test_what_is_no_parameter_travels_too(feature, tmp_path):
    text = f"model m {{ layers 2, width 32, vocab 256, norm rms(1e-5), {FEATURES[feature]}\n layers 1-2 attend, heads 4 x 8 }}"
    own = archspec.compile(archspec.parse_spec_text(text), compile=False)
    for buffer in own.buffers():
        buffer.uniform_(0.5, 1.5)
    own.save(tmp_path / "own")
    export(tmp_path / "own", tmp_path / "out")
    model, ids = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), random_ids(2, 11)
    # Libraries multiply in another order where weights begin at another place of a line of memory.
    torch.testing.assert_close(model(ids).logits, own(ids), atol=1e-5, rtol=0)
    torch.testing.assert_close(archspec.load(tmp_path / "out", compile=False)(ids), own(ids), atol=1e-5, rtol=0)
    assert torch.equal(model.generate(ids, max_new_tokens=9, do_sample=False), own.generate(ids, 9))
    mask = torch.ones_like(ids)
    mask[0, 7:] = 0
    assert torch.allclose(model(ids, attention_mask=mask).logits[0, :7], own(ids[:1, :7])[0], atol=1e-5)
    if feature == "positions":
        assert model.config.max_position_embeddings == 24
        with pytest.raises(ValueError, match="learned positions for 24 tokens"):
            model.generate(ids, max_new_tokens=30)


def test_byte_tokens_are_utf8():
    tokenizer = byte_tokenizer()
    text = "def f(x):\n\treturn 'ÿĀ ↯' # \x7f"
    assert tokenizer(text).input_ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert len(tokenizer) == 256
    assert tokenizer("a\0b").input_ids == [97, 0, 98]
