"""`accelerate launch` with two processes on the CPU (gloo): the curve is that of one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import launched_runs
import pytest
import torch
from runs import SPECS, small_run, written_text

import archspec
from archspec.training.curve import read_curve

HERE = Path(__file__).parent
WAYS = {"data parallel": ["--multi_gpu"], "fsdp2": ["--use_fsdp", "--fsdp_version=2"]}
"""`--multi_gpu` is the launcher's name for several processes; `--cpu` would start one."""


def launched(arguments: list[str], seconds: int = 120) -> tuple[int, str]:
    """Exit code and output of two processes; once more if they have not met by then.

    Launchers choose a port and bind it later: another program may be faster, and then nobody meets. Gloo asks the name
    of the machine for an address to meet at, which may be one that does not answer: the loopback interface does.
    """
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = [
            sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2", "--num_machines=1",
            "--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={port}", *arguments,
        ]  # fmt: skip
        env = {
            **os.environ, "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
        }  # fmt: skip
        with subprocess.Popen(program, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                said, _ = process.communicate(timeout=seconds)
                return process.returncode, said
            except subprocess.TimeoutExpired:
                process.terminate()  # the launcher ends its processes, each of which is a group of its own
    return 1, f"two processes have not met in {seconds} s, twice"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The text, and a folder with the runs of one process."""
    root = tmp_path_factory.mktemp("alone")
    text = written_text(root / "text")
    for name in SPECS:
        small_run(name, text, root / name)
    return text, root


def curve(folder: Path) -> list[float]:
    """Losses of training and evaluation, in order."""
    return [found for line in read_curve(folder) for found in (line["loss"], line["eval_loss"]) if found is not None]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_are_as_one(way, alone, tmp_path):
    text, expected = alone
    code, said = launched([*WAYS[way], launched_runs.__file__, str(text), str(tmp_path)])
    assert code == 0, said[-3000:]
    for name in SPECS:
        assert curve(tmp_path / name) == pytest.approx(curve(expected / name), rel=1e-4), name
        ids = torch.arange(24)[None]
        saved = [archspec.load(folder / name, compile=False)(ids) for folder in (tmp_path, expected)]
        assert torch.allclose(*saved, atol=5e-3), name
    assert curve(tmp_path / "again") == curve(tmp_path / "lckv")


def test_what_is_wrong_is_told_once(alone, tmp_path):
    text, _ = alone
    (tmp_path / "spec.arch").write_text(SPECS["dense"])
    command = ["-m", "archspec.cli.main", "train", str(tmp_path / "spec.arch"), "--data", str(text), "--batch", "3"]
    code, said = launched(["--multi_gpu", *command, "--device", "cpu", "-o", str(tmp_path / "out")])
    assert code != 0
    assert said.count("a batch of 3 rows cannot be cut into 2 equal parts") == 1
    assert not (tmp_path / "out").exists()
