"""Plan -> model: modules, memory, initial weights.

Weights depend on the seed alone: the same numbers on every device, rounded to the model's dtype.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.plan import DTYPE_BYTES
from archspec.runtime.attention import Backend
from archspec.runtime.backends import attend_cpu, pick_backend
from archspec.runtime.cache import Cache
from archspec.runtime.cuda_graphs import DecodeGraphs
from archspec.runtime.decode_tapes import DecodeTapes
from archspec.runtime.layers import RmsNorm
from archspec.runtime.level_cache import LevelsCache
from archspec.runtime.levels import LevelsModel
from archspec.runtime.linear import Linear
from archspec.runtime.model import Model
from archspec.runtime.network import Network
from archspec.runtime.pages import use_large_pages
from archspec.runtime.weights import load_weights, stored_dtype

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_BYTES}
AnyModel = Model | LevelsModel
INIT_STD = 0.02
INIT_BLOCK = 1 << 22
"""Random numbers drawn at a time; part of what a seed means."""


def build_model(
    plan: AnyPlan,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    backend: str = "auto",
    compile: bool = True,
) -> AnyModel:
    """A model with fresh weights: normal (std 0.02), norms of factor 1, biases 0.

    The global generator is not touched.

    Errors: ValueError for a device, dtype or backend that is not known, with those that are.
    """
    model = build_empty(plan, device=device, dtype=dtype, backend=backend, compile=compile)
    if model.device.type != "meta":
        init_weights(model, seed)
    use_large_pages(model.parameters())
    return model


def build_empty(
    plan: AnyPlan,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    backend: str = "auto",
    compile: bool = True,
) -> AnyModel:
    """A model whose memory is allocated, once, and whose weights are undefined: load them before use."""
    target = pick_device(device)
    attend = pick_backend(backend, target, compile)
    torch_dtype = pick_dtype(dtype)
    with torch.device("meta"):
        model = _make(plan, attend, compile).to(torch_dtype)
    for module in model.modules():
        if isinstance(module, Linear | Network):
            module.row_kernels = attend is attend_cpu
        if isinstance(module, Network) and compile and target.type in ("cuda", "cpu"):
            module.kept_steps = DecodeGraphs() if target.type == "cuda" else DecodeTapes(module)
    return model if target.type == "meta" else model.to_empty(device=target)


def _make(plan: AnyPlan, attend: Backend, compile: bool) -> AnyModel:
    if isinstance(plan, LevelsPlan):
        return LevelsModel(plan, attend=attend, compile=compile)
    return Model(plan, attend=attend, compile=compile)


def load_model(
    plan: AnyPlan, path: str | Path, *, device: str | torch.device = "cpu", dtype: str | None = None, **options: Any
) -> AnyModel:
    """A model with the weights of a safetensors file, in their dtype unless `dtype` says otherwise.

    `options` are those of `build_empty`. Errors: as of `build_empty` and `load_weights`.
    """
    model = build_empty(plan, device=device, dtype=dtype or stored_dtype(path), **options)
    load_weights(model, path)
    use_large_pages(model.parameters())
    return model


def cache_of(
    plan: AnyPlan, batch: int, context: int, dtype: torch.dtype, device: torch.device | None = None
) -> Cache | LevelsCache:
    """A cache without a model, on the CPU unless `device` says otherwise."""
    device = device or torch.device("cpu")
    if isinstance(plan, LevelsPlan):
        return LevelsCache(plan, batch, context, dtype=dtype, device=device)
    return Cache(plan, batch, context, dtype=dtype, device=device)


def build_meta(plan: AnyPlan, dtype: str = "float32") -> AnyModel:
    """A model without memory, for names and shapes of large plans."""
    return build_empty(plan, device="meta", dtype=dtype, compile=False)


@torch.no_grad()
def init_weights(model: AnyModel, seed: int) -> None:
    """Set all parameters, in the order of `state_dict`. Effects: overwrites them."""
    generator = torch.Generator("cpu").manual_seed(seed)
    for module in model.modules():
        for tensor, value in fresh_values(module):
            if value is None:
                _fill_normal(tensor, generator)
            else:
                tensor.fill_(value)


def fresh_values(module: nn.Module) -> Iterator[tuple[Tensor, float | None]]:
    """Parameters and buffers of a module's own, and what they start with; None: normal numbers."""
    for name, parameter in module.named_parameters(recurse=False):
        if name == "bias":
            yield parameter, 0.0
        elif isinstance(module, RmsNorm | nn.LayerNorm):
            yield parameter, 0.0 if isinstance(module, RmsNorm) and module.plus_one else 1.0
        else:
            yield parameter, None
    for name, buffer in module.named_buffers(recurse=False):
        yield buffer, 1.0 if name == "scalar" else 0.0


def _fill_normal(parameter: Tensor, generator: torch.Generator) -> None:
    """Drawn on the CPU in float32 block by block, so that a large matrix never exists twice."""
    flat = parameter.detach().view(-1)
    for begin in range(0, flat.numel(), INIT_BLOCK):
        target = flat[begin : begin + INIT_BLOCK]
        target.copy_(torch.empty(target.shape).normal_(0.0, INIT_STD, generator=generator))


def pick_dtype(name: str) -> torch.dtype:
    """The torch dtype called `name`. Errors: ValueError that lists the known names."""
    if name not in DTYPES:
        raise ValueError(f"unknown dtype '{name}'; known: {', '.join(DTYPES)}")
    return DTYPES[name]


def pick_device(name: str | torch.device) -> torch.device:
    """The device called `name`, with its index. Errors: ValueError that lists those of this machine."""
    known = known_devices()
    text = str(name)
    if text.startswith(("cpu:", "meta:")):
        text = text.split(":")[0]
    elif text not in known:
        text += ":0"
    if text not in known:
        raise ValueError(f"unknown device '{name}'; this machine has: {', '.join(known)}")
    return torch.device(text)


def known_devices() -> list[str]:
    """Names of the devices that torch can use here."""
    names = ["cpu", "meta"]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        names += [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
    return names
