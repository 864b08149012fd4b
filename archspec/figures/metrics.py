"""Widths of text, without a font at hand: no figure may depend on what is installed where it is made.

The widths are those of the wider of Liberation Sans (metrically Arial) and DejaVu Sans, in thousandths of the font
size, so that a text fits whichever of the families in `FONT_FAMILY` a viewer has.
"""

from functools import lru_cache

FONT_FAMILY = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
ASCENT, DESCENT = 0.93, 0.24
"""Of a line, as parts of the font size; those of DejaVu Sans, which is the taller."""
_WIDEST = 1100
"""Of a character without an entry."""
_EXTRA = {"×": 838, "–": 500, "…": 1000, "→": 1000, "·": 380}

# Of the characters from the blank (32) to the tilde (126).
# fmt: off
_REGULAR = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636,
    636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 556, 1015, 684, 686, 722, 770, 667,
    611, 778, 752, 295, 500, 667, 557, 863, 748, 787, 667, 787, 722, 667, 611, 732, 684, 989, 685,
    667, 685, 390, 337, 390, 838, 556, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579,
    278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
)
_BOLD = (
    348, 456, 521, 838, 696, 1002, 872, 306, 457, 457, 523, 838, 380, 415, 380, 365, 696, 696, 696,
    696, 696, 696, 696, 696, 696, 696, 400, 400, 838, 838, 838, 611, 1000, 774, 762, 734, 830, 683,
    683, 821, 837, 372, 556, 775, 637, 995, 837, 850, 733, 850, 770, 720, 682, 812, 774, 1103, 771,
    724, 725, 457, 365, 457, 838, 556, 500, 675, 716, 593, 716, 678, 435, 716, 712, 343, 343, 665,
    343, 1042, 712, 687, 716, 716, 493, 595, 478, 712, 652, 924, 645, 652, 582, 712, 365, 712, 838,
)
# fmt: on


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """The width that a text needs at most, in the unit of `size`."""
    table = _BOLD if bold else _REGULAR
    widths = (table[ord(char) - 32] if " " <= char <= "~" else _EXTRA.get(char, _WIDEST) for char in text)
    return sum(widths) * size / 1000


def fitted(text: str, size: float, room: float, bold: bool = False) -> str:
    """The text, or as much of it as fits into `room`, with `…` behind."""
    if text_width(text, size, bold) <= room:
        return text
    while text and text_width(f"{text}…", size, bold) > room:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, size: float, room: float, bold: bool = False) -> list[str]:
    """Lines that fit into `room`; a word too long for it is cut."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size, bold) <= room:
            lines[-1] = joined
        else:
            lines.append(fitted(word, size, room, bold))
    return lines
