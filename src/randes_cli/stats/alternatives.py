"""What a bank would weigh, and give back, with other bits and numbers of groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.grid import step_exponent
from randes_cli.core.levels import SEAL_BITS
from randes_cli.core.prediction import Lengths, Moments, moments
from randes_cli.core.stats import rounding_of
from randes_cli.errors import UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import parse_key, sealed_tensors, sum_tensor
from randes_cli.files.writer import parse_size
from randes_cli.plan import sealable, share_of, superposable, tensor_bytes
from randes_cli.reports import Alternative
from randes_cli.specs import TensorInfo
from randes_cli.stats.lengths import bank_lengths, supposed_cuts
from randes_cli.stats.stored import Statistics

BITS = (1, 2, 3, 4, 8, 16)
#: Numbers of groups that are looked at besides those asked for, up to the number of tasks.
GROUPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
#: Plain numbers below it are ratios to the base, from it on they are bytes.
_MOST_RATIO = 1000


@dataclass(frozen=True)
class Outline:
    """What size and quality depend on.

    Attributes:
        base: all tensors of the base, whose superposable ones are the rows of `norms`.
        summed: those that have a superposition.
        lengths: the deltas' lengths by tensor and task, as they were measured.
        indices: the tasks' indices.
        rest: bytes of the bank without superpositions.
        capacity: tasks that steps of 8 bits have room for.
        share: superpositions have one element in this many.
    """

    base: Sequence[TensorInfo]
    summed: Sequence[TensorInfo]
    lengths: Lengths
    indices: Sequence[int]
    rest: int
    capacity: int
    share: int = 1

    def bank_bytes(self, groups: int, bits: int) -> int:
        """Bytes of the bank."""
        used = min(groups, len(self.indices))
        each = sum(count * _sum_bytes(tensor, bits, self.share) for tensor, count in self._kinds)
        return self.rest + used * each

    @cached_property
    def _kinds(self) -> list[tuple[TensorInfo, int]]:
        """One of the `summed` of each dtype and shape, and how many there are."""
        found = Counter((tensor.dtype, tensor.shape) for tensor in self.summed)
        return [(TensorInfo("", *kind), count) for kind, count in found.items()]

    def cosine(self, groups: int, bits: int) -> float:
        """Mean predicted cosine, with the tasks dealt evenly."""
        dealt = [index % groups for index in self.indices]
        sealed = dict.fromkeys(dealt, bits) if bits < 8 else {}
        shares = dict.fromkeys(dealt, self.share) if self.share > 1 else {}
        whole, (kept, rounded) = self.lengths.whole, self._rounding(bits)
        lengths = Lengths(
            whole,
            whole * kept,
            whole * rounded,
            self.lengths.changed,
            dealt,
            self.lengths.order,
            supposed_cuts(self.base, sealed, shares),
            self.lengths.tails,
        )
        return float(moments(lengths).cosine.mean()) if dealt else 1.0

    def _rounding(self, bits: int) -> tuple[F64, F64]:
        """⟨Δ, q⟩ and ‖q‖² over ‖Δ‖², by tensor and task, as Gaussian deltas would have them."""
        sizes = np.array([t.elements for t in self.base if superposable(t)], np.float64)
        rms = np.sqrt(self.lengths.whole / sizes[:, None])
        width, capacity = 8 if bits == 8 else 16, self.capacity
        steps = [
            2.0 ** step_exponent(most, bits=width, capacity=capacity) if most > 0 else 1.0
            for most in rms.max(axis=1, initial=0.0).tolist()
        ]
        sigma = rms / np.array(steps)[:, None]
        return rounding_of(sigma)

    def weigh(self, groups: int, bits: int) -> Alternative:
        """One choice."""
        size = self.bank_bytes(groups, bits)
        return Alternative(groups, bits, size, self.cosine(groups, bits), False)


def _sum_bytes(tensor: TensorInfo, bits: int, every: int) -> int:
    share = share_of(tensor, 0, {0: every})
    if bits in SEAL_BITS and bits < 8:
        if sealable(tensor):
            return tensor_bytes(sealed_tensors(0, tensor, bits, share))
        return 2 * tensor.elements
    return sum_tensor(0, tensor, bits, share).nbytes


def weigh_all(outline: Outline, groups: Iterable[int]) -> tuple[Alternative, ...]:
    """Every number of bits with these numbers of groups, smallest bank first."""
    made = [outline.weigh(number, bits) for number in sorted(set(groups)) for bits in BITS]
    return tuple(sorted(made, key=lambda one: (one.bank_bytes, one.groups)))


def group_choices(tasks: int, groups: int) -> list[int]:
    """Numbers of groups worth a look: few, the neighbours of `groups`, and one a task."""
    wanted = {*GROUPS, groups, groups // 2, 2 * groups, tasks}
    return sorted(number for number in wanted if 1 <= number <= max(1, tasks, groups))


def alternatives(bank: BankFile, statistics: Statistics, found: Moments) -> tuple[Alternative, ...]:
    """Neighbouring choices of bits and groups for a bank at hand, smallest first."""
    manifest, tensors = bank.manifest, bank.header.tensors
    count, groups = len(manifest.tasks), manifest.groups
    held, names = 0, set[str]()
    for key, tensor in tensors.items():
        kind, _, name = parse_key(key)
        if kind in ("sum", "scale"):
            held += tensor.nbytes
            names.add(name)
    outline = Outline(
        list(manifest.base.tensors.values()),
        [tensor for name, tensor in manifest.base.tensors.items() if name in names],
        bank_lengths(manifest, statistics.known),
        [task.index for task in manifest.tasks],
        bank.header.file_size - held,
        manifest.capacity,
        max(manifest.shares.values(), default=1),
    )
    near = {1, groups, 2 * groups, *([groups // 2] if groups > 1 else [])}
    made = weigh_all(outline, (number for number in near if number <= max(1, count, groups)))
    sealed = {seal.bits for seal in manifest.sealed.values()} or {manifest.bits}
    cosine = float(found.cosine.mean()) if count else 1.0
    return tuple(
        Alternative(one.groups, one.bits, bank.header.file_size, cosine, True)
        if one.groups == groups and sealed == {one.bits}
        else one
        for one in made
    )


def parse_limit(text: str, base_bytes: int) -> int:
    """Most bytes of a bank: ``500MB``, or a ratio to the base as ``1.1``. Raises UsageError."""
    try:
        number = float(text.strip().removesuffix("x").removesuffix("×"))
    except ValueError:
        return parse_size(text)
    return int(number * base_bytes) if 0 < number < _MOST_RATIO else parse_size(text)


def best_fit(choices: Sequence[Alternative], limit: int) -> Alternative:
    """The choice within `limit` bytes that is predicted to come back best.

    One bit is taken only where nothing else fits: measured, it may lose more than its cosine says
    (on the vision model 8 × 1 bit, predicted at 0.80, kept 98.6 % where 2 × 2 bits, at 0.47, kept
    all; on the decoder 7 × 1 bit and 4 × 2 bits kept the same).
    Raises UsageError where nothing fits.
    """
    inside = [one for one in choices if one.bank_bytes <= limit]
    if not inside:
        least = min(choices, key=lambda one: one.bank_bytes)
        raise UsageError(
            f"--fit: the smallest bank takes {least.bank_bytes} bytes ({least.groups} group at "
            f"{least.bits} bit), more than {limit}"
        )
    wide = [one for one in inside if one.bits > 1] or inside
    return max(wide, key=lambda one: (round(one.predicted_cosine, 4), -one.bank_bytes))


def advice(
    choices: Sequence[Alternative], tasks: int, size: int, cosine: float, groups: int
) -> str | None:
    """A sentence where one quantised delta a task is predicted better at no more bytes."""
    apart = [one for one in choices if one.groups == tasks and one.bits > 1]
    better = [one for one in apart if one.bank_bytes <= size and one.predicted_cosine > cosine]
    if groups >= tasks or not better:
        return None
    best = max(better, key=lambda one: one.predicted_cosine)
    return (
        f"one delta per task (--groups {tasks} --bits {best.bits}) would take no more and come "
        f"back better: predicted cosine {best.predicted_cosine:.3f}, not {cosine:.3f}"
    )


#: Cosine of factors whose product is hardly worse.
_GOOD_FACTOR = 0.99


def adapter_advice(cosine: float) -> str | None:
    """A sentence where adapters are superposed as they are and meet others.

    Both factors of a product come back with noise, so it has about the product of their cosines.
    """
    if cosine > _GOOD_FACTOR:
        return None
    return (
        f"the factors of these adapters come back with a cosine of {cosine:.3f}, their products "
        f"with about {cosine**2:.3f}; packed with their base (--merge-adapters) these would keep "
        f"about {cosine:.3f}"
    )
