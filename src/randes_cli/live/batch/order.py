"""Keeps sentence-transformers from sorting what it encodes, while rows have tasks of their own.

It puts sentences of like lengths into one batch, so that rows would be taken for others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import count
from typing import Any

#: What it measures sentences by (before its version 5.2, and since).
_MEASURES = ("_text_length", "_input_length")
_CLASSES = ("SentenceTransformer", "SparseEncoder", "CrossEncoder", "MultiVectorEncoder")
#: One for each block of rows of several tasks: any thread may encode in it.
_OPEN: list[object] = []
_PLACES = count()


@contextmanager
def kept_order(several: bool) -> Iterator[None]:
    """In the block what is encoded stays in its order, where `several`."""
    mine = object()
    if several:
        _watch(sys.modules.get("sentence_transformers"))
        _OPEN.append(mine)
    try:
        yield
    finally:
        if several:
            _OPEN.remove(mine)


def _watch(library: Any) -> None:
    """Let lengths be asked of us, once."""
    kinds = (getattr(library, name, None) for name in _CLASSES)
    for kind in {home for found in kinds if found is not None for home in found.__mro__}:
        for name in _MEASURES:
            own = kind.__dict__.get(name)
            measure = own.__func__ if isinstance(own, staticmethod) else own
            if measure is not None and not hasattr(measure, "__wrapped__"):
                made = _measured(measure)
                setattr(kind, name, staticmethod(made) if measure is not own else made)


def _measured(measure: Callable[..., Any]) -> Callable[..., Any]:
    """Lengths that fall from one sentence to the next, in a block; else what `measure` says."""

    @wraps(measure)
    def length(*of: Any) -> Any:
        return -next(_PLACES) if _OPEN else measure(*of)

    return length
