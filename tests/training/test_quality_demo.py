"""The trained model that ships: small, whole, and better than chance by far at what it was trained on."""

from pathlib import Path

import pytest
import torch

import archspec
from archspec.evaluation import ByteEncoder, text_loss
from archspec.evaluation.texts import Document

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "yoco_python"
PROMPT = b"def read(self, size):\n"
UNSEEN = '''\
def nearest(points, target, default=None):
    """Return the point that is nearest to the target, or the default if there are no points."""
    best = default
    for point in points:
        if best is default or abs(point - target) < abs(best - target):
            best = point
    return best


class Window:
    """Keep the last values of a stream."""

    def __init__(self, size):
        if size < 1:
            raise ValueError("size must be at least 1")
        self.size = size
        self.values = []

    def add(self, value):
        self.values.append(value)
        if len(self.values) > self.size:
            del self.values[0]

    def mean(self):
        return sum(self.values) / len(self.values)
'''


@pytest.fixture(scope="module")
def model():
    return archspec.load(FOLDER, dtype="float32", compile=False)


def test_it_is_small_and_the_model_of_its_spec():
    assert (FOLDER / "model.safetensors").stat().st_size < 8_000_000
    shipped, spec = (
        archspec.plan(archspec.parse(p)) for p in (FOLDER / "model.arch", ROOT / "specs/quality/yoco_window.arch")
    )
    assert shipped == spec


def test_it_predicts_python_that_it_has_not_read(model):
    ids, sizes = ByteEncoder().encode(UNSEEN.encode())
    found = text_loss(model, [Document("unseen", ids, sizes, len(UNSEEN))], context=512)
    assert found.bits_per_byte < 1.3
    assert found.bins()[-1].loss < found.bins()[3].loss  # context helps


def test_it_writes_what_looks_like_python_and_the_same_twice(model):
    ids = torch.tensor([list(PROMPT)])
    greedy = [model.generate(ids, max_new_tokens=24) for _ in range(2)]
    assert torch.equal(*greedy)
    written = model.generate(ids, max_new_tokens=160, temperature=0.8, top_k=40, seed=1)[0, len(PROMPT) :]
    text = bytes(written.tolist()).decode()
    assert text.startswith("    ")
    assert all(
        line.startswith((" ", "def", "class", "@", "#", "import", "from", "if", "_")) or not line
        for line in text.split("\n")[:2]
    )
    assert "self" in text or "return" in text or "def" in text


def test_its_cached_logits_are_those_of_the_whole_text(model):
    ids = torch.tensor([list(UNSEEN.encode()[:150])])
    with torch.no_grad():
        full = model(ids)
        cache = model.new_cache(1, 150)
        model.prefill(ids[:, :120], cache)
        for place in range(120, 150):
            row = model.decode(ids[:, place], cache)
    assert torch.allclose(row, full[:, -1], atol=1e-3)
