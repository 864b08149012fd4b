"""Checkpoint folder -> spec and tensors -> `model.arch` and `model.safetensors`."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from archspec.convert.config import read_config
from archspec.convert.detect import detect
from archspec.convert.errors import CheckpointError
from archspec.convert.family import Blueprint
from archspec.convert.tensors import Entries, Entry, open_weights, read_floats
from archspec.driver import analyse_spec, plan
from archspec.files import replace_files
from archspec.levels_plan import AnyPlan
from archspec.parameters import Shape
from archspec.runtime.build import AnyModel, build_empty
from archspec.runtime.weights import ARCH_FILE, WEIGHTS_FILE
from archspec.spec.format import format_spec
from archspec.spec.model import ModelSpec

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""What tokenizers of transformers are saved in."""
GENERATION_FILE = "generation_config.json"
COMPANIONS = (*TOKENIZER_FILES, GENERATION_FILE)
SHOWN = 6
"""Tensors that a message lists."""
_OUTPUT, _EMBEDDING = "lm_head.weight", "embed.weight"


@dataclass(frozen=True)
class Imported:
    """A checkpoint in archspec's terms. `tensors` are under the names of `Plan.parameter_shapes`, in their dtype."""

    spec: ModelSpec
    comment: str
    """What to write on top of the spec: where it comes from."""
    tensors: dict[str, Tensor]
    companions: tuple[Path, ...] = ()
    """Files of the checkpoint that are of use beside any form of its weights: its tokenizer, how to generate."""

    @property
    def text(self) -> str:
        """The spec as it is written."""
        return format_spec(self.spec, self.comment)


def import_checkpoint(source: str | Path) -> Imported:
    """Read a checkpoint folder.

    Errors: ImportRefused for what a spec cannot express, with every feature and its field; CheckpointError for a
    folder that is not a whole checkpoint.
    """
    folder = Path(source)
    config = read_config(folder)
    name = model_name(folder)
    family = detect(config, name)
    blueprint = family.read(config, name)
    tensors = _tensors(_plan(blueprint.spec, config.path), blueprint, open_weights(folder))
    comment = "\n".join([f"Imported from a checkpoint of {family.name}.", *blueprint.remarks])
    companions = tuple(path for name in COMPANIONS if (path := folder / name).is_file())
    return Imported(blueprint.spec, comment, tensors, companions)


def write_imported(imported: Imported, directory: str | Path) -> None:
    """Write DIRECTORY/model.arch and DIRECTORY/model.safetensors, and the tokenizer if there is one, all or nothing.

    Errors: CheckpointError if that would write into a checkpoint of another kind.
    """
    write_folder(Path(directory), imported.text, imported.tensors, imported.companions)


def write_folder(folder: Path, text: str, tensors: dict[str, Tensor], companions: tuple[Path, ...]) -> None:
    """A model folder of the text of a spec, weights, and files to lie beside them. Errors: as of `write_imported`."""
    if any((folder / name).exists() for name in ("config.json", "params.json")):
        raise CheckpointError(f"{folder} holds a checkpoint that is not archspec's: choose another folder to write to")
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, Callable[[Path], object]] = {
        WEIGHTS_FILE: lambda path: save_file(tensors, path, metadata={"format": "pt"}),
        **{path.name: partial(shutil.copyfile, path) for path in companions},
        ARCH_FILE: lambda path: path.write_text(text, encoding="utf-8"),
    }
    replace_files(folder, writers)


def load_checkpoint(
    source: str | Path, *, device: str | torch.device = "cpu", dtype: str | None = None, **options: Any
) -> AnyModel:
    """A model with the weights of a checkpoint, nothing written. `options` are those of `build_empty`.

    Errors: as of `import_checkpoint`; ValueError for unknown options.
    """
    imported = import_checkpoint(source)
    stored = str(next(iter(imported.tensors.values())).dtype).removeprefix("torch.")
    model = build_empty(plan(imported.spec), device=device, dtype=dtype or stored, **options)
    model.load_state_dict(imported.tensors)
    model.arch_text = imported.text
    return model


def model_name(folder: Path) -> str:
    """A folder's name as the name of a model."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", folder.resolve().name) or "model"
    return name if re.match(r"[A-Za-z_]", name) else f"_{name}"


def _plan(spec: ModelSpec, config_path: Path) -> AnyPlan:
    """The plan of an imported spec. Errors: CheckpointError with what the checks of a spec find."""
    analysis = analyse_spec(spec)
    if not analysis.ok:
        found = [diagnostic.message() for diagnostic in analysis.diagnostics if diagnostic.severity == "error"]
        raise CheckpointError(f"{config_path}: describes no consistent model: {'; '.join(found)}")
    return analysis.plan()


def _tensors(plan: AnyPlan, blueprint: Blueprint, entries: Entries) -> dict[str, Tensor]:
    """Every parameter and buffer of the plan. Errors: CheckpointError if names, shapes or dtypes disagree."""
    entries = _renamed(_stripped(entries, blueprint.prefixes), blueprint)
    shapes = dict((*plan.parameter_shapes(), *plan.buffer_shapes()))
    wanted = dict(source for name, shape in shapes.items() for source in _sources(blueprint, name, shape))
    present = set(entries)
    if plan.tied_embeddings:
        present -= _repeated_output(blueprint, entries)
    _check(wanted, present, entries)
    return {name: _read(blueprint, name, entries) for name in shapes}


def _sources(blueprint: Blueprint, name: str, shape: Shape) -> list[tuple[str, Shape]]:
    """The tensors that hold a parameter, and what shape each has."""
    sources, fused = blueprint.names(name), blueprint.fused(name)
    if isinstance(sources, tuple):
        return [(source, shape[1:]) for source in sources]
    return [(sources, shape if fused is None else fused.whole(shape))]


def _read(blueprint: Blueprint, name: str, entries: Entries) -> Tensor:
    sources, fused = blueprint.names(name), blueprint.fused(name)
    if isinstance(sources, tuple):
        return torch.stack([read_floats(entries[source], source) for source in sources])
    tensor = read_floats(entries[sources], sources)
    return tensor if fused is None else fused.part(tensor)


def _stripped(entries: Entries, prefixes: tuple[str, ...]) -> Entries:
    """Without a prefix that all names have."""
    for prefix in prefixes:
        if entries and all(name.startswith(prefix) for name in entries):
            return {name.removeprefix(prefix): entry for name, entry in entries.items()}
    return entries


def _renamed(entries: Entries, blueprint: Blueprint) -> Entries:
    """Under the names of one layout, without what the model does not use. Errors: CheckpointError if two become one."""
    renamed: dict[str, Entry] = {}
    for name, entry in entries.items():
        if blueprint.ignored(name):
            continue
        if (known := blueprint.renamed(name)) in renamed:
            raise CheckpointError(f"{name} is in the checkpoint twice, also as {known}")
        renamed[known] = entry
    return renamed


def _repeated_output(blueprint: Blueprint, entries: Entries) -> set[str]:
    """The output matrix of a tied model, if it was saved as well. Errors: CheckpointError if it is another matrix."""
    output, embedding = blueprint.names(_OUTPUT), blueprint.names(_EMBEDDING)
    if isinstance(output, tuple) or isinstance(embedding, tuple) or not {output, embedding} <= set(entries):
        return set()
    if not torch.equal(entries[output].read(), entries[embedding].read()):
        raise CheckpointError(f"the config ties the embeddings, but {output} differs from {embedding}")
    return {output}


def _check(sources: dict[str, Shape], present: set[str], entries: Entries) -> None:
    missing = [source for source in sources if source not in entries]
    extra = sorted(present - set(sources))
    shapes = [
        f"{source} is {list(entries[source].shape)}, not {list(shape)}"
        for source, shape in sources.items()
        if source in entries and entries[source].shape != shape
    ]
    problems = (("missing", missing), ("unexpected", extra), ("of another shape than the config says", shapes))
    text = "; ".join(f"{len(names)} {what}: {_cut(names)}" for what, names in problems if names)
    if text:
        raise CheckpointError(f"the tensors do not fit the config: {text}")


def _cut(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
