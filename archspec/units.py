"""Numbers as people write them: `4K` tokens, `1.5 GiB`."""

import re
from fractions import Fraction

_SUFFIX = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_count(text: str) -> int:
    """`4096`, `4K`, `128K`, `1M` -> a positive number; K is 1024. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,15})([KMG]?)", text.strip(), re.IGNORECASE)
    value = int(match[1]) * _SUFFIX[match[2].upper()] if match else 0
    if value < 1:
        raise ValueError(f"`{text}` is no number of tokens: write for example 4096, 4K or 1M")
    return value


def format_count(value: int) -> str:
    """The shortest exact form: 131072 -> `128K`, 1000 -> `1000`."""
    for suffix in ("G", "M", "K"):
        if value and value % _SUFFIX[suffix] == 0:
            return f"{value // _SUFFIX[suffix]}{suffix}"
    return str(value)


_BYTES = {"B": 1} | {
    f"{prefix}{unit}": base**power
    for unit, base in (("B", 1000), ("iB", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}


def parse_bytes(text: str) -> int:
    """`80GB` is 80 * 10**9 bytes, `80GiB` 80 * 2**30. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([KMGT]?i?B)", text.strip())
    size = _BYTES.get(match[2]) if match else None
    value = int(Fraction(match[1]) * size) if match and size else 0
    if value < 1:
        raise ValueError(f"`{text}` is no amount of memory: write for example 80GB or 24GiB")
    return value


def format_bytes(value: int) -> str:
    """Three figures and a binary unit: `3.05 GiB`."""
    size, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            break
        size /= 1024
    return f"{value} B" if unit == "B" else f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
