"""Three steps of every given model on the same rows, alone or as one of several processes.

Run as a program: FOLDER ROWS_EACH SOURCE...
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import archspec.hf

TEXT = (b"for x in range(9):\n    print(x)\n" * 20)[: 16 * 24]
DATA = [{"input_ids": row, "labels": row} for row in torch.tensor(list(TEXT)).view(16, 24)]


class InOrder(Trainer):
    """Takes rows in their order, so that a step is the same step whoever shares it."""

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(DATA)


def train(folder: str, rows_each: int, sources: list[str]) -> list[list[float]]:
    """Losses of each model's steps. Effects: writes FOLDER/<name>, and FOLDER/losses.json behind the world's size."""
    assert archspec.hf
    found = []
    for source in sources:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=3, per_device_train_batch_size=rows_each, learning_rate=1e-2,
            logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = InOrder(model=AutoModelForCausalLM.from_pretrained(source), args=arguments, train_dataset=DATA)
        trainer.train()
        trainer.save_model(f"{folder}/{trainer.accelerator.unwrap_model(trainer.model).plan.name}")
        found.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    if trainer.is_world_process_zero():
        with open(f"{folder}/losses.json", "w") as file:
            json.dump([trainer.args.world_size, *found], file)
    return found


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
