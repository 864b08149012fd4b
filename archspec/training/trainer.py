"""A run: a spec or a model, texts and numbers -> a trained model folder. It goes on where it was after a kill."""

import hashlib
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

import archspec
from archspec.levels_plan import AnyPlan, LevelsPlan
from archspec.runtime.build import AnyModel
from archspec.runtime.weights import WEIGHTS_FILE, load_weights
from archspec.spec.model import ModelSpec
from archspec.training import checkpoints
from archspec.training.curve import Curve
from archspec.training.data import Packed, Rows, pack
from archspec.training.loop import SpecTrainer, Watcher, publish
from archspec.training.processes import check_sharing, join, on_processor, share_on_processors, shares_weights
from archspec.training.progress import Progress
from archspec.training.settings import Run, Settings, holds_run
from archspec.training.tokens import BYTES, open_tokens

TOKENS_FOLDER = "tokens"
EVAL_STEPS = 8
"""Steps whose rows an evaluation takes."""


@dataclass(frozen=True)
class Trained:
    """What came out of a run."""

    folder: Path
    model: AnyModel
    history: list[dict[str, Any]]
    """The lines of the curve, and what else Trainer logged."""
    resumed_at: int
    """The step behind which this call went on; 0 for a new run."""

    @property
    def losses(self) -> list[float]:
        """Of training, in order."""
        return [entry["loss"] for entry in self.history if "loss" in entry]

    @property
    def eval_loss(self) -> float | None:
        """The last one."""
        return next((entry["eval_loss"] for entry in reversed(self.history) if "eval_loss" in entry), None)


def train(
    source: ModelSpec | AnyModel | str | Path,
    data: Packed | Iterable[str | Path],
    output: str | Path,
    settings: Settings | None = None,
    *,
    tokenizer: str = BYTES,
    held_out: float = 0.05,
    device: str | None = None,
    progress: bool = False,
) -> Trained:
    """Train a spec from fresh weights, or a model (also a folder that `archspec.load` reads) from its own.

    `data` are files and folders of text and jsonl, or what `pack` made of them. `device` None is the accelerator, if
    there is one. Called again with the same, a run goes on behind its newest checkpoint; with several processes
    (`accelerate launch`) each calls this.

    Effects: `output` becomes a model folder with `loss.csv`, `loss.png`, its tokenizer, and `checkpoints/`.
    Errors: SpecError, ValueError, OSError; nothing is written for what is wrong before the first step.
    """
    wanted, folder = settings or Settings(), Path(output)
    check_sharing()
    state = join(device)
    per_process = wanted.rows_at_once(state.num_processes)
    _check_folder(folder)
    if shares_weights():  # graphs would hold gathered weights
        wanted = replace(wanted, compile=False)
    model, start = _model(source, wanted)
    _check_context(model.plan, wanted)
    if wanted.checkpointing:
        model.gradient_checkpointing_enable()
    if state.is_main_process:
        _sweep(folder)
    with _undone(folder):
        packed = _packed(data, folder, tokenizer, held_out, model.plan, state)
        train_rows, eval_rows = _rows(packed, model.plan, wanted, state.num_processes)
        run = Run.of(model.arch_text, start, f"{packed.facts.digest}:{packed.facts.num_train}", wanted)
        _claim(folder, run, packed, state.is_main_process)
    state.wait_for_everyone()
    home = folder / checkpoints.FOLDER
    newest = checkpoints.newest(home)
    if newest is not None and state.is_main_process:
        publish(newest.path, folder)
    if newest is not None and newest.step == wanted.steps:
        load_weights(model, newest.path / WEIGHTS_FILE)
        return Trained(folder, model, newest.history(), newest.step)
    if newest is not None:
        newest.check_shared(shares_weights())
    arguments = _arguments(wanted, home, per_process, eval_rows, state.num_processes, device)
    trainer = SpecTrainer(model, folder, arguments, train_rows, eval_rows, wanted.keep)
    tokens_a_step = wanted.batch * wanted.context
    with Progress(wanted.steps, tokens_a_step, shown=progress and state.is_main_process) as bar:
        trainer.add_callback(Watcher(trainer, Curve(folder, tokens_a_step), bar))
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest.path))
    return Trained(folder, model, trainer.state.log_history, 0 if newest is None else newest.step)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose a folder to write to")
    if folder.is_dir() and not holds_run(folder) and any(_foreign(path) for path in folder.iterdir()):
        raise ValueError(f"{folder} holds something else than a run of `archspec train`: choose another folder")


def _foreign(path: Path) -> bool:
    """Not what a kill leaves before a run has begun."""
    return path.name != TOKENS_FOLDER and not path.name.startswith(".")


def _sweep(folder: Path) -> None:
    """Take away what a kill left half-written."""
    for path in folder.glob(".*.tmp") if folder.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _undone(folder: Path) -> Iterator[None]:
    """Leaves no trace of a run that cannot begin."""
    is_new = not holds_run(folder)
    try:
        yield
    except BaseException:
        if is_new and not holds_run(folder):
            shutil.rmtree(folder / TOKENS_FOLDER, ignore_errors=True)
            with suppress(OSError):
                folder.rmdir()
        raise


def _claim(folder: Path, run: Run, packed: Packed, is_first: bool) -> None:
    """See that the folder's run is this one. Errors: ValueError if it is another."""
    if holds_run(folder):
        run.check_same(folder)
    elif is_first:
        folder.mkdir(parents=True, exist_ok=True)
        run.write(folder)
    if is_first and not (folder / "tokenizer_config.json").is_file():
        open_tokens(packed.facts.tokenizer).tokenizer.save_pretrained(folder)


def _model(source: ModelSpec | AnyModel | str | Path, settings: Settings) -> tuple[AnyModel, str]:
    """The model to train, and where its weights come from."""
    if isinstance(source, str | Path):
        if Path(source).is_dir():
            source = archspec.load(source, dtype="float32", compile=settings.compile, package=False)
        else:
            source = archspec.parse(source)
    if isinstance(source, ModelSpec):
        return archspec.compile(source, seed=settings.seed, compile=settings.compile), f"seed {settings.seed}"
    if source.dtype != torch.float32:
        raise ValueError(f"weights are trained in float32, and these are {source.dtype}: `bf16` computes in bfloat16")
    if not source.arch_text:
        raise ValueError("this model was built without the text of a spec; set model.arch_text before")
    digest = hashlib.sha256()
    for name, tensor in source.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return source, digest.hexdigest()


def _check_context(plan: AnyPlan, settings: Settings) -> None:
    plan.check_context(settings.context)
    if isinstance(plan, LevelsPlan) and settings.context <= plan.block_length:
        raise ValueError(
            f"rows of {settings.context} tokens hold nothing to predict: the first block of {plan.block_length} is not"
        )


def _packed(
    data: Packed | Iterable[str | Path], folder: Path, tokenizer: str, held_out: float, plan: AnyPlan, state: Any
) -> Packed:
    """The stream of tokens: made by one process where a run begins, and a part of the run from then on."""
    if isinstance(data, Packed):
        _fits(data, plan)
        return data
    paths = [str(Path(path).resolve()) for path in ([data] if isinstance(data, str | Path) else data)]
    place, goes_on = folder / TOKENS_FOLDER, holds_run(folder)
    if not goes_on and state.is_main_process:
        tokens = open_tokens(tokenizer)
        tokens.check(plan.vocab_size, plan.name)
        pack(paths, place, tokenizer=tokens, held_out=held_out)
    state.wait_for_everyone()
    packed = Packed.open(place)
    facts = packed.facts
    if (facts.given, facts.tokenizer, facts.held_out) != (paths, tokenizer, held_out):
        raise ValueError(
            f"{folder} holds a run over {', '.join(facts.given)} (tokenizer {facts.tokenizer}, {facts.held_out:g} held "
            "out): give the same to go on with it, or another folder"
        )
    if goes_on and state.is_main_process and packed.has_changed():
        warnings.warn(
            f"the text has changed since {folder} was begun, and it goes on with what it read then", stacklevel=3
        )
    _fits(packed, plan)
    return packed


def _fits(packed: Packed, plan: AnyPlan) -> None:
    if packed.facts.num_ids > plan.vocab_size:
        open_tokens(packed.facts.tokenizer).check(plan.vocab_size, plan.name)


def _rows(packed: Packed, plan: AnyPlan, settings: Settings, processes: int) -> tuple[Rows, Rows | None]:
    """Rows to train on, and to evaluate on if anything is held out.

    Rows of one level overlap by a token, so that every token but the stream's first is predicted. Where blocks are
    predicted from blocks, a row's first one is not.
    """
    length = settings.context if isinstance(plan, LevelsPlan) else settings.context + 1
    train = Rows(packed.train, length, settings.context, settings.steps * settings.batch, order_seed=settings.seed)
    if not train.num_places:
        raise ValueError(
            f"{len(packed.train):,} tokens to train on are fewer than the {length:,} of one row: "
            "give more text, or a smaller context"
        )
    if not packed.facts.held_out:
        return train, None
    places = Rows(packed.held_out, length, settings.context).num_places
    if places < processes:
        raise ValueError(
            f"{len(packed.held_out):,} held-out tokens are fewer than the {length * processes:,} of one row for each "
            "process: give more text, hold out a larger part, or none"
        )
    wanted = min(places, settings.eval_rows or EVAL_STEPS * settings.batch)
    at_once = _eval_rows_at_once(wanted, settings, processes) * processes
    return train, Rows(packed.held_out, length, settings.context, max(wanted // at_once, 1) * at_once)


def _eval_rows_at_once(num_rows: int, settings: Settings, processes: int) -> int:
    """Rows of a process that are evaluated together: as in training, if there are as many."""
    return max(1, min(settings.rows_at_once(processes), num_rows // processes))


def _arguments(
    settings: Settings, home: Path, per_process: int, eval_rows: Rows | None, processes: int, device: str | None
) -> TrainingArguments:
    at_once = 1 if eval_rows is None else _eval_rows_at_once(len(eval_rows), settings, processes)
    arguments = TrainingArguments(
        output_dir=str(home),
        max_steps=settings.steps,
        per_device_train_batch_size=per_process,
        per_device_eval_batch_size=at_once,
        gradient_accumulation_steps=settings.accumulate,
        train_sampling_strategy="sequential",  # rows are shuffled where a place in them is known by its number
        learning_rate=settings.lr,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": settings.min_lr},
        weight_decay=settings.weight_decay,
        adam_beta2=settings.beta2,
        max_grad_norm=settings.clip,
        bf16=settings.bf16,
        seed=settings.seed,
        logging_steps=settings.logs,
        logging_nan_inf_filter=False,
        eval_strategy="no" if eval_rows is None else "steps",
        eval_steps=settings.evals,
        save_steps=settings.saves,
        prediction_loss_only=True,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        use_cpu=on_processor(device),
    )
    share_on_processors(arguments)
    arguments._n_gpu = min(
        arguments.n_gpu, 1
    )  # several devices of one process are not for Trainer to split a batch over
    return arguments
