"""Codes of superpositions on their way into a sealed bank."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np

from randes_cli.core.agreement import Agreement
from randes_cli.core.arrays import Raw
from randes_cli.core.codes import packed_bytes
from randes_cli.core.seal_passes import Scales, Units, cut
from randes_cli.files.bank.tensor_sink import TensorSink
from randes_cli.files.digests import digest
from randes_cli.plan import CHUNK_ELEMENTS

#: Elements that are cut at once: they make whole chunks of codes, as many as these have bits.
SPAN = 8 * CHUNK_ELEMENTS


class Room(threading.local):
    """Memory of a thread's own: new pages cost more than filling them."""

    _held = np.empty(0, np.uint8)

    def of(self, size: int) -> Raw:
        """So many bytes, until the thread asks again."""
        if len(self._held) < size:
            self._held = np.empty(size, np.uint8)
        return self._held[:size]


_codes = Room()


def write_codes(
    sink: TensorSink,
    key: str,
    span: tuple[int, int],
    bits: int,
    pieces: Iterable[Units],
    scales: Scales,
) -> Agreement:
    """Cut and write a span, (first element, count): consecutive pieces of multiples of eight.

    But for the last. Returns how they agree with what their codes are read as.
    """
    near, (start, count) = Agreement(), span
    whole, place = _codes.of(packed_bytes(count, bits)), start
    for units in pieces:
        first = (place - start) // 8 * bits
        out = whole[first : first + packed_bytes(len(units), bits)]
        near = near.joined(cut(units, place, bits, scales, out))
        place += len(units)
    sink.write(key, start // 8 * bits, whole)
    first = start // SPAN * bits
    for at in range(0, len(whole), CHUNK_ELEMENTS):
        value = digest(whole[at : at + CHUNK_ELEMENTS])
        sink.set_digest(key, first + at // CHUNK_ELEMENTS, value)
    return near
