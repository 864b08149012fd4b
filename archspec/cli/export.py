"""`archspec export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.common import Dtype


class Target(StrEnum):
    """Whose models to write."""

    transformers = "transformers"


def export(
    source: Annotated[Path, typer.Argument(help="A model folder.", metavar="DIR")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder to write; an earlier export there is replaced.", metavar="OUT"),
    ],
    to: Annotated[Target, typer.Option(help="What to write a model for.")] = Target.transformers,
    dtype: Annotated[Dtype | None, typer.Option(help="Element type; that of the weights without it.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="`bytes`, or a folder with a tokenizer; that of DIR, if it has one, without it."),
    ] = None,
) -> None:
    """Write a model folder for another library: for transformers, what `from_pretrained` loads.

    Example: archspec export out/nano --to transformers -o out/nano-hf --tokenizer bytes
    """
    from archspec.cli.common import CliError, transformers_needed

    with transformers_needed():
        from archspec.hf import export as write

        try:
            write(source, output, dtype=dtype, tokenizer=tokenizer)
        except (ValueError, OSError) as error:
            raise CliError(str(error)) from error
    print(f'{output}: AutoModelForCausalLM.from_pretrained("{output}") loads it after `import archspec.hf`')
