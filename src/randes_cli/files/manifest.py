"""The manifest: everything that retrieval needs besides the tensors, as JSON.

`docs/bank-format.md` describes each field. Reading goes field by field; an error names the
field (``tasks[2].seed``). What is unknown and optional survives a rewrite in `extra`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import isfinite, prod
from typing import Any, TypeVar

from randes_cli.core.grid import EXPONENT_RANGE, LIMIT
from randes_cli.core.levels import SEAL_BITS
from randes_cli.errors import BankDamaged, NewerFormat, UsageError
from randes_cli.files.folders import TARGETS
from randes_cli.files.header import CONTROL, parse_json
from randes_cli.files.side_files import is_side_file
from randes_cli.specs import (
    FLOAT_DTYPES,
    FORMAT_NAME,
    FORMAT_VERSION,
    ITEM_SIZE,
    BaseStorage,
    Rest,
    Shuffle,
    Signs,
    TensorInfo,
    Transform,
    check_task_name,
)

#: Required features that this version knows; a bank that names another is refused.
FEATURES = frozenset({"superposition", "sealed"})
#: How the codes and scales of a sealed group lie in the bank; `docs/sealed.md` has the bytes.
SEAL_LAYOUT = "levels/1"

T = TypeVar("T")
E = TypeVar("E", bound=Enum)


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """The base model: `tensors` are its names, dtypes and shapes.

    `files` are its side files: content digest (of ``files/<digest>``) by name.
    """

    source: str
    fingerprint: str
    storage: BaseStorage
    metadata: Mapping[str, str]
    tensors: tuple[TensorInfo, ...]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task. Its tensors are the base's, but for the differences listed here.

    Attributes:
        dtype: the dtype of its superposed tensors where it is not the base's.
        unchanged: tensors that equal the base's (resized ones: in the rows that both have).
        missing: the base's tensors that the task lacks.
        own: tensors kept exactly, by name.
        shapes: shapes of resized embeddings, by name; rows past the base's are own tensors.
        dtypes: dtypes of single tensors, where neither `dtype` nor the base's.
        coefficient: λ that `tune` chose, or None.
        prefix: (the task's, the bank's) beginning of names: a tensor that the bank calls
            ``<bank's><rest>`` is ``<task's><rest>`` in the checkpoint.
        unprefixed: the base's names that the task uses as they are in spite of `prefix`.
        layout: weight file by component (see `Checkpoint`); empty for a bare file.
        files: side files: content digest (of ``files/<digest>``) by name.
    """

    name: str
    index: int
    seed: int
    group: int
    source: str
    fingerprint: str
    metadata: Mapping[str, str]
    dtype: str | None = None
    unchanged: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    own: Mapping[str, TensorInfo] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    coefficient: float | None = None
    prefix: tuple[str, str] = ("", "")
    unprefixed: frozenset[str] = frozenset()
    layout: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def output_name(self, name: str) -> str:
        """The task's own name of a tensor that the base has under `name`."""
        theirs, ours = self.prefix
        if theirs == ours or name in self.unprefixed or not name.startswith(ours):
            return name
        return theirs + name[len(ours) :]

    def tensor(self, base: TensorInfo) -> TensorInfo:
        """The task's tensor of this name, which it has and does not keep as its own."""
        dtype = self.dtypes.get(base.name, self.dtype or base.dtype)
        return TensorInfo(base.name, dtype, self.shapes.get(base.name, base.shape))


@dataclass(frozen=True, slots=True)
class SealRecord:
    """A group whose superposition was cut to `bits`; it is read-only."""

    bits: int
    layout: str = SEAL_LAYOUT


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bank's manifest.

    Attributes:
        bits: width of a new superposition.
        capacity: tasks that an 8-bit superposition has room for.
        next_index: the index that the next added task gets.
        steps: step exponents by tensor; kept when a superposition goes, so that it returns alike.
        widths: bits of the superpositions that are not `bits` wide, by tensor; kept likewise.
        forgotten: (index, group) of tasks whose deltas stay in a superposition without a record.
        cells: the tensors that each pair of Gram matrices in ``stats/gram`` sums over.
        estimated: pairs of task indices whose cosines are estimates.
        sealed: the groups that are read-only, cut to few bits.
        tuning: the (λ, score) pairs that `tune` measured, by task.
        extra: unknown optional fields, kept as they are.
    """

    transform: Transform
    bits: int
    seed: int
    capacity: int
    next_index: int
    base: BaseRecord
    tasks: tuple[TaskRecord, ...]
    steps: Mapping[str, int]
    widths: Mapping[str, int] = field(default_factory=dict)
    groups: int = 1
    forgotten: tuple[tuple[int, int], ...] = ()
    cells: tuple[tuple[str, tuple[str, ...]], ...] = ()
    estimated: frozenset[tuple[int, int]] = frozenset()
    features: tuple[str, ...] = ("superposition",)
    sealed: Mapping[int, SealRecord] = field(default_factory=dict)
    tuning: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def with_tasks(self, tasks: Iterable[TaskRecord]) -> Manifest:
        """The same with these tasks, in the order of their indices."""
        ordered = tuple(sorted(tasks, key=lambda task: task.index))
        names = {task.name for task in ordered}
        tuning = {name: curve for name, curve in self.tuning.items() if name in names}
        return replace(self, tasks=ordered, tuning=tuning)

    def with_sealed(self, sealed: Mapping[int, SealRecord]) -> Manifest:
        """The same with these read-only groups, and the feature that they require."""
        features = tuple(name for name in self.features if name != "sealed")
        return replace(
            self,
            sealed=dict(sorted(sealed.items())),
            features=features + ("sealed",) * bool(sealed),
        )


def _task_json(task: TaskRecord) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": task.name,
        "index": task.index,
        "seed": task.seed,
        "group": task.group,
        "source": task.source,
        "fingerprint": task.fingerprint,
        "metadata": dict(sorted(task.metadata.items())),
        "unchanged": sorted(task.unchanged),
        "missing": sorted(task.missing),
        "own": {n: [t.dtype, list(t.shape)] for n, t in sorted(task.own.items())},
        "shapes": {name: list(shape) for name, shape in sorted(task.shapes.items())},
        "dtypes": dict(sorted(task.dtypes.items())),
    }
    if task.dtype is not None:
        made["dtype"] = task.dtype
    if task.prefix != ("", ""):
        made["prefix"] = list(task.prefix)
        made["unprefixed"] = sorted(task.unprefixed)
    if task.layout:
        made["layout"] = dict(task.layout)
    if task.files:
        made["files"] = dict(sorted(task.files.items()))
    if task.coefficient is not None:
        made["coefficient"] = task.coefficient
    return made


def _optional(manifest: Manifest) -> dict[str, Any]:
    """Fields that most banks lack."""
    made: dict[str, Any] = {}
    if manifest.sealed:
        made["sealed"] = {
            str(group): {"bits": seal.bits, "layout": seal.layout}
            for group, seal in manifest.sealed.items()
        }
    if manifest.tuning:
        made["tuning"] = {n: [list(pair) for pair in c] for n, c in sorted(manifest.tuning.items())}
    return made


def _transform_json(transform: Transform) -> dict[str, Any]:
    made: dict[str, Any] = {
        "shuffle": transform.shuffle.value,
        "signs": transform.signs.value,
        "targets": transform.targets,
        "every": transform.every,
        "rest": transform.rest.value,
    }
    if transform.matched is not None:
        made["matched"] = sorted(transform.matched)
    return made


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as the JSON object that a bank stores."""
    base, transform = manifest.base, manifest.transform
    return {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "features": list(manifest.features),
        "transform": _transform_json(transform),
        "bits": manifest.bits,
        "seed": manifest.seed,
        "capacity": manifest.capacity,
        "next_index": manifest.next_index,
        "groups": manifest.groups,
        "base": {
            "source": base.source,
            "fingerprint": base.fingerprint,
            "storage": base.storage.value,
            "metadata": dict(sorted(base.metadata.items())),
            "tensors": {t.name: [t.dtype, list(t.shape)] for t in base.tensors},
            "files": dict(sorted(base.files.items())),
        },
        "tasks": [_task_json(task) for task in manifest.tasks],
        "forgotten": [list(pair) for pair in manifest.forgotten],
        "steps": dict(manifest.steps),
        "widths": dict(manifest.widths),
        **_optional(manifest),
        "stats": {
            "cells": [[name, list(tensors)] for name, tensors in manifest.cells],
            "estimated": [list(pair) for pair in sorted(manifest.estimated)],
        },
        **manifest.extra,
    }


def encode(manifest: Manifest) -> bytes:
    """UTF-8 JSON without spaces."""
    return json.dumps(to_json(manifest), separators=(",", ":"), ensure_ascii=False).encode()


class _Fields:
    """One JSON object being read, with its path for messages."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise BankDamaged(f"manifest: {path or 'the whole'} is not an object")
        self.value: dict[str, Any] = value
        self.path = path

    def fail(self, key: str, what: str) -> BankDamaged:
        dot = "." if self.path else ""
        return BankDamaged(f"manifest: {self.path}{dot}{key} {what}")

    def get(self, key: str, kind: type[T]) -> T:
        if key not in self.value:
            raise self.fail(key, "is missing")
        found = self.value[key]
        if type(found) is not kind:
            raise self.fail(key, f"is not a {kind.__name__}")
        return found

    def line(self, key: str) -> str:
        """A string that is shown to people."""
        found = self.get(key, str)
        if CONTROL.search(found):
            raise self.fail(key, "has control characters")
        return found

    def count(self, key: str, most: int = 2**63 - 1, least: int = 0) -> int:
        found = self.get(key, int)
        if not least <= found <= most:
            raise self.fail(key, f"is {str(found)[:30]}, not between {least} and {most}")
        return found

    def choice(self, key: str, kind: type[E]) -> E:
        found = self.get(key, str)
        try:
            return kind(found)
        except ValueError:
            raise self.fail(key, f"is {found[:60]!a}, which this version does not know") from None

    def fields(self, key: str) -> _Fields:
        dot = "." if self.path else ""
        return _Fields(self.get(key, dict), f"{self.path}{dot}{key}")

    def map(self, key: str, check: Callable[[object], T | None]) -> dict[str, T]:
        made = {}
        for name, value in self.get(key, dict).items():
            checked = check(value)
            if checked is None:
                raise self.fail(f"{key}[{name[:100]!a}]", "is not valid")
            made[name] = checked
        return made

    def list(self, key: str, check: Callable[[object], T | None]) -> list[T]:
        made = []
        for position, value in enumerate(self.get(key, list)):
            checked = check(value)
            if checked is None:
                raise self.fail(f"{key}[{position}]", "is not valid")
            made.append(checked)
        return made


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _shape(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > 64:
        return None
    return tuple(value) if all(type(n) is int and 0 <= n < 2**63 for n in value) else None


def _dtype(value: object) -> str | None:
    return value if isinstance(value, str) and value in ITEM_SIZE else None


def _typed_shape(value: object) -> tuple[str, tuple[int, ...]] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    dtype, shape = _dtype(value[0]), _shape(value[1])
    if dtype is None or shape is None or prod(shape) * ITEM_SIZE[dtype] >= 2**63:
        return None
    return dtype, shape


def _pair(value: object) -> tuple[int, int] | None:
    made = _shape(value)
    return (made[0], made[1]) if made is not None and len(made) == 2 else None


def _exponent(value: object) -> int | None:
    low, high = EXPONENT_RANGE
    return value if type(value) is int and low <= value <= high else None


def _seal(value: object) -> SealRecord | None:
    if not isinstance(value, dict) or value.get("bits") not in SEAL_BITS:
        return None
    if type(value["bits"]) is not int or value.get("layout") != SEAL_LAYOUT:
        return None
    return SealRecord(value["bits"])


def _curve(value: object) -> tuple[tuple[float, float], ...] | None:
    if not isinstance(value, list):
        return None
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            return None
        if not all(type(number) in (int, float) and isfinite(number) for number in pair):
            return None
    return tuple((float(pair[0]), float(pair[1])) for pair in value)


def _parse_sealed(fields: _Fields, groups: int) -> dict[int, SealRecord]:
    if "sealed" not in fields.value:
        return {}
    found = fields.map("sealed", _seal)
    for group in found:
        if not (group.isascii() and group.isdigit() and str(int(group)) == group):
            raise fields.fail(f"sealed[{group[:100]!a}]", "is not a group")
        if int(group) >= groups:
            raise fields.fail(f"sealed[{group[:100]!a}]", "is not a group of this bank")
    return {int(group): seal for group, seal in found.items()}


def _width(value: object) -> int | None:
    return value if type(value) is int and value in LIMIT else None


def _check_conversions(fields: _Fields, task: TaskRecord, base: Mapping[str, TensorInfo]) -> None:
    """Only floating-point tensors come back in another dtype than the base's."""
    if task.dtype is None and not task.dtypes:
        return
    for name, tensor in base.items():
        dtype = task.dtypes.get(name, task.dtype or tensor.dtype)
        if dtype == tensor.dtype or name in task.missing or name in task.own:
            continue
        if dtype not in FLOAT_DTYPES or tensor.dtype not in FLOAT_DTYPES:
            raise fields.fail(f"dtypes[{name[:100]!a}]", f"is {dtype}, the base's {tensor.dtype}")


def _cell(value: object) -> tuple[str, tuple[str, ...]] | None:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        return None
    if not isinstance(value[1], list) or not all(isinstance(name, str) for name in value[1]):
        return None
    return value[0], tuple(value[1])


def _name_pair(value: object) -> tuple[str, str] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    return (value[0], value[1]) if all(isinstance(part, str) for part in value) else None


def _content(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) else None


def _files(fields: _Fields) -> dict[str, str]:
    """Side files of a record: safe names, content digests."""
    found = fields.map("files", _content) if "files" in fields.value else {}
    for name in found:
        if not is_side_file(name):
            raise fields.fail(f"files[{name[:100]!a}]", "is not the name of a side file")
    return found


def _layout(fields: _Fields) -> dict[str, str]:
    """Where components lie in a folder: ``unet`` in ``unet/….safetensors``, no further."""
    found = fields.map("layout", _text) if "layout" in fields.value else {}
    for component, target in found.items():
        file = target.rpartition("/")[2]
        safe = not component or re.fullmatch(r"[\w-][\w.-]*", component, re.ASCII)
        inside = f"{component}/{file}" if component else file
        if not safe or target != inside or file not in TARGETS:
            raise fields.fail(f"layout[{component[:100]!a}]", "is not a file in its folder")
    return found


def _tensors(typed: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, dtype, shape) for name, (dtype, shape) in typed.items()}


def _parse_task(value: object, path: str, base: Mapping[str, TensorInfo]) -> TaskRecord:
    fields = _Fields(value, path)
    name = fields.get("name", str)
    try:
        check_task_name(name)
    except UsageError as error:
        raise fields.fail("name", f"is refused: {error}") from None
    unchanged = frozenset(fields.list("unchanged", _text))
    missing = frozenset(fields.list("missing", _text))
    shapes = fields.map("shapes", _shape)
    dtypes = fields.map("dtypes", _dtype)
    for key, names in (
        ("unchanged", unchanged),
        ("missing", missing),
        ("shapes", shapes),
        ("dtypes", dtypes),
    ):
        unknown = next((n for n in names if n not in base), None)
        if unknown is not None:
            raise fields.fail(key, f"names {unknown[:100]!a}, which the base lacks")
    for tensor, shape in shapes.items():
        if len(shape) < 2 or shape[1:] != base[tensor].shape[1:] or prod(shape) >= 2**60:
            raise fields.fail(f"shapes[{tensor[:100]!a}]", "does not extend the base's shape")
    coefficient = None
    if "coefficient" in fields.value:
        coefficient = fields.get("coefficient", float)
        if not (isfinite(coefficient) and abs(coefficient) <= 1e6):
            raise fields.fail("coefficient", "is out of range")
    dtype = None
    if "dtype" in fields.value:
        dtype = _dtype(fields.value["dtype"])
        if dtype is None:
            raise fields.fail("dtype", "is not a dtype")
    made = TaskRecord(
        name=name,
        index=fields.count("index", 2**31),
        seed=fields.count("seed", 2**64),
        group=fields.count("group", 2**20),
        source=fields.line("source"),
        fingerprint=fields.line("fingerprint"),
        metadata=fields.map("metadata", _text),
        dtype=dtype,
        unchanged=unchanged,
        missing=missing,
        own=_tensors(fields.map("own", _typed_shape)),
        shapes=shapes,
        dtypes=dtypes,
        coefficient=coefficient,
        prefix=_prefix(fields),
        unprefixed=(
            frozenset(fields.list("unprefixed", _text))
            if "unprefixed" in fields.value
            else frozenset()
        ),
        layout=_layout(fields),
        files=_files(fields),
    )
    _check_conversions(fields, made, base)
    return made


def _prefix(fields: _Fields) -> tuple[str, str]:
    found = _name_pair(fields.value.get("prefix", ["", ""]))
    if found is None:
        raise fields.fail("prefix", "is not a pair of names' beginnings")
    return found


def _check_version(fields: _Fields) -> tuple[str, ...]:
    if fields.get("format", str) != FORMAT_NAME:
        raise fields.fail("format", f"is not {FORMAT_NAME}")
    version = fields.count("version")
    if version > FORMAT_VERSION:
        raise NewerFormat(
            f"manifest: version {version} is newer than {FORMAT_VERSION}; upgrade randes"
        )
    features = tuple(fields.list("features", _text))
    unknown = sorted(set(features) - FEATURES)
    if unknown:
        raise NewerFormat(
            f"manifest: requires {unknown[0][:100]!a}, which this version lacks; upgrade randes"
        )
    return features


def _parse_transform(fields: _Fields, base: Mapping[str, TensorInfo]) -> Transform:
    """The transform; a pattern in ``targets`` is only shown, ``matched`` is what counts."""
    targets = fields.line("targets")
    matched = None if targets == "all" else frozenset(fields.list("matched", _text))
    unknown = next((name for name in matched or () if name not in base), None)
    if unknown is not None:
        raise fields.fail("matched", f"names {unknown[:100]!a}, which the base lacks")
    return Transform(
        shuffle=fields.choice("shuffle", Shuffle),
        signs=fields.choice("signs", Signs),
        targets=targets,
        every=fields.count("every", least=1),
        rest=fields.choice("rest", Rest),
        matched=matched,
    )


def _parse_base(fields: _Fields) -> BaseRecord:
    return BaseRecord(
        source=fields.line("source"),
        fingerprint=fields.line("fingerprint"),
        storage=fields.choice("storage", BaseStorage),
        metadata=fields.map("metadata", _text),
        tensors=tuple(_tensors(fields.map("tensors", _typed_shape)).values()),
        files=_files(fields),
    )


_KNOWN = frozenset(
    [
        "format",
        "version",
        "features",
        "transform",
        "bits",
        "seed",
        "capacity",
        "next_index",
        "groups",
        "base",
        "tasks",
        "forgotten",
        "steps",
        "widths",
        "stats",
        "sealed",
        "tuning",
    ]
)


def decode(data: bytes) -> Manifest:
    """Read and check a manifest. Raises BankDamaged naming the field, or NewerFormat."""
    try:
        fields = _Fields(parse_json(data), "")
    except ValueError as error:
        raise BankDamaged(f"manifest: {error}") from None
    features = _check_version(fields)
    base = _parse_base(fields.fields("base"))
    named = {tensor.name: tensor for tensor in base.tensors}
    tasks = tuple(
        _parse_task(value, f"tasks[{position}]", named)
        for position, value in enumerate(fields.get("tasks", list))
    )
    stats = fields.fields("stats")
    made = Manifest(
        transform=_parse_transform(fields.fields("transform"), named),
        bits=fields.count("bits", 16),
        seed=fields.count("seed"),
        capacity=fields.count("capacity", 2**31, 1),
        next_index=fields.count("next_index", 2**31),
        base=base,
        tasks=tasks,
        steps=fields.map("steps", _exponent),
        widths=fields.map("widths", _width),
        groups=fields.count("groups", 2**20, 1),
        forgotten=tuple(fields.list("forgotten", _pair)),
        cells=tuple(stats.list("cells", _cell)),
        estimated=frozenset(stats.list("estimated", _pair)),
        features=features,
        sealed=_parse_sealed(fields, fields.count("groups", 2**20, 1)),
        tuning=fields.map("tuning", _curve) if "tuning" in fields.value else {},
        extra={key: value for key, value in fields.value.items() if key not in _KNOWN},
    )
    _check_whole(fields, made)
    return made


def _check_whole(fields: _Fields, made: Manifest) -> None:
    """What no single field shows: unique names, seeds and indices, known tensors."""
    if made.bits not in (8, 16):
        raise fields.fail("bits", f"is {made.bits}")
    names = {tensor.name for tensor in made.base.tensors}
    for attribute in ("name", "index", "seed"):
        values = [getattr(task, attribute) for task in made.tasks]
        if attribute == "name":
            values = [value.lower() for value in values]
        if len(set(values)) != len(values):
            raise fields.fail("tasks", f"has a {attribute} twice")
    for position, task in enumerate(made.tasks):
        if task.index >= made.next_index:
            raise fields.fail(f"tasks[{position}].index", "is not below next_index")
        if task.group >= made.groups:
            raise fields.fail(f"tasks[{position}].group", "is not a group of this bank")
    for key, table in (("steps", made.steps), ("widths", made.widths)):
        unknown = next((name for name in table if name not in names), None)
        if unknown is not None:
            raise fields.fail(key, f"names {unknown[:100]!a}, which the base lacks")
    indices = {task.index for task in made.tasks}
    if any(not set(pair) <= indices for pair in made.estimated):
        raise fields.fail("stats.estimated", "names an index that no task has")
    for index, group in made.forgotten:
        if index in indices or index >= made.next_index or group >= made.groups:
            raise fields.fail("forgotten", f"has {index} of group {group}, which cannot be")
    _check_cells(fields, made, names)


def _check_cells(fields: _Fields, made: Manifest, names: set[str]) -> None:
    """Each cell of the Gram matrices sums over tensors of the base, and no tensor counts twice."""
    seen: set[str] = set()
    for position, (kind, members) in enumerate(made.cells):
        if not members or CONTROL.search(kind) or not names.issuperset(members):
            raise fields.fail(f"stats.cells[{position}]", "does not name tensors of the base")
        if len(set(members)) != len(members) or not seen.isdisjoint(members):
            raise fields.fail(f"stats.cells[{position}]", "names a tensor twice")
        seen.update(members)
