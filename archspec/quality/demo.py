"""The trained model of the demo: a YOCO of the table that reads text alone, for as long as an hour allows."""

from pathlib import Path

import torch

import archspec
from archspec.files import replaced_folder
from archspec.quality.corpus import text_corpus
from archspec.quality.variants import CONTEXT, SPECS_FOLDER
from archspec.runtime.weights import save_tensors
from archspec.training import Settings, Trained, train
from archspec.training.tokens import open_tokens

SPEC = "yoco_window"
STEPS = 1500
SETTINGS = Settings(
    steps=STEPS,
    batch=8,
    context=CONTEXT,
    lr=2e-3,
    bf16=True,
    eval_every=250,
    eval_rows=32,
    save_every=100,
    log_every=10,
)


def train_demo(specs: Path, work: Path, output: Path) -> Trained:
    """Train, and ship the weights in bfloat16. Effects: replaces `output`; the run in `work` goes on where it was."""
    spec = specs / SPECS_FOLDER / f"{SPEC}.arch"
    text = text_corpus(work / "text")
    trained = train(spec, text, work / "demo", SETTINGS, device="cpu", progress=True)
    ship(work / "demo", output)
    return trained


def ship(run: Path, output: Path) -> None:
    """A model folder in bfloat16 with its tokenizer. Effects: replaces `output`."""
    model = archspec.load(run, dtype="bfloat16", compile=False, package=False)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    with replaced_folder(output) as fresh:
        save_tensors(tensors, fresh, model.arch_text)
        open_tokens("bytes").tokenizer.save_pretrained(fresh)
