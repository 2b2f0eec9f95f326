"""Whether a bank's tensors are those that its manifest implies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

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
    sealed_tensors,
    sum_dtype,
    sum_key,
    sum_tensor,
)
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.plan import plan_units, sealable, share_of, superposable
from randes_cli.specs import BaseStorage, Rest, Shuffle, TensorInfo

#: Takes a tensor's name, dtype and shape, and raises where it is not so.
Expect = Callable[[str, str, tuple[int, ...]], None]


def check_agreement(manifest: Manifest, tensors: Mapping[str, TensorInfo]) -> None:
    """Raise BankDamaged unless `tensors` has what the manifest implies, in dtype and shape."""

    def expect(key: str, dtype: str, shape: tuple[int, ...]) -> None:
        found = tensors.get(key)
        if found is None or found.dtype != dtype or found.shape != shape:
            raise BankDamaged(f"tensor {key!r} is missing or has another shape or dtype")

    base = manifest.base.tensors
    if manifest.base.storage is BaseStorage.embed:
        for tensor in base.values():
            expect(base_key(tensor.name), tensor.dtype, tensor.shape)
    if manifest.base.storage is BaseStorage.reference:
        size = DIGEST_BYTES * sum(map(chunk_count, base.values()))
        expect(BASE_DIGESTS, "U8", (size,))
    summable = {name: tensor for name, tensor in base.items() if superposable(tensor)}
    for key, found in tensors.items():
        if key.startswith("sum/"):
            _check_sum(found, manifest, summable, expect)
    _check_units(manifest, tensors)
    _check_sums(manifest, summable, tensors)
    _check_cells(manifest, summable)
    for task in manifest.tasks:
        for name, tensor in task.own.items():
            expect(own_key(task.name, name), tensor.dtype, tensor.shape)
        for name, shape in task.shapes.items():
            extra = shape[0] - base[name].shape[0]
            if extra > 0 and name not in task.own:
                dtype = task.tensor(base[name]).dtype
                expect(own_key(task.name, name), dtype, (extra, *shape[1:]))
    _check_files(manifest, tensors)
    for key, shape in _statistics(manifest, len(summable), tensors).items():
        expect(key, "F64", shape)


def _check_files(manifest: Manifest, tensors: Mapping[str, TensorInfo]) -> None:
    """Whether the side files that records name are there."""
    for files in (manifest.base.files, *(task.files for task in manifest.tasks)):
        for name, content in files.items():
            there = tensors.get(file_key(content))
            if there is None or there.dtype != "U8" or len(there.shape) != 1:
                raise BankDamaged(f"side file {name!r} is missing")


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


def _check_sum(
    found: TensorInfo, manifest: Manifest, summable: Mapping[str, TensorInfo], expect: Expect
) -> None:
    """Whether a superposition is of a group and a tensor of this bank, and as wide as it says."""
    name = found.name
    _, _, rest = name.partition("/")
    owner, _, tensor = rest.partition("/")
    base, group = summable.get(tensor), _group(owner)
    if group is None or group >= manifest.groups:
        raise BankDamaged(f"{name!r} is of no group of this bank")
    if base is None:
        raise BankDamaged(f"{name!r} does not match the base")
    sealed = found.dtype == "U8"
    if not sealed and found.shape != _shape_of(base, group, manifest):
        raise BankDamaged(f"{name!r} does not match the base")
    if tensor not in manifest.steps:
        raise BankDamaged(f"manifest: steps[{tensor!r}] is missing")
    if not sealed and found.dtype != sum_dtype(manifest.widths.get(tensor, manifest.bits)):
        raise BankDamaged(f"{name!r} has another width than the manifest says")
    if sealed:
        _check_seal(group, found, manifest, base, expect)


@lru_cache
def _group(owner: str) -> int | None:
    """The group that a part of a name stands for."""
    known = owner.isascii() and owner.isdigit() and owner == str(int(owner[:8]))
    return int(owner) if known else None


def _shape_of(base: TensorInfo, group: int, manifest: Manifest) -> tuple[int, ...]:
    if group not in manifest.shares:
        return base.shape
    return sum_tensor(group, base, manifest.bits, share_of(base, group, manifest.shares)).shape


def _check_seal(
    group: int, found: TensorInfo, manifest: Manifest, base: TensorInfo, expect: Expect
) -> None:
    """Whether codes belong to a sealed group, and they and their scales have the right shapes."""
    seal = manifest.sealed.get(group)
    if seal is None or not sealable(base):
        raise BankDamaged(f"{found.name!r} is of no sealed group of this bank")
    for wanted in sealed_tensors(group, base, seal.bits, share_of(base, group, manifest.shares)):
        expect(wanted.name, wanted.dtype, wanted.shape)


def _check_units(manifest: Manifest, tensors: Mapping[str, TensorInfo]) -> None:
    """Layers that tasks move among themselves share one step, and lie in a group together."""
    if manifest.transform.shuffle is Shuffle.none:
        return
    for unit in plan_units(manifest.base.tensors.values(), manifest.transform):
        names = unit.names
        for table, what in ((manifest.steps, "steps"), (manifest.widths, "widths")):
            if len({table.get(name) for name in names}) > 1:
                raise BankDamaged(f"manifest: {what} differ among layers like {names[0]!r}")
        for group in range(manifest.groups if len(names) > 1 else 0):
            there = [sum_key(group, name) in tensors for name in names]
            if any(there) and not all(there):
                lost = names[there.index(False)]
                raise BankDamaged(f"tensor {sum_key(group, lost)!r} is missing")


def _check_sums(
    manifest: Manifest, summable: Iterable[str], tensors: Mapping[str, TensorInfo]
) -> None:
    """Whether a group has the sum of every tensor that a task of it changed."""
    absent: dict[int, frozenset[str]] = {}
    for task in manifest.tasks:
        nothing = task.unchanged | task.absent | task.own.keys()
        absent[task.group] = absent.get(task.group, nothing) & nothing
    for group, names in absent.items():
        for name in summable:
            if f"sum/{group}/{name}" not in tensors and name not in names:
                raise BankDamaged(f"tensor {sum_key(group, name)!r} is missing")


def _check_cells(manifest: Manifest, summable: Iterable[str]) -> None:
    """Whether every tensor that may be superposed is in a cell of the Gram matrices."""
    inside = {name for _, names in manifest.cells for name in names}
    if manifest.transform.rest is not Rest.sum or manifest.transform.exact:
        units = plan_units(manifest.base.tensors.values(), manifest.transform)
        summable = [name for unit in units for name in unit.names]
    lost = next((name for name in summable if name not in inside), None)
    if lost is not None:
        raise BankDamaged(f"manifest: stats.cells has no cell for {lost[:100]!r}")
