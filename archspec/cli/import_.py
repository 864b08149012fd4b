"""`archspec import`."""

from pathlib import Path
from typing import Annotated

import typer


def import_(
    source: Annotated[Path, typer.Argument(help="A checkpoint folder of a known family.", metavar="SRC")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for model.arch, model.safetensors and the tokenizer.", metavar="DIR"
        ),
    ],
) -> None:
    """Turn a checkpoint into a spec and weights, or say which feature the language does not have.

    Example: archspec import checkpoints/Mistral-7B-v0.1 -o out/mistral
    """
    from archspec.cli.common import CliError, torch_needed

    with torch_needed():
        from archspec.convert import ImportRefused, import_checkpoint, write_imported

        try:
            imported = import_checkpoint(source)
            write_imported(imported, output)
        except (ImportRefused, ValueError, OSError) as error:
            raise CliError(str(error)) from error
    beside = ", and its tokenizer" if any(path.name.startswith("tokenizer") for path in imported.companions) else ""
    print(f"{output}: model.arch and model.safetensors, imported from {source}{beside}")
