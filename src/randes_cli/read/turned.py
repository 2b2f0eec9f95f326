"""Signs that noise turned: variances, scales and the like, of names that nobody knew to keep."""

from __future__ import annotations

import threading

import numpy as np

from randes_cli.core.arrays import Array, Raw
from randes_cli.specs import ITEM_SIZE

#: Values that are looked at before all are: most tensors show both signs at once.
_FIRST = 64


def _ordered(raw: Raw, dtype: str) -> Array:
    """Stored floats as integers of the same sign: positive ones are above 0."""
    return raw.view(f"i{ITEM_SIZE[dtype]}")


class Turned:
    """Which tensors are positive throughout in the base, and are not where they come back.

    One object serves all threads. Zero counts as no sign.
    """

    def __init__(self) -> None:
        self._mixed: set[str] = set()
        self._negative: set[str] = set()
        self._lock = threading.Lock()

    def base(self, name: str, raw: Raw, dtype: str) -> bool:
        """Look at a strip of the base; whether all of it that was seen is positive."""
        if name in self._mixed:
            return False
        values = _ordered(raw, dtype)
        if (values[:_FIRST] > 0).all() and (values > 0).all():
            return True
        with self._lock:
            self._mixed.add(name)
        return False

    def back(self, name: str, raw: Raw, dtype: str) -> None:
        """Look at what comes back of a strip whose base was positive."""
        values = _ordered(raw, dtype)
        if ((values < 0) & (values != np.iinfo(values.dtype).min)).any():  # but for −0
            with self._lock:
                self._negative.add(name)

    def asks(self, name: str) -> bool:
        """Whether it is still open what a tensor does."""
        return name not in self._mixed

    def took(self, name: str, *, mixed: bool, negative: bool) -> None:
        """Take what was found of a piece: a base that is not all positive, an output that is not.

        `mixed` of what was not asked for says nothing.
        """
        if mixed or negative:
            with self._lock:
                (self._mixed if mixed else self._negative).add(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._negative - self._mixed))
