"""What the passes of a build find out, gathered from all threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from randes_cli.core.energy import Energy
from randes_cli.plan import Unit

#: Whose tensor it is: a participant's index, or the base.
Owner: TypeAlias = int | Literal["base"]
#: What a tally holds: see its attributes.
TallyParts: TypeAlias = tuple[
    dict[tuple[int, str], dict[int, Energy]],
    set[tuple[int, str]],
    dict[Unit, int],
    dict[Unit, float],
    dict[tuple[Owner, str], dict[int, bytes]],
]


class Tally:
    """What jobs found, by owner and tensor. Jobs only call methods, which lock.

    Attributes:
        energies: sums over the deltas in steps, by participant, tensor and chunk.
        changed: (participant, tensor) pairs with any delta at all.
        peaks: largest magnitude in steps that did not fit, by unit.
        largest: largest |delta| of units without a step.
        digests: chunk digests, by owner, tensor and chunk.
    """

    def __init__(self) -> None:
        self.energies: dict[tuple[int, str], dict[int, Energy]] = {}
        self.changed: set[tuple[int, str]] = set()
        self.peaks: dict[Unit, int] = {}
        self.largest: dict[Unit, float] = {}
        self.digests: dict[tuple[Owner, str], dict[int, bytes]] = {}
        self._lock = threading.Lock()

    def differs(self, pairs: Iterable[tuple[int, str]]) -> None:
        """These tensors of participants are not the base's."""
        with self._lock:
            self.changed.update(pairs)

    def digested(self, owner: Owner, name: str, chunk: int, value: bytes) -> None:
        """A chunk of an input was read whole."""
        with self._lock:
            self.digests.setdefault((owner, name), {})[chunk] = value

    def overflowed(self, unit: Unit, peak: int) -> None:
        """A superposition passed its range: it is not written whole."""
        with self._lock:
            self.peaks[unit] = max(self.peaks.get(unit, 0), peak)

    def appeared(self, unit: Unit, largest: float) -> None:
        """A unit without a step has a delta after all."""
        with self._lock:
            self.largest[unit] = max(self.largest.get(unit, 0.0), largest)

    def summed(self, chunk: int, energies: Mapping[tuple[int, str], Energy]) -> None:
        """A chunk was superposed: the sums over its participants' deltas."""
        with self._lock:
            for key, value in energies.items():
                self.energies.setdefault(key, {})[chunk] = value

    def parts(self) -> TallyParts:
        """All that was found, as it travels."""
        return self.energies, self.changed, self.peaks, self.largest, self.digests

    def take_in(self, parts: TallyParts) -> None:
        """Add what another tally found; what both did is the same."""
        energies, changed, peaks, largest, digests = parts
        with self._lock:
            for key, chunks in energies.items():
                self.energies.setdefault(key, {}).update(chunks)
            for owner, found in digests.items():
                self.digests.setdefault(owner, {}).update(found)
            self.changed.update(changed)
        for unit, peak in peaks.items():
            self.overflowed(unit, peak)
        for unit, size in largest.items():
            self.appeared(unit, size)

    def take_peaks(self) -> dict[Unit, int]:
        """What has not fitted since the last call."""
        peaks, self.peaks = self.peaks, {}
        return peaks

    def joined(self, owner: Owner, names: Iterable[str]) -> dict[str, bytes]:
        """Each tensor's chunk digests, joined."""
        return {
            name: b"".join(v for _, v in sorted(self.digests.get((owner, name), {}).items()))
            for name in names
        }
