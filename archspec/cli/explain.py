"""`archspec explain`."""

from inspect import cleandoc
from typing import Annotated

import typer


def explain(
    code: Annotated[
        str | None, typer.Argument(help="The code of a finding; without it, all codes.", metavar="[CODE]")
    ] = None,
) -> None:
    """Explain a finding: what it is, why it is bad, an example.

    Example: archspec explain E0204
    """
    import archspec.driver  # noqa: F401  (loads every check, and so registers every code)
    from archspec.cli.common import CliError
    from archspec.cli.tables import aligned
    from archspec.diagnostics import REGISTRY

    if code is None:
        rows = [(name, (kind.__doc__ or "").splitlines()[0]) for name, kind in sorted(REGISTRY.items())]
        print(aligned(rows))
        return
    kind = REGISTRY.get(code.upper())
    if kind is None:
        raise CliError(f"there is no code `{code}`; `archspec explain` lists them all")
    title, _, body = cleandoc(kind.__doc__ or "").partition("\n")
    print(f"{kind.code} ({kind.severity}): {title}\n{body}")
