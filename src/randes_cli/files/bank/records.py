"""What a manifest records of the base and of each task, as JSON.

Each record writes and reads its object. Fields that this version does not know stay in `extra`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from randes_cli.core.levels import SEAL_BITS
from randes_cli.errors import UsageError
from randes_cli.files.bank.json_fields import (
    Fields,
    as_dtype,
    as_line,
    as_name_pair,
    as_shape,
    as_text,
)
from randes_cli.files.bank.record_fields import (
    check_known,
    known_names,
    read_files,
    read_layout,
    read_left_out,
    read_tensors,
    read_ties,
    seed_limit,
)
from randes_cli.limits import MOST_COEFFICIENT
from randes_cli.specs import FLOAT_DTYPES, BaseStorage, TensorInfo, Tensors, check_task_name


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """The base model: `tensors` are its names, dtypes and shapes, in order.

    `files` are side files: content digest (of ``files/<digest>``) by name. `layout`, `left_out`,
    `pickle` are as in a task's record; `ties` are more names of `tensors`, by the kept one.
    """

    source: str
    fingerprint: str
    storage: BaseStorage
    metadata: Mapping[str, str]
    tensors: Tensors
    files: Mapping[str, str] = field(default_factory=dict)
    layout: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    pickle: str | None = None
    ties: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, *, whole: bool = True) -> dict[str, Any]:
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "storage": self.storage.value,
            "metadata": dict(sorted(self.metadata.items())),
            "tensors": {n: [t.dtype, [*t.shape]] for n, t in self.tensors.items()} if whole else {},
            "files": dict(sorted(self.files.items())),
            **({"layout": dict(self.layout)} if self.layout else {}),
            **_origin_json(self),
            **({"ties": dict(sorted(self.ties.items()))} if self.ties else {}),
            **self.extra,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> BaseRecord:
        """Read and check its object. Raises BankDamaged naming the field."""
        tensors = read_tensors(fields, "tensors")
        return cls(
            source=fields.line("source"),
            fingerprint=fields.line("fingerprint"),
            storage=fields.choice("storage", BaseStorage),
            metadata=fields.map("metadata", as_text),
            tensors=tensors,
            files=read_files(fields),
            layout=read_layout(fields),
            left_out=read_left_out(fields),
            pickle=fields.optional("pickle", as_line, None),
            ties=read_ties(fields, tensors, tensors),
            extra=fields.rest(),
        )


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
        layout: weight file by component ("": the folder itself); empty for a bare file.
        files: side files: content digest (of ``files/<digest>``) by name.
        ties: names under which a tensor comes back as a copy of another: by each the name that it
            is kept under, here or in the base. That may be one that the task lacks.
        left_out: the folder's other files, each with the reason why it is not in the bank.
        pickle: where in its pickle the tensors were (``state_dict``), None where it was none.
        default: λ where there is no `coefficient`; None in banks of version 1, whose readers
            work it out from the norms.
        extra: unknown optional fields, kept as they are.
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
    own: Tensors = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    coefficient: float | None = None
    prefix: tuple[str, str] = ("", "")
    unprefixed: frozenset[str] = frozenset()
    layout: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    pickle: str | None = None
    default: float | None = None
    ties: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def absent(self) -> frozenset[str]:
        """The base's tensors of which the task has nothing, under no name."""
        return self.missing - set(self.ties.values())

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

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "name": self.name,
            "index": self.index,
            "seed": self.seed,
            "group": self.group,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "metadata": dict(sorted(self.metadata.items())),
            "unchanged": sorted(self.unchanged),
            "missing": sorted(self.missing),
            "own": {n: [t.dtype, list(t.shape)] for n, t in sorted(self.own.items())},
            "shapes": {name: list(shape) for name, shape in sorted(self.shapes.items())},
            "dtypes": dict(sorted(self.dtypes.items())),
        }
        if self.dtype is not None:
            made["dtype"] = self.dtype
        if self.prefix != ("", ""):
            made["prefix"] = list(self.prefix)
            made["unprefixed"] = sorted(self.unprefixed)
        if self.layout:
            made["layout"] = dict(self.layout)
        if self.files:
            made["files"] = dict(sorted(self.files.items()))
        if self.ties:
            made["ties"] = dict(sorted(self.ties.items()))
        if self.coefficient is not None:
            made["coefficient"] = self.coefficient
        if self.default is not None:
            made["default"] = self.default
        return {**made, **_origin_json(self), **self.extra}

    @classmethod
    def from_json(cls, fields: Fields, base: Tensors, version: int) -> TaskRecord:
        """Read and check it beside the base's tensors. Raises BankDamaged."""
        made = cls(
            name=_task_name(fields),
            index=fields.limited("index"),
            seed=fields.limited("seed", seed_limit(version)),
            group=fields.limited("group"),
            source=fields.line("source"),
            fingerprint=fields.line("fingerprint"),
            metadata=fields.map("metadata", as_text),
            dtype=fields.optional("dtype", as_dtype, None),
            unchanged=frozenset(known_names(fields, "unchanged", base)),
            missing=frozenset(known_names(fields, "missing", base)),
            own=read_tensors(fields, "own"),
            shapes=_shapes(fields, base),
            dtypes=_dtypes(fields, base),
            coefficient=_coefficient(fields, "coefficient", needed=False),
            default=_coefficient(fields, "default", needed=True) if version > 1 else None,
            prefix=fields.optional("prefix", as_name_pair, ("", "")),
            unprefixed=frozenset(fields.optional_list("unprefixed", as_text)),
            layout=read_layout(fields),
            files=read_files(fields),
            left_out=read_left_out(fields),
            pickle=fields.optional("pickle", as_line, None),
            extra=fields.rest(),
        )
        if "ties" in fields.value:
            held = {n: t for n, t in base.items() if n not in made.missing} | dict(made.own)
            ties = read_ties(fields, {**base, **made.own}, held)
            made = replace(made, ties=ties, extra=fields.rest())
        _check_conversions(fields, made, base)
        return made


def _task_name(fields: Fields) -> str:
    name = fields.get("name", str)
    try:
        return check_task_name(name)
    except UsageError as error:
        raise fields.fail("name", f"is refused: {error}") from None


def _shapes(fields: Fields, base: Tensors) -> dict[str, tuple[int, ...]]:
    shapes = fields.map("shapes", as_shape)
    check_known(fields, "shapes", shapes, base)
    for tensor, shape in shapes.items():
        if len(shape) < 2 or shape[1:] != base[tensor].shape[1:] or prod(shape) >= 2**60:
            raise fields.fail(f"shapes[{tensor[:100]!r}]", "does not extend the base's shape")
    return shapes


def _dtypes(fields: Fields, base: Tensors) -> dict[str, str]:
    dtypes = fields.map("dtypes", as_dtype)
    check_known(fields, "dtypes", dtypes, base)
    return dtypes


def _coefficient(fields: Fields, key: str, *, needed: bool) -> float | None:
    if key not in fields.value:
        if needed:
            raise fields.fail(key, "is missing")
        return None
    return fields.number(key, MOST_COEFFICIENT)


def _origin_json(record: BaseRecord | TaskRecord) -> dict[str, Any]:
    """Optional fields of where a record came from that base and tasks share."""
    made: dict[str, Any] = {}
    if record.left_out:
        made["left_out"] = dict(sorted(record.left_out.items()))
    if record.pickle is not None:
        made["pickle"] = record.pickle
    return made


def _check_conversions(fields: Fields, task: TaskRecord, base: Tensors) -> None:
    """Only floating-point tensors come back in another dtype than the base's."""
    if task.dtype is None and not task.dtypes:
        return
    for name, tensor in base.items():
        dtype = task.dtypes.get(name, task.dtype or tensor.dtype)
        if dtype == tensor.dtype or name in task.absent or name in task.own:
            continue
        if dtype not in FLOAT_DTYPES or tensor.dtype not in FLOAT_DTYPES:
            raise fields.fail(f"dtypes[{name[:100]!r}]", f"is {dtype}, the base's {tensor.dtype}")


#: How the codes and scales of a sealed group lie in the bank; `docs/sealed.md` has the bytes.
SEAL_LAYOUT = "levels/1"


@dataclass(frozen=True, slots=True)
class SealRecord:
    """A group whose superposition was cut to `bits`; it is read-only."""

    bits: int
    layout: str = SEAL_LAYOUT
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"bits": self.bits, "layout": self.layout, **self.extra}

    @classmethod
    def from_json(cls, fields: Fields) -> SealRecord:
        """Read and check its object. Raises BankDamaged naming the field."""
        bits, layout = fields.get("bits", int), fields.line("layout")
        if bits not in SEAL_BITS:
            raise fields.fail("bits", f"is {str(bits)[:30]}")
        if layout != SEAL_LAYOUT:
            raise fields.fail("layout", f"is {layout[:60]!r}, which this version does not know")
        return cls(bits, layout, fields.rest())
