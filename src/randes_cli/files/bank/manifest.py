"""The manifest: everything that retrieval needs besides the tensors, as JSON.

`docs/bank-format.md` describes each field. Reading checks every field, then what no single one
shows; an error names the field (``tasks[2].seed``). What is unknown and optional survives a
rewrite in `extra`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from typing import Any

from randes_cli.errors import BankDamaged, NewerFormat
from randes_cli.files.bank.json_fields import (
    Fields,
    as_curve,
    as_exponent,
    as_pair,
    as_text,
    as_width,
)
from randes_cli.files.bank.record_fields import (
    read_cells,
    read_transform,
    seed_limit,
    transform_json,
)
from randes_cli.files.bank.records import BaseRecord, SealRecord, TaskRecord
from randes_cli.files.header import parse_json
from randes_cli.files.json_text import write_object, write_typed
from randes_cli.limits import has_control
from randes_cli.specs import FORMAT_NAME, FORMAT_VERSION, SHARES, Transform

#: Required features that this version knows; a bank that names another is refused.
FEATURES = frozenset({"superposition", "sealed", "share", "ties", "shards"})


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
        shares: the groups whose superpositions have one element in m of each matrix, with
            their m (see `plan.share_of`).
        tuning: the (λ, score) pairs that `tune` measured, by task.
        version: of the format; an edit keeps it, so that who could read a bank still can.
        stats_extra: unknown optional fields of `stats`, kept as they are; so are those of
        extra: the manifest itself (and of each record).
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
    shares: Mapping[int, int] = field(default_factory=dict)
    tuning: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    version: int = FORMAT_VERSION
    stats_extra: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def with_tasks(self, tasks: Iterable[TaskRecord]) -> Manifest:
        """The same with these tasks, in the order of their indices."""
        ordered = tuple(sorted(tasks, key=lambda task: task.index))
        names = {task.name for task in ordered}
        tuning = {name: curve for name, curve in self.tuning.items() if name in names}
        return replace(self, tasks=ordered, tuning=tuning)

    def with_sealed(self, sealed: Mapping[int, SealRecord]) -> Manifest:
        """The same with these read-only groups, and the feature that they require."""
        features = self._features("sealed", needed=bool(sealed))
        return replace(self, sealed=dict(sorted(sealed.items())), features=features)

    @property
    def tied(self) -> bool:
        """Whether a tensor of the base or of a task has more than one name."""
        return bool(self.base.ties) or any(task.ties for task in self.tasks)

    def with_shares(self, shares: Mapping[int, int]) -> Manifest:
        """The same with these groups of shares, and the feature that they require."""
        shares = {group: every for group, every in sorted(shares.items()) if every > 1}
        return replace(self, shares=shares, features=self._features("share", needed=bool(shares)))

    def _features(self, feature: str, *, needed: bool) -> tuple[str, ...]:
        """The features, with this one last if it is needed."""
        return (*(name for name in self.features if name != feature), *[feature] * needed)

    def to_json(self, *, whole: bool = True) -> dict[str, Any]:
        """The JSON object that a bank stores; without the base's tensors if it is not `whole`."""
        optional: dict[str, Any] = {}
        if self.shares:
            optional["shares"] = {str(group): every for group, every in self.shares.items()}
        if self.sealed:
            optional["sealed"] = {str(group): seal.to_json() for group, seal in self.sealed.items()}
        if self.tuning:
            curves = sorted(self.tuning.items())
            optional["tuning"] = {name: [list(pair) for pair in curve] for name, curve in curves}
        return {
            "format": FORMAT_NAME,
            "version": self.version,
            "features": [*(f for f in self.features if f != "ties"), *["ties"] * self.tied],
            "transform": transform_json(self.transform),
            "bits": self.bits,
            "seed": self.seed,
            "capacity": self.capacity,
            "next_index": self.next_index,
            "groups": self.groups,
            "base": self.base.to_json(whole=whole),
            "tasks": [task.to_json() for task in self.tasks],
            "forgotten": [list(pair) for pair in self.forgotten],
            "steps": dict(self.steps),
            "widths": dict(self.widths),
            **optional,
            "stats": {
                "cells": [[name, list(tensors)] for name, tensors in self.cells],
                "estimated": [list(pair) for pair in sorted(self.estimated)],
                **self.stats_extra,
            },
            **self.extra,
        }

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """Read and check it whole. Raises BankDamaged naming the field, or NewerFormat."""
        fields = Fields(value, "")
        version, features = _check_version(fields)
        base = BaseRecord.from_json(fields.fields("base"))
        tasks = tuple(
            TaskRecord.from_json(Fields(task, f"tasks[{position}]"), base.tensors, version)
            for position, task in enumerate(fields.get("tasks", list))
        )
        stats = fields.fields("stats")
        groups = fields.limited("groups")
        made = cls(
            transform=read_transform(fields.fields("transform"), base.tensors, version),
            bits=fields.get("bits", int),
            seed=fields.limited("seed", seed_limit(version)),
            capacity=fields.limited("capacity"),
            next_index=fields.limited("next_index"),
            base=base,
            tasks=tasks,
            steps=fields.whole_map("steps", as_exponent),
            widths=fields.map("widths", as_width),
            groups=groups,
            forgotten=tuple(fields.list("forgotten", as_pair)),
            cells=read_cells(stats),
            estimated=frozenset(stats.list("estimated", as_pair)),
            features=features,
            sealed=_sealed(fields, groups),
            shares=_shares(fields, groups, version),
            tuning=fields.optional_map("tuning", as_curve),
            version=version,
            stats_extra=stats.rest(),
            extra=fields.rest(),
        )
        _check_whole(fields, made)
        return made


def encode(manifest: Manifest) -> bytes:
    """UTF-8 JSON without spaces."""
    made, out = manifest.to_json(whole=False), BytesIO()
    tensors = partial(write_typed, out, manifest.base.tensors)
    write_object(
        out, made, {"base": partial(write_object, out, made["base"], {"tensors": tensors})}
    )
    return out.getvalue()


def decode(data: bytes) -> Manifest:
    """Read and check a manifest. Raises BankDamaged naming the field, or NewerFormat."""
    try:
        value = parse_json(data)
    except ValueError as error:
        raise BankDamaged(f"manifest: {error}") from None
    return Manifest.from_json(value)


def _check_version(fields: Fields) -> tuple[int, tuple[str, ...]]:
    if fields.get("format", str) != FORMAT_NAME:
        raise fields.fail("format", f"is not {FORMAT_NAME}")
    version = fields.get("version", int)
    if version < 1:
        raise fields.fail("version", "is not positive")
    if version > FORMAT_VERSION:
        raise NewerFormat(
            f"manifest: version {str(version)[:30]} is newer than {FORMAT_VERSION}; upgrade randes"
        )
    features = tuple(fields.list("features", as_text))
    unknown = sorted(set(features) - FEATURES)
    if unknown:
        raise NewerFormat(
            f"manifest: requires {unknown[0][:100]!r}, which this version lacks; upgrade randes"
        )
    return version, features


def _shares(fields: Fields, groups: int, version: int) -> dict[int, int]:
    if "shares" not in fields.value or version < 2:
        return {}
    found = fields.map("shares", lambda m: m if type(m) is int and m in SHARES[1:] else None)
    return {_group(fields, "shares", key, groups): every for key, every in found.items()}


def _group(fields: Fields, table: str, key: str, groups: int) -> int:
    """A group that is the name of a field."""
    if not re.fullmatch("0|[1-9][0-9]{0,6}", key):
        raise fields.fail(f"{table}[{key[:100]!r}]", "is not a group")
    if int(key) >= groups:
        raise fields.fail(f"{table}[{key[:100]!r}]", "is not a group of this bank")
    return int(key)


def _sealed(fields: Fields, groups: int) -> dict[int, SealRecord]:
    if "sealed" not in fields.value:
        return {}
    sealed, made = fields.fields("sealed"), {}
    for key in sealed.value:
        made[_group(fields, "sealed", key, groups)] = SealRecord.from_json(
            Fields(sealed.value[key], f"sealed[{key}]")
        )
    return made


def _check_whole(fields: Fields, made: Manifest) -> None:
    """What no single field shows: unique names, seeds and indices, known tensors."""
    if made.bits not in (8, 16):
        raise fields.fail("bits", f"is {made.bits}")
    names = set(made.base.tensors)
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
        lacking = table.keys() - names
        if lacking:
            unknown = next(name for name in table if name in lacking)
            raise fields.fail(key, f"names {unknown[:100]!r}, which the base lacks")
    indices = {task.index for task in made.tasks}
    if any(not set(pair) <= indices for pair in made.estimated):
        raise fields.fail("stats.estimated", "names an index that no task has")
    _check_forgotten(fields, made, indices)
    _check_cells(fields, made, names)


def _check_forgotten(fields: Fields, made: Manifest, indices: set[int]) -> None:
    if len(dict(made.forgotten)) < len(made.forgotten):
        raise fields.fail("forgotten", "has an index twice")
    for index, group in made.forgotten:
        if index in indices or index >= made.next_index or group >= made.groups:
            raise fields.fail("forgotten", f"has {index} of group {group}, which cannot be")


def _check_cells(fields: Fields, made: Manifest, names: set[str]) -> None:
    """Each cell of the Gram matrices sums over tensors of the base, and no tensor counts twice."""
    every = [name for _, members in made.cells for name in members]
    once_each = len(names.intersection(every)) == len(every)
    if once_each and all(members and not has_control(kind) for kind, members in made.cells):
        return
    seen: set[str] = set()
    for position, (kind, members) in enumerate(made.cells):
        if not members or has_control(kind) or not names.issuperset(members):
            raise fields.fail(f"stats.cells[{position}]", "does not name tensors of the base")
        if len(set(members)) != len(members) or not seen.isdisjoint(members):
            raise fields.fail(f"stats.cells[{position}]", "names a tensor twice")
        seen.update(members)
