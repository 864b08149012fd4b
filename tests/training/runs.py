"""Small runs, and a process that is killed at a chosen moment. Imported by a fork server, so that a run is quick."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from transformers import PreTrainedTokenizerFast

import archspec
import archspec.files
import archspec.hf
import archspec.training.checkpoints
import archspec.training.curve
import archspec.training.loop
from archspec.training import Settings, train

HEADER = "width 32, vocab 256, ffn swiglu(48), norm rms(1e-5), rope 10000"
SPECS = {
    "dense": f"model dense {{ layers 2, tied embeddings, {HEADER}\n layers 1-2 attend, heads 4 x 8, kv heads 2 }}",
    "yoco": f"""model yoco {{ layers 4, {HEADER}
        layers 1-2 attend, heads 4 x 8, window 5
        cache@2: kv heads 2 x 8, norm rms
        layers 3-4 cross-attend to cache@2, heads 4 x 8
        prefill exit after cache@2 }}""",
    "lckv": f"""model lckv {{ layers 4, {HEADER}
        layers 1, 4 attend, heads 4 x 8, kv heads 2
        layers 2-3 cross-attend to cache@4, heads 4 x 8
        iterate layers 2-4: 5 forward, 2 backward }}""",
    "block": """model block { vocab 256, norm rms(1e-5), ffn swiglu(48), rope 10000, heads 4 x 8
        blocks of 4 tokens { layers 2, width 32, embed lookup 8 concat
          layers 1-2 attend
          emit context }
        tokens in block { layers 2, width 32
          prefix 2 from blocks.context
          layers 1-2 attend } }""",
}
SMALL = {
    "steps": 6,
    "batch": 4,
    "context": 16,
    "lr": 1e-2,
    "warmup": 1,
    "compile": False,
    "save_every": 2,
    "eval_every": 3,
}
TEXT = "".join(f"for x in range({number}):\n    print(x)\n" for number in range(90))


def written_text(folder: Path) -> Path:
    """A folder of small texts."""
    folder.mkdir(exist_ok=True)
    for begin in range(0, len(TEXT), 300):
        (folder / f"{begin:05}.py").write_text(TEXT[begin : begin + 300])
    return folder


def small_run(name: str, text: Path, output: Path, **changes):
    """A run of a few steps on the CPU."""
    options = {key: changes.pop(key) for key in ("tokenizer", "held_out") if key in changes}
    return train(
        archspec.parse_spec_text(SPECS[name]), [text], output, Settings(**{**SMALL, **changes}), device="cpu", **options
    )


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_in_call(owner, name: str, number: int, before=None):
    """Let the `number`-th call of a function kill the process, instead of what it does, or after `before`."""
    original, calls = getattr(owner, name), []

    def called(*args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            if before is not None:
                before(*args, **kwargs)
            die()
        return original(*args, **kwargs)

    setattr(owner, name, called)


def half_of_file(tensors, path, **kwargs):
    Path(path).write_bytes(safetensors.torch.save(tensors)[:1000])


def half_of_line(self, entry):
    with self.path.open("a") as file:
        file.write("3,19")


curve, loop, kept = archspec.training.curve, archspec.training.loop, archspec.training.checkpoints
MOMENTS = {
    "in packing": (0, lambda: dies_in_call(np, "memmap", 1)),
    "after packing": (0, lambda: dies_in_call(archspec.training.settings.Run, "write", 1)),
    "before its tokenizer": (0, lambda: dies_in_call(PreTrainedTokenizerFast, "save_pretrained", 1)),
    "in the first step": (0, lambda: dies_in_call(torch.Tensor, "backward", 1)),
    "in a step": (2, lambda: dies_in_call(torch.Tensor, "backward", 4)),
    "in a line of the curve": (2, lambda: dies_in_call(curve.Curve, "add", 5, half_of_line)),
    "in the weights": (2, lambda: dies_in_call(archspec.runtime.weights, "save_file", 2, half_of_file)),
    "behind the weights": (2, lambda: dies_in_call(torch, "save", 4)),
    "before its name": (2, lambda: dies_in_call(kept, "settle", 2)),
    "behind its name": (4, lambda: dies_in_call(loop, "publish", 2)),
    "in the folder's model": (4, lambda: dies_in_call(os, "replace", 10)),
    "in taking away": (4, lambda: dies_in_call(shutil, "rmtree", 7)),
    "in the picture": (4, lambda: dies_in_call(curve.Curve, "plot", 2)),
}
"""When a run with checkpoints at steps 2, 4 and 6 dies, and behind which step it goes on."""


def killed_run(moment: str, text: Path, output: Path) -> None:
    """A run of `yoco` that is killed."""
    _, arm = MOMENTS[moment]
    arm()
    small_run("yoco", text, output, keep=1)


SAVES = {
    "while it writes": ("dense", lambda: dies_in_call(os, "fsync", 1)),
    "before the exchange": ("dense", lambda: dies_in_call(archspec.files, "_exchange", 1)),
    "behind the exchange": ("yoco", lambda: dies_in_call(archspec.files, "_exchange", 1, archspec.files._exchange)),
}
"""When a save of `yoco` over `dense` dies, and which of them is there then."""


def killed_save(moment: str, kind: str, source: Path, output: Path) -> None:
    """A `Model.save` or an export that is killed."""
    model = archspec.load(source, compile=False)
    _, arm = SAVES[moment]
    arm()
    if kind == "save":
        model.save(output)
    else:
        archspec.hf.export(source, output)
