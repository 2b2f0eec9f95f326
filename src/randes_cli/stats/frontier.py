"""What a bank would weigh, and keep, with other bits, numbers of groups and shares."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter

import numpy as np

from randes_cli.core.arrays import F64, I64
from randes_cli.core.columns import columns
from randes_cli.core.cut import Cut
from randes_cli.core.grid import steps_of
from randes_cli.core.prediction import Lengths, moments
from randes_cli.core.quality import Kept, mean_kept, noise_of
from randes_cli.core.stats import rounding_of
from randes_cli.files.bank.keys import sealed_tensors, sum_tensor
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.plan import seal_matrix, sealable, share_of, superposable, tensor_bytes
from randes_cli.reports import Alternative
from randes_cli.specs import SHARES, TensorInfo, Tensors

BITS = (1, 2, 3, 4, 8, 16)
#: Numbers of groups that are looked at besides those asked for, up to the number of tasks.
GROUPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
#: Bytes of a header's entry besides the name: dtype, shape, and room for offsets.
_ENTRY = 112
#: Rows that a choice is computed on: of a model with more tensors, those of one kind are summed.
MOST_ROWS = 512
#: Shares of the gain are compared to so many digits: what is beyond is noise.
DIGITS = 4
#: Rows of a frontier that are shown, and how much more of the gain makes another worth showing.
MOST_SHOWN = 10
_STEPS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03)


@dataclass(frozen=True)
class Outline:
    """What size and quality depend on.

    Attributes:
        base: all tensors of the base, whose superposable ones are the rows of `lengths`.
        summed: the names of those that have a superposition.
        lengths: the deltas' lengths by tensor and task, as they were measured.
        indices: the tasks' indices.
        capacity: tasks that steps of 8 bits have room for.
        rest: bytes of the bank without superpositions and what the file says of them.
    """

    base: Tensors
    summed: Collection[str]
    lengths: Lengths
    indices: Sequence[int]
    capacity: int
    rest: int = 0

    def with_size(self, groups: int, bits: int, share: int, size: int) -> Outline:
        """The same where a bank of this choice takes `size` bytes."""
        return replace(self, rest=size - replace(self, rest=0).bank_bytes(groups, bits, share))

    def weigh(self, groups: int, bits: int, share: int) -> Alternative:
        """One choice, with the tasks dealt evenly."""
        lengths = self._with(groups, bits, share)
        cosine = float(moments(lengths).cosine.mean()) if self.indices else 1.0
        kept = mean_kept(noise_of(lengths))
        size = self.bank_bytes(groups, bits, share)
        return Alternative(
            groups, bits, size, cosine, False, share, kept.middle, kept.low, kept.high
        )

    def bank_bytes(self, groups: int, bits: int, share: int) -> int:
        """Bytes of the bank, but for some that names and offsets take in its header."""
        used = min(groups, len(self.indices))
        each = sum(count * _sum_bytes(tensor, bits, share) for tensor, count in self._kinds)
        beside = self._entries + (24 * len(self._rows) + self._more_entries if bits < 8 else 0)
        return self.rest + used * (each + beside)

    @cached_property
    def _there(self) -> I64:
        """The numbers of `summed`, in the base's order."""
        return np.unique(columns(self.base).at(self.summed))

    @cached_property
    def _entries(self) -> int:
        """Bytes of a header that the sums of one group take."""
        return int(self._texts.sum())

    @cached_property
    def _more_entries(self) -> int:
        """Those of scales, where they are cut."""
        return int(self._texts[columns(self.base).where(sealable)[self._there]].sum())

    @cached_property
    def _texts(self) -> I64:
        """Bytes of the entry of each sum."""
        return np.fromiter(map(len, self.base), np.int64, len(self.base))[self._there] + _ENTRY

    def shares(self) -> Iterator[int]:
        """The shares that make a difference to some tensor."""
        yield 1
        for every in SHARES[1:]:
            if any(share_of(one, 0, {0: every}).every == every for one, _ in self._kinds):
                yield every

    def widths(self) -> tuple[int, ...]:
        """The bits that some tensor can have."""
        cut = any(sealable(tensor) for tensor, _ in self._kinds)
        return tuple(bits for bits in BITS if cut or bits >= 8)

    @cached_property
    def _kinds(self) -> list[tuple[TensorInfo, int]]:
        """One of the `summed` of each dtype and shape, and how many there are."""
        found = columns(self.base)
        counts = np.bincount(found.kind_of[self._there], minlength=len(found.kinds)).tolist()
        return [pair for pair in zip(found.kinds, counts, strict=True) if pair[1]]

    @cached_property
    def _rows(self) -> I64:
        """The numbers of the superposable tensors."""
        return np.flatnonzero(columns(self.base).where(superposable))

    @cached_property
    def _bins(self) -> tuple[I64, list[TensorInfo]]:
        """(bin of each row, a tensor of each bin): tensors of a bin are cut and shared alike."""
        found = columns(self.base)
        kind_of = found.kind_of[self._rows]
        if len(kind_of) <= MOST_ROWS:
            return np.arange(len(kind_of)), [found.kinds[kind] for kind in kind_of.tolist()]
        alike: dict[tuple[bool, tuple[int, ...]], int] = {}
        bins, of = np.zeros(len(found.kinds), np.int64), list[TensorInfo]()
        for kind in dict.fromkeys(kind_of.tolist()):
            tensor = found.kinds[kind]
            shares = tuple(share_of(tensor, 0, {0: every}).every for every in SHARES)
            bins[kind] = number = alike.setdefault((sealable(tensor), shares), len(of))
            of += [tensor] * (number == len(of))
        return bins[kind_of], of

    def _with(self, groups: int, bits: int, share: int) -> Lengths:
        dealt = tuple(index % groups for index in self.indices)
        wide = self._at_8 if bits == 8 else self._at_16
        cut = Cut.supposed(self._every(share), bits if bits < 8 else None, self._sides)
        return replace(wide, groups=dealt, cuts=dict.fromkeys(dict.fromkeys(dealt), cut))

    def _every(self, share: int) -> F64:
        """What a share comes to for a tensor of each bin."""
        kinds = {(t.dtype, t.shape): t for t in self._bins[1]}
        found = {kind: float(share_of(t, 0, {0: share}).every) for kind, t in kinds.items()}
        return np.array([found[t.dtype, t.shape] for t in self._bins[1]])

    @cached_property
    def _sides(self) -> F64:
        """The shorter side of a tensor of each bin where it can be cut, else 0."""
        tensors = self._bins[1]
        return np.array([min(seal_matrix(t)) if sealable(t) else 0 for t in tensors], np.float64)

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
        steps = steps_of(rms.max(axis=1, initial=0.0), bits=width, capacity=self.capacity)
        kept, rounded = rounding_of(rms / steps[:, None])
        changed = self.lengths.changed
        if len(self._rows) <= MOST_ROWS:
            made = whole * kept, whole * rounded
            return replace(self.lengths, kept=made[0], rounded=made[1], others={}, tails=None)
        rows = [np.flatnonzero(bins == number) for number in range(len(self._bins[1]))]
        parts = [
            np.stack([values[some].sum(axis=0) for some in rows])
            for values in (whole, whole * kept, whole * rounded, changed)
        ]
        return Lengths(parts[0], parts[1], parts[2], parts[3] > 0, self.lengths.groups)


def _sum_bytes(tensor: TensorInfo, bits: int, every: int) -> int:
    """Of a superposition and of the digests of its chunks."""
    share = share_of(tensor, 0, {0: every})
    made: tuple[TensorInfo, ...]
    if bits < 8 and sealable(tensor):
        made = sealed_tensors(0, tensor, bits, share)
    else:
        made = (sum_tensor(0, tensor, bits if bits >= 8 else 16, share),)
    return tensor_bytes(made) + DIGEST_BYTES * sum(map(chunk_count, made))


def weigh_all(outline: Outline, groups: Iterable[int]) -> tuple[Alternative, ...]:
    """Every number of bits and every share with these numbers of groups, smallest bank first."""
    made = [
        outline.weigh(number, bits, share)
        for number in sorted(set(groups))
        for bits in outline.widths()
        for share in outline.shares()
    ]
    return marked(made)


def marked(choices: Iterable[Alternative]) -> tuple[Alternative, ...]:
    """Choices, smallest first, those marked than which none keeps as much in no more bytes."""
    made, most = [], -1.0
    for one in sorted(choices, key=_size):
        kept = round(one.kept, DIGITS)
        made.append(replace(one, best=kept > most))
        most = max(most, kept)
    return tuple(made)


def resized(
    choices: Iterable[Alternative], size: int, kept: Kept | None, cosine: float
) -> tuple[Alternative, ...]:
    """The choices, the bank at hand as it came to be."""
    return marked(
        present(one, size, kept, cosine) if one.present and kept else one for one in choices
    )


def present(one: Alternative, size: int, kept: Kept, cosine: float) -> Alternative:
    """A choice as the bank at hand, of which is known what its tasks keep."""
    return replace(
        one,
        bank_bytes=size,
        predicted_cosine=cosine,
        present=True,
        kept=kept.middle,
        kept_low=kept.low,
        kept_high=kept.high,
    )


def _size(one: Alternative) -> tuple[int, float, int]:
    return one.bank_bytes, -one.kept, one.groups


def group_choices(tasks: int, groups: int) -> list[int]:
    """Numbers of groups worth a look: few, the neighbours of `groups`, and one a task."""
    wanted = {*GROUPS, groups, groups // 2, 2 * groups, tasks}
    return sorted(number for number in wanted if 1 <= number <= max(1, tasks, groups))


def frontier(choices: Sequence[Alternative]) -> list[Alternative]:
    """The bank at hand and the best choices, thinned to those that add most, smallest first."""
    best = [one for one in choices if one.best]
    here = [one for one in choices if one.present and not one.best]
    shown = best
    for step in _STEPS:
        shown = _thinned(best, step)
        if len(shown) + len(here) <= MOST_SHOWN:
            break
    return sorted([*shown, *here], key=lambda one: (one.bank_bytes, one.kept))


def _thinned(best: Sequence[Alternative], step: float) -> list[Alternative]:
    """Those that keep at least `step` more than the last one shown, and the bank at hand."""
    made: list[Alternative] = []
    for one in best:
        if not made or one.present or one.kept >= made[-1].kept + step:
            made.append(one)
    return made
