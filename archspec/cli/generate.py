"""`archspec generate`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from archspec.cli.common import CliError, Dtype, Set

BYTE_VOCAB = 256


def generate(
    source: Annotated[
        Path,
        typer.Argument(help="A model folder, or a spec (then with random weights).", metavar="DIR_OR_FILE"),
    ],
    prompt: Annotated[str | None, typer.Option(help="Text; read as UTF-8 bytes, one token a byte.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Token ids with commas: 1,2,3.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=1)] = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0.0)] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k likeliest tokens.", min=1)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Sample from the likeliest tokens of this total probability.")
    ] = None,
    eos: Annotated[int | None, typer.Option(help="Token id that ends the text.", min=0)] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights and of sampling.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[Dtype | None, typer.Option(help="Element type; that of the weights without it.")] = None,
    compile: Annotated[bool, typer.Option(help="Use torch.compile: slower to start, faster to run.")] = True,
    set_: Set = None,
) -> None:
    """Generate from a model folder or a spec.

    Example: archspec generate out/nano --tokens 1,2,3 --max-new-tokens 16
    """
    from archspec.cli.common import torch_needed

    if (prompt is None) == (tokens is None):
        raise typer.BadParameter("give either --prompt or --tokens")
    with torch_needed():
        import torch

        try:
            model = _model(source, set_, device=device, dtype=dtype, seed=seed, compile=compile)
            ids = _token_ids(tokens) if tokens is not None else _bytes(prompt or "", model.plan.vocab_size)
            out = model.generate(
                torch.tensor([ids], device=model.device),
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                eos_token_id=eos,
                seed=seed,
            )
        except (ValueError, OSError) as error:
            raise CliError(str(error)) from error
    _print(out[0].tolist(), as_text=prompt is not None)


def _model(source: Path, set_: list[str] | None, *, device: str, dtype: str | None, seed: int, compile: bool) -> Any:
    import archspec
    from archspec.cli.common import analysed

    if source.is_dir():
        if not any((source / name).is_file() for name in ("model.arch", "config.json")):
            raise CliError(f"{source} holds no model.arch: `archspec compile` and `archspec import` make such folders")
        if set_:
            raise typer.BadParameter("a model folder has its numbers: --set is for specs", param_hint="--set")
        return archspec.load(source, device=device, dtype=dtype, compile=compile)
    analysis = analysed(source, set_)
    assert analysis.elaborated is not None
    print(f"{source} is a spec: generating with random weights, seed {seed}", file=sys.stderr)
    spec = analysis.elaborated.spec
    return archspec.compile(spec, device=device, dtype=dtype or "float32", seed=seed, compile=compile)


def _token_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"`{text}` is no list of token ids such as 1,2,3", param_hint="--tokens") from error


def _bytes(prompt: str, vocab_size: int) -> list[int]:
    if vocab_size < BYTE_VOCAB:
        raise CliError(
            f"--prompt needs a vocabulary of at least {BYTE_VOCAB} (one token a byte), not {vocab_size}: use --tokens"
        )
    if not prompt:
        raise CliError("the prompt is empty")
    return list(prompt.encode())


def _print(ids: list[int], as_text: bool) -> None:
    if as_text and max(ids) < BYTE_VOCAB:
        print(bytes(ids).decode("utf-8", errors="replace"))
    else:
        print(",".join(map(str, ids)))
