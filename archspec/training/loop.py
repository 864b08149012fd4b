"""transformers' `Trainer` for models of archspec: their own loss, and checkpoints that are whole or not there."""

import math
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from archspec.files import write_files
from archspec.runtime.build import AnyModel
from archspec.runtime.weights import ARCH_FILE, WEIGHTS_FILE, load_weights, save_tensors
from archspec.training import checkpoints
from archspec.training.curve import Curve
from archspec.training.data import Rows
from archspec.training.progress import Progress

INNER = "model."
"""What stands before archspec's names in the state of `WithLoss`."""


class WithLoss(nn.Module):
    """A model whose forward pass is its loss: gradients are shared between processes by hooks on it."""

    def __init__(self, model: AnyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Mean cross entropy of rows (B, N)."""
        return {"loss": self.model.loss(input_ids)}


class SpecTrainer(Trainer):
    """A `Trainer` over rows in their order, whose run lives in one folder."""

    def __init__(
        self, model: AnyModel, folder: Path, args: TrainingArguments, train: Rows, held_out: Rows | None, keep: int
    ) -> None:
        super().__init__(model=WithLoss(model), args=args, train_dataset=train, eval_dataset=held_out)
        for shown in (PrinterCallback, ProgressCallback):
            self.remove_callback(shown)
        if self.is_fsdp_enabled:  # one file of weights, which others can read
            plugin = self.accelerator.state.fsdp_plugin
            plugin.state_dict_config = plugin.optim_state_dict_config = None  # made for sharded files
            plugin.set_state_dict_type("FULL_STATE_DICT")
        self.own, self.folder, self.keep = model, folder, keep
        self._began = self._spent = 0.0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As of Trainer, with the seconds of training so far. Errors: ValueError once a loss is no number."""
        if not math.isfinite(logs.get("loss", 0.0)):
            raise ValueError(
                f"the loss is {logs['loss']} at step {self.state.global_step}: choose a smaller learning rate, "
                "and another folder"
            )
        logs["seconds"] = round(self._spent + time.monotonic() - self._began, 3)
        super().log(logs, start_time)

    def start_clock(self) -> None:
        """Count seconds on from where the run's history ends."""
        self._began = time.monotonic()
        self._spent = max((entry.get("seconds", 0.0) for entry in self.state.log_history), default=0.0)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """The loss of held-out rows."""
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach().mean(), None, None

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def _get_output_dir(self, trial: Any) -> str:
        return str(checkpoints.staging(Path(self.args.output_dir)))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Written beside, renamed when all processes have; then the folder's model follows, and old ones go."""
        home, is_first = Path(self.args.output_dir), self.is_world_process_zero()
        if is_first:
            checkpoints.clear(home)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if is_first:
            publish(checkpoints.take(home, self.state.global_step), self.folder)
            checkpoints.prune(home, self.keep)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """A model folder of archspec."""
        if self.args.should_save and output_dir is not None:
            state = self.model.state_dict() if state_dict is None else state_dict
            tensors = {name.removeprefix(INNER): tensor for name, tensor in state.items()}
            save_tensors(tensors, output_dir, self.own.arch_text)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(self.own, Path(resume_from_checkpoint) / WEIGHTS_FILE)


class Watcher(TrainerCallback):  # type: ignore[misc]
    """Sees that the curve is written, people see what goes on, and the last step is evaluated and kept."""

    def __init__(self, trainer: SpecTrainer, curve: Curve, progress: Progress) -> None:
        self.trainer, self.curve, self.progress = trainer, curve, progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.start_clock()
        if state.is_world_process_zero:
            self.curve.begin(state.log_history)
            self.progress.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if state.global_step >= state.max_steps:
            control.should_save = True
            control.should_evaluate = self.trainer.eval_dataset is not None
        # What stands in the curve before a checkpoint is a part of it.
        control.should_log |= control.should_save or control.should_evaluate
        if state.is_world_process_zero:
            self.progress.advance(state.global_step)
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.curve.add(state.log_history[-1])
            self.progress.show(state.log_history[-1])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.curve.plot(state.log_history)


def publish(checkpoint: Path, folder: Path) -> None:
    """Let a run's folder be the model of a checkpoint. Effects: replaces the weights at once; the spec stays the run's.

    A first time the spec comes last: until then there is no model.
    """
    names = (WEIGHTS_FILE,) if (folder / ARCH_FILE).exists() else (WEIGHTS_FILE, ARCH_FILE)
    write_files(folder, {name: partial(shutil.copyfile, checkpoint / name) for name in names})
