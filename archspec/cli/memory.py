"""`archspec memory`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from archspec.cli.common import counts


def memory(
    file: Annotated[Path, typer.Argument(help="A spec.", metavar="FILE")],
    batch: Annotated[int, typer.Option(help="Sequences.", min=1)] = 1,
    context: Annotated[
        str, typer.Option(help="Tokens a sequence; several with commas, K and M are 1024-based.")
    ] = "4K,32K,128K,1M",
    dtype: Annotated[str, typer.Option(help="Element type of weights and caches.")] = "bfloat16",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Allocate the caches and report their real bytes.")
    ] = False,
) -> None:
    """What the caches cost: closed form, exact bytes, and beside them the same model without sharing.

    Example: archspec memory specs/yoco/yoco_3b_window.arch --batch 8 --context 4K,128K,1M
    """
    from archspec.cli.common import analysed
    from archspec.driver import plan as make_plan
    from archspec.graph.unshare import without_sharing

    contexts = counts(context, "--context")
    analysis = analysed(file)
    assert analysis.elaborated is not None
    assert analysis.graph is not None
    plan = analysis.plan()
    unshared = make_plan(without_sharing(analysis.elaborated.spec, analysis.graph))
    rows: list[dict[str, Any]] = []
    for tokens in contexts:
        row: dict[str, Any] = {
            "batch": batch,
            "context": tokens,
            "cache_bytes": plan.cache_bytes(batch, tokens, dtype),
            "cache_bytes_without_sharing": unshared.cache_bytes(batch, tokens, dtype),
        }
        if measure:
            row["measured_bytes"] = _measure(plan, batch, tokens, dtype)
        rows.append(row)
    if as_json:
        _print_json(plan, dtype, rows)
    else:
        _print_text(plan, dtype, rows)


def _measure(plan: Any, batch: int, context: int, dtype: str) -> int:
    """Bytes of the buffers that the runtime allocates."""
    from archspec.cli.common import CliError, torch_needed

    with torch_needed():
        from archspec.runtime.build import cache_of, pick_dtype

        try:
            return cache_of(plan, batch, context, pick_dtype(dtype)).nbytes
        except (RuntimeError, MemoryError) as error:
            planned = plan.cache_bytes(batch, context, dtype)
            raise CliError(f"{planned:,} bytes cannot be allocated here: measure a smaller --context") from error


def _print_json(plan: Any, dtype: str, rows: list[dict[str, Any]]) -> None:
    import json

    from archspec.plan import DTYPE_BYTES

    weights = plan.num_parameters() * DTYPE_BYTES[dtype]
    facts = {
        "model": plan.name,
        "dtype": dtype,
        "num_parameters": plan.num_parameters(),
        "weight_bytes": weights,
        "cache_formula": plan.cache_formula(),
        "rows": rows,
    }
    print(json.dumps(facts, indent=2))


def _print_text(plan: Any, dtype: str, rows: list[dict[str, Any]]) -> None:
    from archspec.cli.tables import Table, print_table
    from archspec.plan import DTYPE_BYTES
    from archspec.units import format_bytes, format_count

    size = DTYPE_BYTES[dtype]
    weights = plan.num_parameters() * size
    print(f"{plan.name}: {plan.num_parameters():,} parameters, {format_bytes(weights)} of weights in {dtype}")
    print(f"cache bytes = {plan.cache_formula()}    (B sequences, T tokens of context, e = {size} bytes an element)")
    columns = [">batch", ">context", ">cache bytes", ">", ">without sharing", ">", ">ratio"]
    if "measured_bytes" in rows[0]:
        columns.append(">measured")
    print_table(Table(tuple(columns), tuple(_cells(row, format_bytes, format_count) for row in rows)))


def _cells(row: dict[str, Any], format_bytes: Any, format_count: Any) -> tuple[str, ...]:
    shared, unshared = row["cache_bytes"], row["cache_bytes_without_sharing"]
    cells = (
        str(row["batch"]),
        format_count(row["context"]),
        f"{shared:,}",
        format_bytes(shared),
        f"{unshared:,}",
        format_bytes(unshared),
        f"1/{unshared / shared:.1f}" if shared else "-",
    )
    return (*cells, f"{row['measured_bytes']:,}") if "measured_bytes" in row else cells
