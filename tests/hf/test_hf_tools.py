"""Tools that take models of transformers take ours: pipelines, lm-eval, accelerate; and checkpoints come and go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import launched_training
import pytest
import torch
from tiny_models import SYSTEMS, TWO_LEVELS, core, exported, random_ids
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, pipeline

import archspec
from archspec.cli.main import app
from archspec.hf import byte_tokenizer, export

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("name", SYSTEMS)


@EVERY
def test_pipeline_of_texts_of_several_lengths(name):
    generator = pipeline("text-generation", model=str(exported(name)), device="cpu")
    prompts = ["def f(x):", "a", "for line in open(name):"]
    options = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    batched = [found[0]["generated_text"] for found in generator(prompts, batch_size=3, **options)]
    own = core(name)
    for prompt, text in zip(prompts, batched, strict=True):
        ids = torch.tensor([list(prompt.encode())])
        expected = own.generate(ids, 6)[0, ids.shape[1] :].tolist()
        assert text == generator.tokenizer.decode(expected, skip_special_tokens=True)


TASK = """
task: tiny_{kind}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{text}}}}"
{more}
"""
CHOICE = 'doc_to_choice: "{{choices}}"\ndoc_to_target: "{{answer}}"\nmetric_list: [{metric: acc}]'
FREE = 'doc_to_target: "{{text}}"\nmetric_list: [{metric: exact_match}]\ngeneration_kwargs: {until: ["~~"], max_gen_toks: 5}'
WORDS = ("return x", "import os", "yield y", "del z[0]", "raise E")


def pairs(own, tokenizer):
    """Questions, and what archspec's own rows say of them: the same sums of logarithms as lm-eval takes."""
    for number in range(12):
        text = f"def f_{number}(a, b):\n    "
        choices = [WORDS[number % 5], WORDS[(number + 2) % 5]]
        scores = []
        for choice in choices:
            # lm-eval moves blanks from the end of the question to the answers, and puts one before each.
            context, whole = (tokenizer(part).input_ids for part in (text.rstrip(), f"{text} {choice}"))
            rows = own(torch.tensor([whole[:-1]]))[0].log_softmax(-1)
            scores.append(sum(rows[at - 1, whole[at]].item() for at in range(len(context), len(whole))))
        yield {"text": text, "choices": choices, "answer": number % 2, "scores": scores}


@EVERY
def test_lm_eval_gives_the_models_own_likelihoods_and_texts(name, tmp_path, monkeypatch):
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    own, tokenizer = core(name), AutoTokenizer.from_pretrained(exported(name))
    questions = list(pairs(own, tokenizer))
    lines = [json.dumps({key: value for key, value in one.items() if key != "scores"}) for one in questions]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    (tmp_path / "tasks").mkdir()
    for kind, more in (("multiple_choice", CHOICE), ("generate_until", FREE)):
        text = TASK.format(kind=kind, data=tmp_path / "data.jsonl", more=more)
        (tmp_path / "tasks" / f"{kind}.yaml").write_text(text)
    found = lm_eval.simple_evaluate(
        # Block by block, a batch that is padded on the right without a mask has other blocks than its rows alone.
        model=HFLM(str(exported(name)), device="cpu", batch_size=1 if name in TWO_LEVELS else 4, max_length=128),
        tasks=["tiny_multiple_choice", "tiny_generate_until"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        bootstrap_iters=0,
    )
    for sample in found["samples"]["tiny_multiple_choice"]:
        expected = questions[sample["doc_id"]]["scores"]
        assert [score for score, _ in sample["filtered_resps"]] == pytest.approx(expected, abs=1e-3)
    right = [one["scores"][one["answer"]] == max(one["scores"]) for one in questions]
    assert found["results"]["tiny_multiple_choice"]["acc,none"] == pytest.approx(sum(right) / len(right))
    for sample in found["samples"]["tiny_generate_until"]:
        ids = torch.tensor([tokenizer(questions[sample["doc_id"]]["text"]).input_ids])
        tokens = own.generate(ids, 5, eos_token_id=0)[0, ids.shape[1] :]
        assert sample["filtered_resps"] == [tokenizer.decode(tokens, skip_special_tokens=True)]


def run_group(program: list[str], seconds: int = 100) -> tuple[int, str] | None:
    """Exit code and output of a program that starts others; None if it took too long, and then all of them are ended."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(program, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # the launcher ends its processes, each of which is a group of its own
            return None
    return process.returncode, said


@pytest.mark.timeout(300)
def test_accelerate_launches_processes_that_train_as_one(tmp_path):
    """Two processes with two rows each take the steps of one process with four rows."""
    folders = [str(exported(name)) for name in SYSTEMS]
    program = [
        # `--multi_gpu` is the launcher's name for several processes; the script says that they use the processor.
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1",
        "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0",
        str(Path(launched_training.__file__)), str(tmp_path), "2", *folders,
    ]  # fmt: skip
    # The launcher looks for a free port and binds it later; another program may be faster, and then nobody meets.
    code, said = run_group(program) or run_group(program) or (None, "")
    assert code == 0, said[-3000:]
    world_size, *shared = json.loads((tmp_path / "losses.json").read_text())
    assert world_size == 2
    alone = launched_training.train(str(tmp_path / "alone"), 4, folders)
    for name, one, two in zip(SYSTEMS, alone, shared, strict=True):
        assert one[-1] < one[0]
        assert two == pytest.approx(one, rel=1e-3), name
        saved = [archspec.load(tmp_path / run / name, compile=False)(random_ids(1, 9)) for run in (".", "alone")]
        assert torch.allclose(*saved, atol=1e-2)


def test_a_llama_goes_through_archspec_and_comes_out_the_same(tmp_path):
    torch.manual_seed(0)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, initializer_range=0.3, bos_token_id=1, eos_token_id=None, pad_token_id=0,
        )
    ).eval()  # fmt: skip
    llama.save_pretrained(tmp_path / "llama")
    byte_tokenizer().save_pretrained(tmp_path / "llama")
    app(["import", str(tmp_path / "llama"), "-o", str(tmp_path / "own")], standalone_mode=False)
    app(["export", str(tmp_path / "own"), "-o", str(tmp_path / "out")], standalone_mode=False)
    export(tmp_path / "llama", tmp_path / "direct")
    ids = random_ids(2, 9)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    for folder in ("out", "direct"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / folder)
        assert torch.allclose(model(ids).logits, llama(ids).logits, atol=1e-4)
        for options in ({"do_sample": False}, {"num_beams": 4, "do_sample": False}):
            out = [one.generate(ids, attention_mask=mask, max_new_tokens=8, **options) for one in (model, llama)]
            assert torch.equal(*out)
