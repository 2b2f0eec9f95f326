"""Words and numbers for people, whatever the names in a bank hold."""

from __future__ import annotations

#: Where a base is, by the word that a manifest has for it.
PLACES = {"embed": "inside", "reference": "outside the bank", "zero": "all zeros"}


def decimal(value: float, digits: int) -> str:
    """A number with so many digits, and no sign where they are all zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def times(ratio: float | None, digits: int) -> str:
    """A ratio with its sign; a dash where it has no meaning."""
    return "-" if ratio is None else f"{ratio:.{digits}f} ×"


def human(size: float) -> str:
    """Bytes for people: 1.23 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.995:  # else it would be rounded to 1000.00
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"


def label(name: str, width: int = 44) -> str:
    """A name in a picture: its middle left out where too long, no control characters, no TeX."""
    name = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
    if len(name) > width:
        name = name[: width // 2] + "…" + name[-(width // 2 - 1) :]
    return name.replace("$", r"\$")
