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

FLAGS = ["-O3", "-std=c++20", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
LIBRARIES = ["-ltorch_cpu", "-lc10"]


class KernelBuildError(RuntimeError):
    """There is no C++ compiler here, or it refused the kernels."""


def build(folder: Path, name: str) -> Path:
    """The shared library made of the C++ files in `folder`, from disk where it was made before.

    Effects: writes into inductor's cache folder; two processes that build at once both write, and the last one wins.
    Errors: KernelBuildError.
    """
    native = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
    try:
        compiler = get_cpp_compiler()
    except Exception as error:  # inductor's own exceptions differ from version to version
        raise KernelBuildError(f"no C++ compiler: {error}") from error
    made = " ".join((torch.__version__, platform.machine(), processor(), compiler, *FLAGS))
    sources = sorted(folder.glob("*.cpp"))
    texts = [path.read_bytes() for path in (*sources, *sorted(folder.glob("*.h")))]
    key = hashlib.sha256(b"".join((made.encode(), *texts))).hexdigest()[:16]
    target = Path(cache_dir()) / "archspec" / f"{name}_{key}.so"
    if not target.exists():
        try:
            _compile([compiler, *FLAGS, native], sources, target)
        except OSError as error:
            raise KernelBuildError(f"{compiler} could not be run: {error}") from error
    return target


def _compile(command: list[str], sources: list[Path], target: Path) -> None:
    """Every file by a process of its own, and then all of them into `target`."""
    root = Path(torch.__file__).parent
    includes = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = {source: str(Path(folder, f"{source.stem}.o")) for source in sources}
        library = Path(folder, target.name)
        _run([[*command, *includes, "-c", str(source), "-o", made] for source, made in objects.items()])
        _run([[*command, "-shared", *objects.values(), f"-L{root / 'lib'}", *LIBRARIES, "-o", str(library)]])
        os.replace(library, target)


def _run(commands: list[list[str]]) -> None:
    """All at once."""
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    done = [(process.communicate()[1], process.returncode) for process in running]
    for (complaint, code), command in zip(done, commands, strict=True):
        if code != 0:
            raise KernelBuildError(f"{command[0]} could not build {command[-1]}:\n{complaint[-2000:]}")


def processor() -> str:
    """What `native` stands for: a cache folder may be shared by unlike machines."""
    return str(torch.backends.cpu.get_cpu_capability()) + str(sorted(torch.cpu.get_capabilities().items()))
