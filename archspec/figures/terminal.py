"""A figure on a terminal, coloured where that is wanted; in ASCII where the encoding has no lines."""

from typing import TextIO

from archspec.figures.model import Figure
from archspec.figures.text import figure_lines, figure_text

_LINES = "╭│╰├┼●─↓"


def print_figure(figure: Figure, stream: TextIO, *, colour: bool) -> None:
    """Write the figure; exact lines, never wrapped."""
    ascii_only = not _can_write(stream)
    if not colour:
        print(figure_text(figure, ascii_only=ascii_only), file=stream)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, soft_wrap=True, highlight=False)
    for line in figure_lines(figure, ascii_only=ascii_only):
        console.print(Text.assemble(*line))


def _can_write(stream: TextIO) -> bool:
    try:
        _LINES.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
