"""A model folder of archspec -> one of transformers, written whole or not at all."""

import shutil
from pathlib import Path

import archspec
from archspec.convert.importing import GENERATION_FILE, TOKENIZER_FILES
from archspec.driver import parse_spec_text
from archspec.files import replaced_folder
from archspec.hf.configuration import ArchSpecConfig, holds_export
from archspec.hf.modeling import ArchSpecForCausalLM
from archspec.hf.tokens import NUM_BYTES, byte_tokenizer
from archspec.runtime.build import AnyModel

BYTES = "bytes"


def wrap(model: AnyModel) -> ArchSpecForCausalLM:
    """A model of archspec as one of transformers: the same parameters, not a copy.

    Errors: ValueError for a model without the text of its spec.
    """
    if not model.arch_text:
        raise ValueError("this model was built without the text of a spec; set model.arch_text before")
    config = ArchSpecConfig.of(parse_spec_text(model.arch_text), dtype=model.dtype)
    return ArchSpecForCausalLM(config, model=model)


def export(source: str | Path, output: str | Path, *, dtype: str | None = None, tokenizer: str | None = None) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` loads.

    `source` is a model folder, of `Model.save` say. Its tokenizer and generation config go along; `tokenizer` names a
    folder to take the tokenizer from instead, or is `bytes` for one token a byte.

    Effects: an earlier export at `output` is replaced by the new one, at once.
    Errors: SpecError, ValueError, OSError; ValueError for an `output` that holds something else.
    """
    folder, target = Path(source), Path(output)
    if target.exists() and not holds_export(target):
        raise ValueError(f"{target} holds something else than an exported model: choose another folder")
    model = wrap(archspec.load(folder, dtype=dtype, compile=False))
    if tokenizer == BYTES and model.plan.vocab_size < NUM_BYTES:
        raise ValueError(f"one token a byte needs a vocabulary of at least {NUM_BYTES}, not {model.plan.vocab_size}")
    with replaced_folder(target) as fresh:
        model.save_pretrained(fresh)
        _copy(folder, fresh, (GENERATION_FILE,))
        if tokenizer == BYTES:
            byte_tokenizer().save_pretrained(fresh)
        else:
            _copy(_tokenizer_folder(folder, tokenizer), fresh, TOKENIZER_FILES)


def _tokenizer_folder(folder: Path, tokenizer: str | None) -> Path:
    if tokenizer is None:
        return folder
    found = Path(tokenizer)
    if not any((found / name).is_file() for name in TOKENIZER_FILES):
        raise ValueError(f"{found} holds no tokenizer: looked for {', '.join(TOKENIZER_FILES)}")
    return found


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
