"""Every nano system learns real text with plain AdamW: the standard library's own sources, as bytes."""

import argparse
import inspect
from pathlib import Path

import pytest
import torch

import archspec

NANO = sorted((Path(__file__).parents[2] / "specs" / "nano").glob("*.arch"))
STEPS, BATCH, LENGTH = 16, 4, 64


@pytest.mark.parametrize("path", NANO, ids=lambda path: path.stem)
def test_loss_falls_on_real_text(path: Path) -> None:
    text = torch.frombuffer(bytearray(inspect.getsource(argparse).encode()), dtype=torch.uint8).long()
    model = archspec.compile(archspec.parse(path), seed=0, compile=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(STEPS):
        starts = torch.randint(0, len(text) - LENGTH, (BATCH,), generator=generator)
        loss = model.loss(torch.stack([text[start : start + LENGTH] for start in starts.tolist()]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 5.0  # about log(256): nothing is known yet
    assert sum(losses[-5:]) / 5 < 4.2, losses
