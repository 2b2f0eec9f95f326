"""The size of a new bank before a byte of it is written, and of those that its tasks could make.

Of a model with 100,000 tensors a dozen choices are weighed: what a bank holds is columns here,
one row a tensor of the base, and no record of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from randes_cli.build.draft import Draft
from randes_cli.build.jobs.copies import closing_tensors
from randes_cli.build.layout import as_sealed_to, default_capacity
from randes_cli.build.records import NO_FINGERPRINT
from randes_cli.build.steps import Grids, Steps
from randes_cli.core.arrays import I64, Bools
from randes_cli.core.columns import columns
from randes_cli.files.bank.checks import cut_shape
from randes_cli.files.bank.entries import Entries, digits_of, name_bytes, room_of_entries
from randes_cli.files.bank.keys import cut_key, sealed_tensors, sum_tensor
from randes_cli.files.bank.manifest import Manifest, encode
from randes_cli.files.bank.sizes import bank_bytes
from randes_cli.plan import sealable, share_of, superposable
from randes_cli.reports import Alternative
from randes_cli.specs import TensorInfo
from randes_cli.stats.coefficients import with_defaults
from randes_cli.stats.stored import Statistics


class _Fixed(NamedTuple):
    """Tensors that every bank of a draft has.

    Attributes:
        base: the base's, where it is inside.
        exact: what tasks keep exactly; `every` is what they may, as the header's room has it.
        last: statistics, and digests of a base outside.
        files: side files.
    """

    base: Entries
    exact: Entries
    last: Entries
    files: Entries
    every: Entries


class Sizes:
    """Sizes of the banks that a draft's tasks make, with these or other options.

    `manifest` and `statistics` are those of the bank as it is packed; `asked` are the bytes of a
    shard that were asked for.
    """

    def __init__(
        self, draft: Draft, manifest: Manifest, statistics: Statistics, asked: int | None
    ) -> None:
        self.draft, self.manifest, self.statistics = draft, manifest, statistics
        self.asked = asked
        base = list(draft.base.tensors.values())
        places = {tensor.name: row for row, tensor in enumerate(base)}
        found = columns(draft.base.tensors)
        self._kind, self._shells = found.kind_of, found.kinds
        self._names = np.array([name_bytes(t.name) for t in base], np.int64)
        self._rows = np.array([places[n] for u in draft.units for n in u.names], np.int64)
        self._unit = np.repeat(np.arange(len(draft.units)), [u.layers for u in draft.units])
        self._meets = [self._met(p.fit.superposed, base) for p in draft.coming]
        self._superposable = sum(map(superposable, base))
        self._sealable = np.array([sealable(shell) for shell in self._shells], bool)
        self._fixed = self._fixed_parts()
        long = replace(manifest, steps={}, widths={})
        self._beside = len(encode(long)) - len(encode(_shell(manifest)))

    def _met(self, superposed: Mapping[str, object], base: Sequence[TensorInfo]) -> Bools:
        """Which rows are of units in which a task has a superposed tensor."""
        there = np.array([tensor.name in superposed for tensor in base], bool)[self._rows]
        units = np.zeros(len(self.draft.units), bool)
        units[self._unit[there]] = True
        return units[self._unit]

    def _fixed_parts(self) -> _Fixed:
        draft, cells = self.draft, self.manifest.cells
        own = {(task.index, name) for task in self.manifest.tasks for name in task.own}
        exact = [one.kept for one in draft.exact if one.twin is None]
        exact += [one.kept for one in draft.exact if one.twin and (one.owner, one.name) in own]
        last = draft.beside(cells)
        files = [tensor for tensor, _ in draft.new_files()]
        every = [one.kept for one in draft.exact]
        base = Entries.of(draft.base_table)
        return _Fixed(base, *map(Entries.of, (exact, last, files, every)))

    # Sizes

    def here(self, steps: Steps, seal_bits: int | None) -> int:
        """Bytes of the bank as it is packed, to the byte if samples showed what has changed."""
        grids, manifest = (
            steps.grids(self.draft.units, steps.bits, steps.capacity),
            self.manifest,
        )
        if seal_bits is not None:
            sealed = manifest.with_sealed(as_sealed_to(manifest, seal_bits))
            manifest = with_defaults(sealed, self.statistics.known)
        return self._size(self.draft, grids, manifest, seal_bits)

    def of(self, steps: Steps, one: Alternative, lambdas: Sequence[float]) -> int:
        """Bytes of the bank that the same tasks make with other bits, groups and shares.

        `lambdas` are the tasks' λ then, which are digits in a text.
        """
        draft = self.draft
        coming = [replace(p, group=p.index % one.groups) for p in draft.coming]
        seal_bits, live_bits = (one.bits, 16) if one.bits < 8 else (None, one.bits)
        held = Counter(participant.group for participant in draft.coming)
        told = draft.start.capacity != default_capacity(held.values())
        dealt = Counter(participant.group for participant in coming)
        capacity = draft.start.capacity if told else default_capacity(dealt.values())
        start = replace(draft.start, bits=live_bits, groups=one.groups, capacity=capacity)
        start = start.with_shares(dict.fromkeys(range(one.groups), one.share))
        other = replace(draft, start=start, coming=coming)
        grids = steps.grids(draft.units, live_bits, capacity)
        tasks = [
            replace(task, group=task.index % one.groups, default=value)
            for task, value in zip(self.manifest.tasks, lambdas, strict=True)
        ]
        made = replace(
            start.with_tasks(tasks),
            cells=self.manifest.cells,
            next_index=self.manifest.next_index,
            estimated=self.manifest.estimated,
            base=replace(start.base, fingerprint=NO_FINGERPRINT),
        )
        if seal_bits is not None:
            made = made.with_sealed(as_sealed_to(made, seal_bits))
        return self._size(other, grids, made, seal_bits)

    def _size(self, draft: Draft, grids: Grids, manifest: Manifest, seal_bits: int | None) -> int:
        fixed = self._fixed
        closing = Entries.of(closing_tensors())
        entered = self._entered(draft)
        ready, wide = grids.ready[self._unit], grids.bits[self._unit] == 16
        if seal_bits is None:
            sums = [self._live(draft, g, np.flatnonzero(m & ready), wide) for g, m in entered]
            made = [fixed.base, *sums, fixed.exact, fixed.last, fixed.files]
            every = [self._sums(draft, g, np.flatnonzero(m), wide) for g, m in entered]
            room = [fixed.base, fixed.last, fixed.files, *every, fixed.every, closing]
            held = sum(bool(m.any()) for _, m in entered)
        else:
            summed = [(g, m & ready) for g, m in entered]
            made, room = self._sealed(draft, summed, wide, seal_bits)
            room.append(closing)
            held = sum(bool((m & ready).any()) for _, m in entered)
        tables = self._table_bytes(grids, manifest.bits)
        size = len(encode(_shell(manifest))) + self._beside + tables
        before = room_of_entries(Entries.joined(room), held)
        return bank_bytes(made, before, size, asked=self.asked).bytes

    def _entered(self, draft: Draft) -> list[tuple[int, Bools]]:
        """Each group that tasks enter, and the places (of `_rows`) of the units that they meet."""
        made: dict[int, Bools] = {}
        for participant, meets in zip(draft.coming, self._meets, strict=True):
            made[participant.group] = made.get(participant.group, False) | meets
        return sorted(made.items(), key=itemgetter(0))

    def _table_bytes(self, grids: Grids, bits: int) -> int:
        """Bytes that the manifest's steps take, and widths other than `bits`."""
        made = 0
        for there, values in (
            (grids.ready, grids.exponents),
            (grids.ready & (grids.bits != bits), grids.bits),
        ):
            at = np.flatnonzero(there[self._unit])
            found, names = values[self._unit[at]], self._names[self._rows[at]]
            digits = digits_of(np.abs(found)) + (found < 0)
            made += int((names + digits + len('"":,')).sum()) - (len(at) > 0)
        return made

    # Superpositions

    def _live(self, draft: Draft, group: int, at: I64, wide: Bools) -> Entries:
        """A group's sums, wide ones first."""
        return self._sums(draft, group, at[np.argsort(~wide[at], kind="stable")], wide)

    def _sums(self, draft: Draft, group: int, at: I64, wide: Bools) -> Entries:
        """A group's sums at some places, as a live bank stores them."""
        rows, shares = self._rows[at], draft.start.shares

        def of_kinds(bits: int) -> Entries:
            made = [sum_tensor(group, t, bits, share_of(t, group, shares)) for t in self._shells]
            return self._of(made, rows)

        both = zip(of_kinds(16), of_kinds(8), strict=True)
        return Entries(*(np.where(wide[at], sixteen, eight) for sixteen, eight in both))

    def _of(self, kinds: Sequence[TensorInfo], rows: I64) -> Entries:
        """The tensors of some rows, of which `kinds` has one for each kind, without their names."""
        return Entries.of(kinds).at(self._kind[rows]).named(self._names[rows])

    def _sealed(
        self, draft: Draft, summed: Sequence[tuple[int, Bools]], wide: Bools, bits: int
    ) -> tuple[list[Entries], list[Entries]]:
        """The parts of a bank whose groups are sealed, and in which order its header has room.

        What stays, scales, codes and moments; for the header codes follow their scales.
        """
        live, scales, codes = list[Entries](), list[Entries](), list[Entries]()
        for group, there in summed:
            cut = self._sealable[self._kind[self._rows]]
            live.append(self._live(draft, group, np.flatnonzero(there & ~cut), wide))
            rows, shares = np.sort(self._rows[there & cut]), draft.start.shares
            both = [
                sealed_tensors(group, t, bits, share_of(t, group, shares)) if can else (t, t)
                for t, can in zip(self._shells, self._sealable, strict=True)
            ]
            scales.append(self._of([scale for scale, _ in both], rows))
            codes.append(self._of([code for _, code in both], rows))
        shape = cut_shape(self._superposable)
        moments = Entries.of(TensorInfo(cut_key(group), "F64", shape) for group, _ in summed)
        parts = [*scales, *codes]
        if len(summed) == 1:
            parts = [Entries.joined(parts)]  # one part of the bank
        fixed, pairs = self._fixed, map(_paired, scales, codes)
        kept = [fixed.base, *live, fixed.exact, fixed.last, fixed.files]
        return [*kept, *parts, moments], [*kept, *pairs, moments]


def _paired(one: Entries, two: Entries) -> Entries:
    """The first of each, the second, and so on."""
    return Entries(*(np.stack(both, axis=1).reshape(-1) for both in zip(one, two, strict=True)))


def _shell(manifest: Manifest) -> Manifest:
    """A manifest without what is the same for all choices, and long."""
    base = replace(manifest.base, tensors={})
    return replace(manifest, base=base, cells=(), steps={}, widths={})
