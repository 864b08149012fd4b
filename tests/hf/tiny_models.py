"""One small model of every system, with weights that prefer some tokens over others, and its export."""

import functools
import tempfile
from pathlib import Path

import torch

import archspec
import archspec.hf
from archspec.hf import ArchSpecForCausalLM

HEADER = "width 32, vocab 256, ffn swiglu(48), norm rms(1e-5), rope 10000"
SYSTEMS = {
    "dense": f"model dense {{ layers 3, tied embeddings, {HEADER}\n layers 1-3 attend, heads 4 x 8, kv heads 2 }}",
    "yoco_window": f"""model yoco_window {{ layers 4, {HEADER}
        layers 1-2 attend, heads 4 x 8, window 5
        cache@2: kv heads 2 x 8, norm rms
        layers 3-4 cross-attend to cache@2, heads 4 x 8
        prefill exit after cache@2 }}""",
    "yoco_retention": f"""model yoco_retention {{ layers 4, {HEADER}
        layers 1-2 retention, heads 4 x 8
        cache@2: kv heads 2 x 8, norm rms
        layers 3-4 cross-attend to cache@2, heads 4 x 8 }}""",
    "lckv": f"""model lckv {{ layers 4, {HEADER}
        layers 1, 4 attend, heads 4 x 8, kv heads 2
        layers 2-3 cross-attend to cache@4, heads 4 x 8
        iterate layers 2-4: 5 forward, 2 backward }}""",
    "cla": f"""model cla {{ layers 4, {HEADER}
        layers 1, 3 attend, heads 4 x 8, kv heads 2
        layers 2 cross-attend to cache@1, heads 4 x 8
        layers 4 cross-attend to cache@3, heads 4 x 8 }}""",
    "block_prefix": """model block_prefix { vocab 256, norm layernorm(1e-5), ffn gelu(48), rope 10000, heads 4 x 8
        blocks of 4 tokens { layers 2, width 32, embed lookup 8 concat
          layers 1-2 attend
          emit context }
        tokens in block { layers 2, width 32
          prefix 2 from blocks.context
          layers 1-2 attend } }""",
    "block_summation": """model block_summation { vocab 256, norm rms(1e-5), ffn swiglu(48), rope 10000, heads 4 x 8
        blocks of 3 tokens { layers 2, width 32, embed lookup 32 sum
          layers 1 attend, window 2
          layers 2 attend
          emit context }
        tokens in block { layers 2, width 32
          summation from blocks.context
          layers 1-2 attend } }""",
}
ONE_LEVEL = [name for name in SYSTEMS if not name.startswith("block")]
TWO_LEVELS = [name for name in SYSTEMS if name.startswith("block")]


def core(name: str):
    """archspec's model, with logits far from each other."""
    model = archspec.compile(archspec.parse_spec_text(SYSTEMS[name]), seed=1, compile=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model.eval()


@functools.cache
def exported(name: str) -> Path:
    """A folder that is exported once a session; tests only read it."""
    root = Path(tempfile.mkdtemp(prefix="archspec-hf-"))
    core(name).save(root / "own")
    archspec.hf.export(root / "own", root / "out", tokenizer="bytes")
    return root / "out"


def loaded(name: str) -> ArchSpecForCausalLM:
    return ArchSpecForCausalLM.from_pretrained(exported(name)).eval()


def random_ids(batch: int, length: int, seed: int = 0):
    return torch.randint(1, 256, (batch, length), generator=torch.Generator().manual_seed(seed))
