"""Kernels in C++ are compiled once for a machine, by the compiler that `torch.compile` uses, and kept on disk."""

import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import torch
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.runtime.cache_dir_utils import cache_dir

FLAGS = ["-O3", "-std=c++20", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
LIBRARIES = ["-ltorch_cpu", "-lc10"]


class KernelBuildError(RuntimeError):
    """There is no C++ compiler here, or it refused the kernels."""


def build(source: Path) -> Path:
    """The shared library made of `source` and the headers beside it, from disk where it was made before.

    Effects: writes into inductor's cache folder; two processes that build at once both write, and the last one wins.
    Errors: KernelBuildError.
    """
    native = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
    root = Path(torch.__file__).parent
    includes = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
    try:
        compiler = get_cpp_compiler()
    except Exception as error:  # inductor's own exceptions differ from version to version
        raise KernelBuildError(f"no C++ compiler: {error}") from error
    command = [compiler, *FLAGS, native, *includes, str(source), f"-L{root / 'lib'}", *LIBRARIES]
    made = " ".join((torch.__version__, platform.machine(), processor(), compiler, *FLAGS))
    texts = [path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h")))]
    key = hashlib.sha256(b"".join((made.encode(), *texts))).hexdigest()[:16]
    target = Path(cache_dir()) / "archspec" / f"{source.stem}_{key}.so"
    if not target.exists():
        _run(command, target)
    return target


def _run(command: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=target.parent, suffix=".so")
    os.close(handle)
    try:
        done = subprocess.run([*command, "-o", beside], capture_output=True, text=True)
        if done.returncode != 0:
            raise KernelBuildError(f"{command[0]} could not build {target.name}:\n{done.stderr[-2000:]}")
        os.replace(beside, target)
    except OSError as error:
        raise KernelBuildError(f"{command[0]} could not be run: {error}") from error
    finally:
        Path(beside).unlink(missing_ok=True)


def processor() -> str:
    """What `native` stands for: a cache folder may be shared by unlike machines."""
    return str(torch.backends.cpu.get_cpu_capability()) + str(sorted(torch.cpu.get_capabilities().items()))
