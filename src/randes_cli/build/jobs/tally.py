"""What the passes of a build find out, gathered from all threads."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from randes_cli.core.arrays import Array, Raw
from randes_cli.core.columns import columns
from randes_cli.core.energy import Energy
from randes_cli.files.digests import DIGEST_BYTES, Framed, SmallDigests, each_digest
from randes_cli.files.local.system import give_back
from randes_cli.plan import Unit
from randes_cli.specs import Table

#: Whose tensor it is: a participant's index, or the base.
Owner: TypeAlias = int | Literal["base"]


class ManySums(NamedTuple):
    """Sums over the deltas of many small tensors of one participant, as `Energy` has them."""

    owner: int
    names: Sequence[str]
    squares: Array
    crossed: Array
    rests: Array


#: What a tally holds: see its attributes. Units go by their first names.
TallyParts: TypeAlias = tuple[
    dict[tuple[int, str], dict[int, Energy]],
    dict[int, set[str]],
    dict[str, int],
    dict[str, float],
    dict[tuple[Owner, str], dict[int, bytes]],
    dict[Owner, list[tuple[Sequence[str], Raw]]],
    list[ManySums],
]


class Tally:
    """What jobs found, by owner and tensor. Jobs only call methods, which lock.

    Attributes:
        energies: sums over the deltas in steps, by participant, tensor and chunk.
        changed: tensors with any delta at all, by participant.
        peaks: largest magnitude in steps that did not fit, by unit.
        largest: largest |delta| of units without a step.
        digests: chunk digests, by owner, tensor and chunk.
        whole: of tensors of one chunk each, some names and their digests (n × 16), by owner.
        many: sums over the deltas of such, one list after the other.
    """

    def __init__(self) -> None:
        self.energies: dict[tuple[int, str], dict[int, Energy]] = {}
        self.changed: dict[int, set[str]] = {}
        self.peaks: dict[Unit, int] = {}
        self.largest: dict[Unit, float] = {}
        self.digests: dict[tuple[Owner, str], dict[int, bytes]] = {}
        self.whole: dict[Owner, list[tuple[Sequence[str], Raw]]] = {}
        self.many: list[ManySums] = []
        #: Of tables, by identity: a tally is of tables that are there for longer.
        self._frames: dict[int, Framed] = {}
        self._lock = threading.Lock()

    def differs(self, pairs: Iterable[tuple[int, str]]) -> None:
        """These tensors of participants are not the base's."""
        with self._lock:
            for index, name in pairs:
                self.changed.setdefault(index, set()).add(name)

    def digested(self, chunk: int, read: Mapping[tuple[Owner, str], bytes]) -> None:
        """This chunk of some inputs was read whole."""
        with self._lock:
            for key, value in read.items():
                self.digests.setdefault(key, {})[chunk] = value

    def took(self, owner: Owner, names: Sequence[str], digests: Raw) -> None:
        """Small tensors of an input were read whole."""
        with self._lock:
            self.whole.setdefault(owner, []).append((names, digests))

    def small(self, owner: Owner) -> dict[str, bytes]:
        """The digests of small tensors of an input."""
        made: dict[str, bytes] = {}
        for names, digests in self.whole.get(owner, ()):
            made.update(zip(names, each_digest(digests), strict=True))
        return made

    def summed_many(self, sums: ManySums, changed: Iterable[str]) -> None:
        """Small tensors of a participant were superposed, some of them with a delta."""
        with self._lock:
            self.many.append(sums)
            self.changed.setdefault(sums.owner, set()).update(changed)

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
        peaks = {unit.names[0]: peak for unit, peak in self.peaks.items()}
        largest = {unit.names[0]: size for unit, size in self.largest.items()}
        return self.energies, self.changed, peaks, largest, self.digests, self.whole, self.many

    def take_in(self, parts: TallyParts, unit_of: Mapping[str, Unit]) -> None:
        """Add what another tally found, of these units; what both did is the same."""
        energies, changed, peaks, largest, digests, whole, many = parts
        with self._lock:
            for key, chunks in energies.items():
                self.energies.setdefault(key, {}).update(chunks)
            for owner, found in digests.items():
                self.digests.setdefault(owner, {}).update(found)
            for index, names in changed.items():
                self.changed.setdefault(index, set()).update(names)
            for some, contents in whole.items():
                self.whole.setdefault(some, []).extend(contents)
            self.many += many
        for name, peak in peaks.items():
            self.overflowed(unit_of[name], peak)
        for name, size in largest.items():
            self.appeared(unit_of[name], size)

    def forget(self) -> None:
        """All of it is written down: give the memory back."""
        gone = self.energies, self.changed, self.digests, self.whole, self.many, self._frames
        for found in gone:
            found.clear()
        give_back()

    def take_peaks(self) -> dict[Unit, int]:
        """What has not fitted since the last call."""
        peaks, self.peaks = self.peaks, {}
        return peaks

    def joined(self, owner: Owner, tensors: Collection[str]) -> Mapping[str, bytes]:
        if isinstance(tensors, Table) and not self.digests:
            rows = self._rows(owner, tensors)
            if rows is not None:
                return SmallDigests(tensors, rows, self._frames)
        whole, made = self.small(owner), dict[str, bytes]()
        for name in tensors:
            chunks = self.digests.get((owner, name))
            if chunks is None:
                made[name] = whole.get(name, b"")
            else:
                made[name] = b"".join(value for _, value in sorted(chunks.items()))
        return made

    def _rows(self, owner: Owner, tensors: Table) -> Raw | None:
        """The digests of a table's tensors, a row each; None where some have others than one."""
        made, there = np.empty((len(tensors), DIGEST_BYTES), np.uint8), np.zeros(len(tensors), bool)
        for names, digests in self.whole.get(owner, ()):
            at = columns(tensors).at(names)
            known = at >= 0
            made[at[known]], there[at[known]] = digests[known], True
        return made if there.all() else None
