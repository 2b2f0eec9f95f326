"""What a bank of tasks would weigh, and keep, with other bits, numbers of groups and shares."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter

import numpy as np

from randes_cli.core.arrays import F64, I64, Bools
from randes_cli.core.columns import columns
from randes_cli.core.grid import steps_of
from randes_cli.core.prediction.cosines import default_coefficient, rounding_of
from randes_cli.core.prediction.cut import Cut
from randes_cli.core.prediction.dealt import DealtCut, dealt_cut
from randes_cli.core.prediction.lengths import Lengths
from randes_cli.core.prediction.mixture import Shapes
from randes_cli.core.prediction.quality import mean_kept, noise_of, noise_of_each
from randes_cli.files.bank.keys import sealed_tensors, sum_tensor
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.plan import sealable, share_of, superposable, tensor_bytes
from randes_cli.reports import Alternative
from randes_cli.specs import SHARES, TensorInfo, Tensors
from randes_cli.stats.approximate import are_heavy
from randes_cli.stats.coefficients import alone_in
from randes_cli.stats.lengths import cut_side

BITS = (1, 2, 3, 4, 8, 16)
#: Bytes of a header's entry besides the name: dtype, shape, and room for offsets.
_ENTRY = 112
#: Rows that a choice is computed on, and rows times tasks: of a model with more tensors, those of
#: one kind are summed.
_MOST_ROWS, _MOST_CELLS = 512, 2**13


@dataclass(frozen=True)
class Outline:
    """What size and quality depend on.

    Attributes:
        base: all tensors of the base, whose superposable ones are the rows of `lengths`.
        summed: names of those that have a superposition.
        lengths: the deltas' lengths by tensor and task, as they were measured.
        indices: the tasks' indices.
        capacity: tasks that steps of 8 bits have room for.
        rest: bytes of the bank without superpositions and what the file says of them.
        wide: names of those that have 16 bits where others have 8.
    """

    base: Tensors
    summed: Collection[str]
    lengths: Lengths
    indices: Sequence[int]
    capacity: int
    rest: int = 0
    wide: Collection[str] = ()
    _sizes: dict[tuple[int, int], int] = field(default_factory=dict, init=False, compare=False)
    _cuts: dict[tuple[int, int], DealtCut] = field(default_factory=dict, init=False, compare=False)
    _shares: dict[int, F64] = field(default_factory=dict, init=False, compare=False)

    def with_size(self, groups: int, bits: int, share: int, size: int) -> Outline:
        """The same where a bank of this choice takes `size` bytes."""
        return replace(self, rest=size - replace(self, rest=0).bank_bytes(groups, bits, share))

    def weigh(self, groups: int, bits: int) -> Iterator[Alternative]:
        """Choices, one for each of `shares`, with the tasks dealt evenly."""
        shares = tuple(self.shares())
        lengths = self._with(groups, bits, np.array([*map(self._every, shares)]))
        each = noise_of_each(lengths) if self.indices else [noise_of(lengths)] * len(shares)
        heavy = bits < 8 and self._heavy
        for share, noise in zip(shares, each, strict=True):
            kept, cosine = mean_kept(noise), float(noise.cosine.mean()) if self.indices else 1.0
            size, part = self.bank_bytes(groups, bits, share), (kept.mean, kept.low, kept.high)
            yield Alternative(groups, bits, size, cosine, False, share, *part, approximate=heavy)

    @cached_property
    def _heavy(self) -> bool:
        return are_heavy(self._at_16)

    def defaults(self, groups: int, bits: int, share: int) -> list[float]:
        """λ of every task in a bank of this choice."""
        lengths = self._with(groups, bits, self._every(share))
        alone = alone_in(lengths.groups, (), lengths.groups if bits < 8 else ())
        told = map(default_coefficient, noise_of(lengths).cosine.tolist())
        return [1.0 if g in alone else one for g, one in zip(lengths.groups, told, strict=True)]

    def bank_bytes(self, groups: int, bits: int, share: int) -> int:
        """Bytes of the bank, but for some that names and offsets take in its header."""
        used = min(groups, len(self.indices))
        each = self._each(bits, share)
        beside = self._entries + (24 * len(self._rows) + self._more_entries if bits < 8 else 0)
        return self.rest + used * (each + beside)

    def _each(self, bits: int, share: int) -> int:
        """Those of the sums of one group."""
        if (bits, share) not in self._sizes:
            self._sizes[bits, share] = sum(
                count * _sum_bytes(tensor, 16 if wide and bits == 8 else bits, share)
                for tensor, wide, count in self._kinds
            )
        return self._sizes[bits, share]

    @cached_property
    def _entries(self) -> int:
        """Bytes of a header that the sums of one group take."""
        return int(self._texts.sum())

    @cached_property
    def _more_entries(self) -> int:
        """Those of scales, where they are cut."""
        return int(self._texts[columns(self.base).where(sealable)[self._there]].sum())

    @cached_property
    def _there(self) -> I64:
        """The numbers of `summed`, in the base's order."""
        return np.flatnonzero(self._among(self.summed))

    @cached_property
    def _texts(self) -> I64:
        """Bytes of the entry of each of them."""
        return np.fromiter(map(len, self.base), np.int64, len(self.base))[self._there] + _ENTRY

    @cached_property
    def _wide(self) -> Bools:
        """Which of all tensors are in `wide`."""
        return self._among(self.wide)

    def _among(self, names: Collection[str]) -> Bools:
        made = np.zeros(len(self.base), np.bool_)
        made[columns(self.base).at(names)] = True
        return made

    def shares(self) -> Iterator[int]:
        """The shares that make a difference to some tensor."""
        yield 1
        for every in SHARES[1:]:
            if any(share_of(one, 0, {0: every}).every == every for one, *_ in self._kinds):
                yield every

    def widths(self) -> tuple[int, ...]:
        """The bits that some tensor can have."""
        cut = any(sealable(tensor) for tensor, *_ in self._kinds)
        return tuple(bits for bits in BITS if cut or bits >= 8)

    @cached_property
    def _kinds(self) -> list[tuple[TensorInfo, bool, int]]:
        """One of `summed` of each dtype and shape, whether it is wide, and how many there are."""
        found, there = columns(self.base), self._there
        counts = np.bincount(2 * found.kind_of[there] + self._wide[there])
        alike = np.flatnonzero(counts)
        both = zip(alike.tolist(), counts[alike].tolist(), strict=True)
        return [(found.kinds[kind // 2], bool(kind % 2), count) for kind, count in both]

    @cached_property
    def _rows(self) -> I64:
        """The numbers of the superposable tensors."""
        return np.flatnonzero(columns(self.base).where(superposable))

    @cached_property
    def _many(self) -> bool:
        rows, tasks = self.lengths.whole.shape
        return bool(rows > _MOST_ROWS or rows * tasks > _MOST_CELLS)

    @cached_property
    def _bins(self) -> tuple[I64, list[TensorInfo]]:
        """(bin of each row, a tensor of each bin): tensors of a bin are cut and shared alike."""
        found = columns(self.base)
        kind_of = found.kind_of[self._rows]
        if not self._many:
            return np.arange(len(kind_of)), [found.kinds[kind] for kind in kind_of.tolist()]
        alike: dict[tuple[int, tuple[int, ...]], int] = {}
        bins, of = np.zeros(len(found.kinds), np.int64), list[TensorInfo]()
        for kind in dict.fromkeys(kind_of.tolist()):
            tensor = found.kinds[kind]
            shares = tuple(share_of(tensor, 0, {0: every}).every for every in SHARES)
            number = alike.setdefault((cut_side(tensor).bit_length(), shares), len(of))
            of += [tensor] * (number == len(of))
            bins[kind] = number
        return bins[kind_of], of

    def _with(self, groups: int, bits: int, share: F64) -> Lengths:
        """The deltas as they would lie; `share` as a `Cut` has it."""
        dealt = tuple(index % groups for index in self.indices)
        wide = self._at_8 if bits == 8 else self._at_16
        cut = Cut.supposed(share, bits if bits < 8 else None, self._sides)
        made = replace(wide, groups=dealt, cuts=dict.fromkeys(dict.fromkeys(dealt), cut))
        if bits < 8 and self._shapes is not None and made.order is None:
            found = self._cut(groups, bits)
            for column, group in enumerate(sorted(set(dealt))):
                members = made.members(group)
                whole = made.sum_energy(group, members)
                length = cut.share * found.length[:, column] * whole
                made.tell(group, found.kept[:, members], length)
        return made

    @cached_property
    def _shapes(self) -> Shapes | None:
        """The deltas' tails at 16 bits, of which sums are cut."""
        tails = self._at_16.tails
        return None if tails is None else Shapes.of([*tails])

    def _cut(self, groups: int, bits: int) -> DealtCut:
        """What few bits make of the sums of so many groups, whatever the share."""
        key = groups, bits
        if key not in self._cuts and self._shapes is not None:
            dealt = [index % groups for index in self.indices]
            energy = self._at_16.rounded
            self._cuts[key] = dealt_cut(energy, self._shapes, self._sides, dealt, bits)
        return self._cuts[key]

    def _every(self, share: int) -> F64:
        """What a share comes to for a tensor of each bin."""
        if share not in self._shares:
            kinds = {(t.dtype, t.shape): t for t in self._bins[1]}
            found = {kind: float(share_of(t, 0, {0: share}).every) for kind, t in kinds.items()}
            self._shares[share] = np.array([found[t.dtype, t.shape] for t in self._bins[1]])
        return self._shares[share]

    @cached_property
    def _sides(self) -> F64:
        """The shorter side of a tensor of each bin where it can be cut, else 0."""
        return np.array([*map(cut_side, self._bins[1])], np.float64)

    @cached_property
    def _at_8(self) -> Lengths:
        return self._rounded(8)

    @cached_property
    def _at_16(self) -> Lengths:
        return self._rounded(16)

    def _rounded(self, width: int) -> Lengths:
        """The lengths, rounded as Gaussian deltas would be to `width` bits, by bin."""
        sizes = columns(self.base).of(attrgetter("elements"), np.float64)[self._rows]
        whole, bins = self.lengths.whole, self._bins[0]
        rms = np.sqrt(whole / sizes[:, None])
        most = rms.max(axis=1, initial=0.0)
        steps = steps_of(most, bits=width, capacity=self.capacity)
        if width == 8 and self.wide:
            steps = np.where(
                self._wide[self._rows], steps_of(most, bits=16, capacity=self.capacity), steps
            )
        kept, rounded = rounding_of(rms / steps[:, None])
        lengths = replace(self.lengths, kept=whole * kept, rounded=whole * rounded, others={})
        return _pooled(lengths, bins, len(self._bins[1])) if self._many else lengths


def _pooled(lengths: Lengths, bins: I64, count: int) -> Lengths:
    """Tensors of one bin as one: energies are summed, and tails are their mean by energy."""
    whole, tails = lengths.whole, lengths.tails
    ends = () if tails is None else tails * whole
    found = whole, lengths.kept, lengths.rounded, lengths.changed, *ends
    rows = [np.flatnonzero(bins == number) for number in range(count)]
    parts = np.array([[values[some].sum(axis=0) for some in rows] for values in found])
    if tails is not None:
        np.divide(parts[4:], parts[0], out=parts[4:], where=parts[0] > 0)
    pooled = None if tails is None else parts[4:]
    return Lengths(parts[0], parts[1], parts[2], parts[3] > 0, lengths.groups, tails=pooled)


def _sum_bytes(tensor: TensorInfo, bits: int, every: int) -> int:
    """Of a superposition and of the digests of its chunks."""
    share = share_of(tensor, 0, {0: every})
    made: tuple[TensorInfo, ...]
    if bits < 8 and sealable(tensor):
        made = sealed_tensors(0, tensor, bits, share)
    else:
        made = (sum_tensor(0, tensor, bits if bits >= 8 else 16, share),)
    return tensor_bytes(made) + DIGEST_BYTES * sum(map(chunk_count, made))
