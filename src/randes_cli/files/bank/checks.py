"""Whether a bank's tensors are those that its manifest implies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import compress, repeat

import numpy as np

from randes_cli.core.arrays import F64, I64, firsts
from randes_cli.core.columns import columns
from randes_cli.errors import BankDamaged
from randes_cli.files.bank.keys import (
    BASE_DIGESTS,
    FORGOTTEN,
    GRAM,
    NORMS,
    ROUNDED,
    TAILS,
    base_key,
    cut_key,
    file_key,
    own_key,
    parse_key,
    sealed_tensors,
    sum_dtype,
    sum_key,
    sum_keys,
    sum_tensor,
)
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.files.side_files import FOLDERS, MOST_TOGETHER
from randes_cli.limits import MOST_APART, MOST_STATISTIC
from randes_cli.plan import plan_units, sealable, share_of, superposable
from randes_cli.specs import BaseStorage, Rest, Shuffle, TensorInfo, Tensors


def check_agreement(manifest: Manifest, tensors: Mapping[str, TensorInfo]) -> None:
    """Raise BankDamaged unless `tensors` has what the manifest implies, in dtype and shape."""
    base = manifest.base.tensors
    if manifest.base.storage is BaseStorage.embed:
        _check_base(base, tensors)
    if manifest.base.storage is BaseStorage.reference:
        size = DIGEST_BYTES * int(columns(base).of(chunk_count).sum())
        _expect(tensors, BASE_DIGESTS, "U8", (size,))
    summable = list(compress(base, columns(base).where(superposable).tolist()))
    sums = _superpositions(manifest, tensors, summable)
    _check_superpositions(manifest, tensors, summable, sums)
    _check_units(manifest, tensors, sorted(sums))
    _check_sums(manifest, summable, sums)
    _check_cells(manifest, summable)
    for task in manifest.tasks:
        for name, tensor in task.own.items():
            _expect(tensors, own_key(task.name, name), tensor.dtype, tensor.shape)
        for name, shape in task.shapes.items():
            extra = shape[0] - base[name].shape[0]
            if extra > 0 and name not in task.own:
                dtype = task.tensor(base[name]).dtype
                _expect(tensors, own_key(task.name, name), dtype, (extra, *shape[1:]))
    _check_files(manifest, tensors)
    for key, shape in _statistics(manifest, len(summable), tensors).items():
        _expect(tensors, key, "F64", shape)


def _check_base(base: Tensors, tensors: Tensors) -> None:
    """Whether every tensor of an embedded base is there, in its dtype and shape."""
    held, wanted = columns(tensors), columns(base)
    numbers = {kind: number for number, kind in enumerate(held.kinds)}
    alike = np.array([numbers.get(kind, -1) for kind in wanted.kinds], np.intp)[wanted.kind_of]
    rows = held.at(map(base_key, base))
    for row in np.flatnonzero((rows < 0) | (held.kind_of[rows] != alike)).tolist():
        raise _lacking(base_key(list(base)[row]))


def _expect(tensors: Tensors, key: str, dtype: str, shape: tuple[int, ...]) -> None:
    found = tensors.get(key)
    if found is None or found.dtype != dtype or found.shape != shape:
        raise _lacking(key)


def _lacking(key: str) -> BankDamaged:
    return BankDamaged(f"tensor {key!r} is missing or has another shape or dtype")


def _check_files(manifest: Manifest, tensors: Mapping[str, TensorInfo]) -> None:
    """Whether the side files that records name are there, each record's in bounds together."""
    for files in (manifest.base.files, *(task.files for task in manifest.tasks)):
        together = 0
        for name, content in files.items():
            there = tensors.get(file_key(content))
            if there is None or there.dtype != "U8" or len(there.shape) != 1:
                raise BankDamaged(f"side file {name!r} is missing")
            together += there.nbytes
        if together > FOLDERS * MOST_TOGETHER:
            raise BankDamaged("side files are larger than those of a model's folder may be")


def statistics_shapes(rows: int, cells: int, tasks: int) -> dict[str, tuple[int, ...]]:
    """The statistics of a bank, in the order of the file; `rows` are superposable tensors."""
    return {
        NORMS: (rows, tasks),
        ROUNDED: (2, rows, tasks),
        TAILS: (2, rows, tasks),
        GRAM: (cells, 2, tasks, tasks),
    }


def _statistics(
    manifest: Manifest, rows: int, tensors: Mapping[str, TensorInfo]
) -> dict[str, tuple[int, ...]]:
    """The statistics that a bank must have; those of before lack some."""
    shapes = statistics_shapes(rows, len(manifest.cells), len(manifest.tasks))
    shapes.update({cut_key(group): cut_shape(rows) for group in manifest.sealed})
    if manifest.forgotten:
        shapes[FORGOTTEN] = (len(manifest.forgotten), rows)
    later = {ROUNDED, TAILS, FORGOTTEN, *map(cut_key, manifest.sealed)}
    return {key: shape for key, shape in shapes.items() if key in tensors or key not in later}


def cut_shape(rows: int) -> tuple[int, ...]:
    """What sealing measures of a group: ‖S‖², ⟨S, Q⟩ and ‖Q‖² of superposable tensors."""
    return 3, rows


def _superpositions(
    manifest: Manifest, tensors: Tensors, summable: Sequence[str]
) -> dict[int, I64]:
    """The number of every tensor's superposition among `tensors`, −1 for none, by group.

    Raises BankDamaged where one is of no group, or of no tensor of this bank.
    """
    keys = sum_keys(tensors)
    owners = {key[len("sum/") :].partition("/")[0] for key in keys}
    groups = [group for group in map(_group, owners) if group is not None]
    held = columns(tensors)
    found = {
        group: held.at(map(f"sum/{group}/".__add__, summable))
        for group in sorted(groups)
        if group < manifest.groups
    }
    if sum(np.count_nonzero(rows >= 0) for rows in found.values()) < len(keys):
        known = {f"sum/{group}/{name}" for group in found for name in summable}
        lost = next(key for key in keys if key not in known)
        if _group(parse_key(lost).owner) in found:
            raise BankDamaged(f"{lost!r} does not match the base")
        raise BankDamaged(f"{lost!r} is of no group of this bank")
    return found


def _check_superpositions(
    manifest: Manifest, tensors: Tensors, summable: Sequence[str], sums: Mapping[int, I64]
) -> None:
    """Whether superpositions are as wide as this bank says; one is looked at for all alike."""
    base, held = columns(manifest.base.tensors), columns(tensors)
    widths = np.full(len(summable), manifest.bits)
    widths[:] = [*map(manifest.widths.get, summable, repeat(manifest.bits))]
    stepless = [name not in manifest.steps for name in summable]
    kinds = base.kind_of[base.at(summable)]
    for group, rows in sums.items():
        there = np.flatnonzero(rows >= 0)
        for place in there[np.array(stepless, np.bool_)[there]].tolist():
            raise BankDamaged(f"manifest: steps[{summable[place]!r}] is missing")
        alike = (kinds[there] * len(held.kinds) + held.kind_of[rows[there]]) * 17 + widths[there]
        order = np.argsort(alike, kind="stable")
        for place in there[order[firsts(alike[order])]].tolist():
            name = summable[place]
            found = tensors[sum_key(group, name)]
            _check_sum(found, manifest, group, manifest.base.tensors[name], int(widths[place]))
        for place in there.tolist() if group in manifest.sealed else ():
            name = summable[place]
            _check_seal(group, tensors, manifest, manifest.base.tensors[name])


def _check_sum(
    found: TensorInfo, manifest: Manifest, group: int, base: TensorInfo, width: int
) -> None:
    """Whether a superposition has the shape of its tensor, and this width."""
    if found.dtype == "U8":
        if group not in manifest.sealed or not sealable(base):
            raise BankDamaged(f"{found.name!r} is of no sealed group of this bank")
        return
    if found.shape != _shape_of(base, group, manifest):
        raise BankDamaged(f"{found.name!r} does not match the base")
    if found.dtype != sum_dtype(width):
        raise BankDamaged(f"{found.name!r} has another width than the manifest says")


@lru_cache
def _group(owner: str) -> int | None:
    """The group that a part of a name stands for."""
    known = owner.isascii() and owner.isdigit() and owner == str(int(owner[:8]))
    return int(owner) if known else None


def _shape_of(base: TensorInfo, group: int, manifest: Manifest) -> tuple[int, ...]:
    if group not in manifest.shares:
        return base.shape
    return sum_tensor(group, base, manifest.bits, share_of(base, group, manifest.shares)).shape


def _check_seal(group: int, tensors: Tensors, manifest: Manifest, base: TensorInfo) -> None:
    """Whether codes of a sealed group and their scales have the right shapes."""
    if tensors[sum_key(group, base.name)].dtype == "U8":
        bits, share = manifest.sealed[group].bits, share_of(base, group, manifest.shares)
        for wanted in sealed_tensors(group, base, bits, share):
            _expect(tensors, *wanted)


def _check_units(
    manifest: Manifest, tensors: Mapping[str, TensorInfo], groups: Sequence[int]
) -> None:
    """Layers that tasks move among themselves share one step, and lie in a group together.

    `groups` are those that have any superposition.
    """
    if manifest.transform.shuffle is Shuffle.none:
        return
    for unit in plan_units(manifest.base.tensors, manifest.transform):
        names = unit.names
        for table, what in ((manifest.steps, "steps"), (manifest.widths, "widths")):
            if len({table.get(name) for name in names}) > 1:
                raise BankDamaged(f"manifest: {what} differ among layers like {names[0]!r}")
        for group in groups if len(names) > 1 else ():
            there = [sum_key(group, name) in tensors for name in names]
            if any(there) and not all(there):
                lost = names[there.index(False)]
                raise BankDamaged(f"tensor {sum_key(group, lost)!r} is missing")


def _check_sums(manifest: Manifest, summable: Sequence[str], sums: Mapping[int, I64]) -> None:
    """Whether a group has the sum of every tensor that a task of it changed."""
    absent: dict[int, frozenset[str]] = {}
    for task in manifest.tasks:
        nothing = task.unchanged | task.absent | task.own.keys()
        absent[task.group] = absent.get(task.group, nothing) & nothing
    for group, names in absent.items():
        rows = sums.get(group)
        lost = range(len(summable)) if rows is None else np.flatnonzero(rows < 0).tolist()
        for name in map(summable.__getitem__, lost):
            if name not in names:
                raise BankDamaged(f"tensor {sum_key(group, name)!r} is missing")


def _check_cells(manifest: Manifest, summable: Iterable[str]) -> None:
    """Whether every tensor that may be superposed is in a cell of the Gram matrices.

    Where nothing is superposed no table grows with the pairs of tasks, whose matrices we make.
    """
    if not manifest.cells and len(manifest.tasks) > MOST_APART:
        raise BankDamaged("manifest: has more tasks than a bank without superpositions may have")
    transform = manifest.transform
    if transform.rest is not Rest.sum:
        units = plan_units(manifest.base.tensors, transform)
        summable = [name for unit in units for name in unit.names]
    lost = set(summable).difference(transform.exact, *(names for _, names in manifest.cells))
    if lost:
        lost_name = next(name for name in summable if name in lost)
        raise BankDamaged(f"manifest: stats.cells has no cell for {lost_name[:100]!r}")


def possible_statistics(key: str, found: F64) -> bool:
    """Whether no value of a statistics tensor is NaN, infinite or beyond any model's."""
    least = 0.0 if key == NORMS else -MOST_STATISTIC
    return not found.size or bool(found.min() >= least and found.max() <= MOST_STATISTIC)
