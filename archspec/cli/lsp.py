"""`archspec lsp`."""

from typing import Annotated

import typer


def lsp(
    stdio: Annotated[
        bool, typer.Option("--stdio", help="The default, and the only way; editors like to say it.")
    ] = True,
) -> None:
    """Run the language server for editors, over standard input and output. Works without torch.

    Example: archspec lsp
    """
    from archspec.cli.common import CliError

    try:
        from archspec.lsp.server import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("pygls", "lsprotocol", "cattrs", "attrs"):
            raise
        raise CliError(f"`archspec lsp` needs {error.name}: install `archspec-lm[lsp]`") from error
    if not serve():
        raise typer.Exit(1)
