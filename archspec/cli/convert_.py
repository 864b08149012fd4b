"""`archspec convert`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archspec.cli.common import CliError, Dtype, Set

if TYPE_CHECKING:
    from archspec.convert import Converted

EXAMPLES = 3
"""Names that a line of the table shows."""


class Kv(StrEnum):
    """Whose keys and values a cache starts with."""

    writer = "writer"
    mean = "mean"


def convert(
    source: Annotated[Path, typer.Argument(help="A model folder.", metavar="DIR")],
    to: Annotated[Path, typer.Option(help="The spec to make a model of.", metavar="FILE")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for model.arch, model.safetensors, tokenizer.", metavar="OUT"),
    ],
    kv: Annotated[
        Kv,
        typer.Option(help="K/V of a cache: the layer that writes it, or the mean of the layers that read it."),
    ] = Kv.writer,
    layers: Annotated[
        str | None,
        typer.Option(help="The layer of DIR that each layer starts from, as 1-4,7,8; one by one without it."),
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Draw anew what has another size in DIR, instead of refusing.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of what is new.")] = 0,
    dtype: Annotated[Dtype | None, typer.Option(help="Element type; that of the weights without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    set_: Set = None,
) -> None:
    """Start a model of another architecture from the weights of a trained one, say what came from where.

    Example: archspec convert out/dense --to specs/nano/nano_yoco.arch -o out/yoco --kv mean
    """
    from archspec.cli.common import analysed, torch_needed

    mapping = None if layers is None else _layers(layers)
    analysis = analysed(to, set_)
    if not any((source / name).is_file() for name in ("model.arch", "config.json")):
        raise CliError(f"{source} holds no model.arch: `archspec compile` and `archspec import` make such folders")
    with torch_needed():
        import archspec
        from archspec.convert import convert as make
        from archspec.convert import write_converted

        options: dict[str, Any] = {"layers": mapping, "refit": refit, "seed": seed, "dtype": dtype}
        try:
            model = archspec.load(source, compile=False)
            made = make(model, analysis.plan(), kv=kv.value, **options)
            write_converted(made, analysis.text, source, output)
        except (ValueError, OSError) as error:
            raise CliError(f"cannot convert {source} to {to}: {error}") from error
    if as_json:
        _print_json(made)
    else:
        _print_text(made, output)


def _layers(text: str) -> list[int]:
    """`1-4,7` -> indices from 0."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(first) < 1 or len(first + last) > 9:
            raise typer.BadParameter(f"`{text}`: write layers as 1-4,7,8", param_hint="--layers")
        found += range(int(first) - 1, int(last if dash else first))
    return found


def _print_text(made: "Converted", output: Path) -> None:
    from archspec.cli.tables import Table, print_table

    rows = [
        (line.how, f"{line.parameters:,}", str(line.tensors), _shown(line.examples, line.how)) for line in made.lines()
    ]
    print_table(Table(("", ">parameters", ">tensors", "which"), tuple(rows)))
    changed = [origin for origin in made.matching.origins if not origin.own or origin.before != origin.after]
    if changed:
        print("\nkeys and values:")
        for origin in changed:
            print(f"  {origin}")
    for note in made.matching.notes:
        print(f"\nnote: {note}")
    print(f"\n{output}: model.arch and model.safetensors, {made.model.plan.num_parameters():,} parameters")


def _shown(examples: tuple[str, ...], how: str) -> str:
    if how == "copied":
        return ""
    more = f", and {len(examples) - EXAMPLES} more" if len(examples) > EXAMPLES else ""
    return ", ".join(examples[:EXAMPLES]) + more


def _print_json(made: "Converted") -> None:
    import json

    matching = made.matching
    value = {
        "parameters": [
            {"name": each.target, "how": each.how, "sources": list(each.sources), "reason": each.reason}
            for each in matching.recipes
        ],
        "dropped": [name for name, _ in matching.dropped],
        "counts": {line.how: line.parameters for line in made.lines()},
        "caches": [
            {
                "cache": each.cache,
                "layers": [idx + 1 for idx in each.layers],
                "heads": [each.before, each.after],
            }
            for each in matching.origins
        ],
        "notes": list(matching.notes),
    }
    print(json.dumps(value, indent=2))
