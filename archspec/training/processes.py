"""The processes that `accelerate launch` started, and where they compute."""

import os

import torch
from accelerate import DistributedType, PartialState
from transformers import TrainingArguments


def on_processor(device: str | None) -> bool:
    """Whether to compute on the CPU: asked for, or nothing else is there."""
    return device == "cpu" or not torch.accelerator.is_available()


def join(device: str | None) -> PartialState:
    """This process as one of all."""
    return PartialState(cpu=on_processor(device))


def share_on_processors(arguments: TrainingArguments) -> None:
    """See that processes on CPUs share weights if they were told to. Effects: on the state of all of accelerate.

    accelerate 1.x heeds `--use_fsdp` where processes have devices only, and would copy all weights to each of the
    others without a word. Nothing but that depends on the name: device and backend (gloo) are chosen by then.
    """
    if shares_weights() and arguments.distributed_state.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def shares_weights() -> bool:
    """Whether processes were told to share weights: `accelerate launch --use_fsdp`."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def check_sharing() -> None:
    """Errors: ValueError for FSDP 1."""
    if shares_weights() and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ValueError("weights are shared by FSDP2: add `--fsdp_version 2` to `accelerate launch`")
