"""Runs of several models, as one of several processes: each from its start, and again from a checkpoint in its middle.

Run as a program: TEXT FOLDER
"""

import shutil
import sys
from pathlib import Path

import torch
from runs import SPECS, small_run

from archspec.training.processes import shares_weights


def main(text: Path, folder: Path) -> None:
    """Effects: writes FOLDER/<name>, and FOLDER/again with what went on behind step 4."""
    for name in SPECS:
        made = small_run(name, text, folder / name)
        assert torch.distributed.get_world_size() == 2
        local = next(made.model.parameters())
        assert isinstance(local, torch.distributed.tensor.DTensor) == shares_weights()
    rank = torch.distributed.get_rank()
    if rank == 0:
        shutil.copytree(folder / "lckv", folder / "again")
        shutil.rmtree(folder / "again" / "checkpoints" / "checkpoint-6")
    torch.distributed.barrier()
    assert small_run("lckv", text, folder / "again").resumed_at == 4


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
