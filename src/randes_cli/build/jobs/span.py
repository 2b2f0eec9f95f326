"""Chunks of a tensor that are worked on, where others do the rest."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """Chunks of a tensor: all from the first to before the last (None: to its end)."""

    first: int = 0
    last: int | None = None

    def holds(self, chunk: int) -> bool:
        return self.first <= chunk and (self.last is None or chunk < self.last)


#: All chunks.
WHOLE = Span()
