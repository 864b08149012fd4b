"""`archspec`: the command line. Each subcommand stands in a file of its own and imports what it needs when it runs."""

import gc
import os
import sys

import typer

from archspec.cli import (
    bench,
    check,
    compile_,
    convert_,
    diff,
    eval_,
    explain,
    export,
    fmt,
    generate,
    import_,
    lsp,
    memory,
    schema,
    show,
    sweep,
    train,
)
from archspec.cli.common import CliError

# A command ends before there is enough garbage to be worth looking for.
gc.set_threshold(100_000)

app = typer.Typer(
    name="archspec",
    help="A language and compiler for decoder language models whose layers share KV caches.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("check")(check.check)
app.command("fmt")(fmt.fmt)
app.command("show")(show.show)
app.command("diff")(diff.diff)
app.command("schema")(schema.schema)
app.command("sweep")(sweep.sweep)
app.command("memory")(memory.memory)
app.command("bench")(bench.bench)
app.command("compile")(compile_.compile_)
app.command("import")(import_.import_)
app.command("convert")(convert_.convert)
app.command("export")(export.export)
app.command("generate")(generate.generate)
app.command("eval")(eval_.eval_)
app.command("train")(train.train)
app.command("explain")(explain.explain)
app.command("lsp")(lsp.lsp)


def main() -> None:
    """Run the command line. Exit codes: 0 fine, 1 an error in what was given, 2 wrong usage."""
    try:
        app()
    except CliError as error:
        typer.echo(f"archspec: error: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("ARCHSPEC_TRACEBACK"):
            raise
        typer.echo(f"archspec: internal error: {type(error).__name__}: {error}", err=True)
        typer.echo("this is a bug; set ARCHSPEC_TRACEBACK=1 to see where it comes from", err=True)
        sys.exit(70)


if __name__ == "__main__":
    main()
