"""Which vector instructions the C++ compiler can use here, found out once for a machine instead of once a process.

Inductor tries each kind that an x86 processor has by a small library, which a process of its own loads: where its
graphs are in its cache already, that is a quarter of what is left to do before the first token.
"""

import hashlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch._inductor import config, cpu_vec_isa
from torch._inductor.cpp_builder import get_compiler_version_info, get_cpp_compiler
from torch._inductor.runtime.cache_dir_utils import cache_dir

from archspec.runtime.kernels.building import processor


@cache
def remember_vector_instructions() -> None:
    """Let inductor take for usable what was found usable before, by the same compiler on the same processor.

    Effects: writes an empty file into inductor's cache folder, if everything that the processor has can be used.
    """
    if not {"valid_vec_isa_list", "x86_isa_checker", "supported_vec_isa_list"} <= vars(cpu_vec_isa).keys():
        return  # another torch, which asks in another way
    usable = cpu_vec_isa.valid_vec_isa_list
    with suppress(OSError, RuntimeError):  # of a cache that cannot be written; without a compiler
        note = _note()
        if note.exists():
            # For this list, which is kept: the setting itself is part of the key by which graphs are found again.
            with config.patch({"cpp.vec_isa_ok": True}):
                usable()
        elif usable() == _of_the_processor():
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()


def _of_the_processor() -> list[Any]:
    """All that there would be to try."""
    has: Any = cpu_vec_isa.x86_isa_checker()
    kinds: list[Any] = cpu_vec_isa.supported_vec_isa_list
    return [kind for kind in kinds if all(name in has for name in str(kind).split())]


def _note() -> Path:
    compiler = get_cpp_compiler()
    about = "\n".join((torch.__version__, processor(), compiler, get_compiler_version_info(compiler)))
    return Path(cache_dir()) / "archspec" / f"vectors_{hashlib.sha256(about.encode()).hexdigest()[:16]}"
