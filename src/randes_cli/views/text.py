"""Words and numbers for people, whatever the names in a bank hold."""

from __future__ import annotations

import unicodedata


def safe(text: str) -> str:
    """`text` with control and direction characters spelled out: names come from strangers."""
    if text.isprintable():
        return text
    return "".join(
        char if unicodedata.category(char)[0] != "C" and char.isprintable() else ascii(char)[1:-1]
        for char in text
    )


def human(size: float) -> str:
    """Bytes for people: 1.23 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"
