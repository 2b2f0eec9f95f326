"""The draft of a bank: what it will hold and in which order, before a byte of it is computed."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

import numpy as np

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.exact import Exact, exact_tensors
from randes_cli.build.jobs.jobs import Part
from randes_cli.build.steps import Step, Steps
from randes_cli.core.columns import columns, table_of
from randes_cli.core.share import Share
from randes_cli.files.bank.checks import statistics_shapes
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import (
    BASE_DIGESTS,
    CUTS,
    FORGOTTEN,
    base_key,
    cut_key,
    file_key,
    own_key,
    parse_key,
    sum_key,
    sum_tensor,
)
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.files.side_files import SideFile
from randes_cli.files.source import Source, ZeroBase
from randes_cli.plan import Unit, share_of
from randes_cli.specs import ITEM_SIZE, BaseStorage, Table, TensorInfo
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.stored import Cells

#: One superposition: its group and its unit.
Place = tuple[int, Unit]


@dataclass(frozen=True)
class Draft:
    """What a bank is made of. Pure: nothing here changes, and steps are asked for.

    Attributes:
        old: the bank that it follows, None for a new one.
        base: the base's tensors.
        start: the manifest without the tasks that go and before any that come.
        units: of the base.
        coming: tasks that enter.
        leaving: tasks whose deltas are taken out.
        gone: records of the old tasks that the bank does not keep.
        side_files: files that enter, by content.
    """

    old: BankFile | None
    base: Source
    start: Manifest
    units: Sequence[Unit]
    coming: Sequence[Participant]
    leaving: Sequence[Participant]
    gone: Sequence[TaskRecord]
    side_files: Mapping[str, SideFile]

    @property
    def deltas_from(self) -> Source | None:
        """The base to take deltas from; None where it is all zeros."""
        return None if isinstance(self.base, ZeroBase) else self.base

    @cached_property
    def unit_of(self) -> dict[str, Unit]:
        return {name: unit for unit in self.units for name in unit.names}

    @cached_property
    def entered(self) -> dict[Unit, list[int]]:
        """The groups whose superposition of a unit tasks enter, of the units that any does."""
        alike = dict[int, tuple[Participant, set[int]]]()
        for one in self.coming:  # fine-tunes of one base have the same tensors, as a rule
            alike.setdefault(id(one.fit.superposed), (one, set()))[1].add(one.group)
        known, groups = dict[tuple[bool, ...], list[int]](), [found for _, found in alike.values()]
        made = {}
        met = zip(*(one.meets_of(self.units) for one, _ in alike.values()), strict=True)
        for unit, meets in zip(self.units, met, strict=False):
            if meets not in known:
                known[meets] = sorted(set().union(*compress(groups, meets)))
            if known[meets]:
                made[unit] = known[meets]
        return made

    @cached_property
    def _live(self) -> list[int]:
        """Groups that have or get sums, and whose sums are integers and can change.

        Of a million groups that a bank may have, most have nobody and ask for nothing.
        """
        held = {task.group for task in [*self.start.tasks, *self.gone]}
        held |= {group for _, group in self.start.forgotten}
        held |= {participant.group for participant in [*self.coming, *self.leaving]}
        if self.old is not None:
            keys = (key.split("/", 2) for key in self.old.header.tensors if key.startswith("sum/"))
            held |= {int(group) for _, group, _ in keys}
        return sorted(held - self.start.sealed.keys())

    @cached_property
    def kept(self) -> set[Place]:
        """Live superpositions of the old bank that it keeps, changed or not.

        One that only tasks changed that go is not among them: it is as if it had never been.
        """
        old = self.old
        if old is None:
            return set()
        found = {
            (group, unit)
            for group in self._live
            for unit in self.units
            if sum_key(group, unit.names[0]) in old
        }
        return found & self._wanted() if self.gone else found

    def _wanted(self) -> set[Place]:
        """Superpositions that a task that stays changed (or a forgotten one may have).

        And those that packing made of a group's tasks for a change in another group.
        """
        forgotten = {group for _, group in self.start.forgotten}
        stay = [(task.group, *self._met(task)) for task in self.start.tasks]
        wanted = {(group, unit) for group, _, some in stay for unit in some}
        changed = set(self.units) if forgotten else {unit for _, unit in wanted}
        idle = {(group, unit) for group, has, _ in stay for unit in has & changed}
        left = {(task.group, unit) for task in self.gone for unit in self._met(task)[1]}
        return wanted | (idle - left) | {(group, u) for group in forgotten for u in self.units}

    def _met(self, task: TaskRecord) -> tuple[set[Unit], set[Unit]]:
        """The units that a task of the bank has, and those that it changed."""
        names = set(self.unit_of) - task.absent - set(task.own)
        changed = {self.unit_of[name] for name in names - task.unchanged}
        return {self.unit_of[name] for name in names}, changed

    def standing(self, unit: Unit) -> bool:
        """Whether tasks enter a superposition of a unit that the bank has already."""
        return any((group, unit) in self.kept for group in self.entered.get(unit, ()))

    def parts(self, unit: Unit, step: Step | None, given: Step | None) -> tuple[Part, ...]:
        """What becomes of a unit's superpositions that change.

        `step` is for those that tasks enter (None: they are looked through), `given` the
        recorded one for those that tasks only leave.
        """
        if self._alike is not None:
            return self._new_parts(unit, step, self._alike)
        groups: dict[int, list[Participant]] = {}
        for one in [*self.coming, *self.leaving]:
            stays = one.sign > 0 or (one.group, unit) in self.kept
            if stays and one.meets(unit):
                groups.setdefault(one.group, []).append(one)
        entered = self.entered.get(unit, ())
        found = tuple(
            (group, step if group in entered else given, (group, unit) in self.kept, tuple(members))
            for group, members in sorted(groups.items())
        )
        who = tuple((*some, *(one.index for one in members)) for *some, members in found)
        key = unit.form, who
        if key not in self._known_parts:
            self._known_parts[key] = tuple(
                Part(group, members, grid, kept, self.share(group, unit.names[0]))
                for group, grid, kept, members in found
            )
        return self._known_parts[key]

    @cached_property
    def _alike(self) -> dict[int, tuple[Participant, ...]] | None:
        """The tasks by group of a new bank all of whose tasks have the same tensors."""
        kinds = {id(one.fit.superposed) for one in self.coming}
        if self.old is not None or self.leaving or len(kinds) > 1:
            return None
        groups: dict[int, list[Participant]] = {}
        for one in self.coming:
            groups.setdefault(one.group, []).append(one)
        return {group: tuple(members) for group, members in sorted(groups.items())}

    @cached_property
    def _known_parts(self) -> dict[object, tuple[Part, ...]]:
        """What `parts` made so far: models have many tensors of few shapes and steps."""
        return {}

    def _new_parts(
        self, unit: Unit, step: Step | None, groups: Mapping[int, tuple[Participant, ...]]
    ) -> tuple[Part, ...]:
        """`parts` where all tasks have the same tensors."""
        if unit not in self.entered:
            return ()
        key = step, unit.form
        if key not in self._known_parts:
            self._known_parts[key] = tuple(
                Part(group, members, step, False, self.share(group, unit.names[0]))
                for group, members in groups.items()
            )
        return self._known_parts[key]

    # Tensors, in the order of the file

    @cached_property
    def base_table(self) -> Table:
        """The base's tensors as a new bank stores them, wide ones first; none if it is outside."""
        found = columns(self.base.tensors)
        order = np.argsort(-found.of(lambda kind: ITEM_SIZE[kind.dtype]), kind="stable")
        if self.start.base.storage is not BaseStorage.embed:
            order = order[:0]
        names = [base_key(found.names[row]) for row in order.tolist()]
        return table_of(names, [kind[1:] for kind in found.kinds], found.kind_of[order])

    def places(self, steps: Steps) -> list[Place]:
        """Every live superposition that there can be, wide ones first: no padding."""
        units = sorted(self.units, key=lambda unit: -steps.width(unit))
        return [(group, unit) for group in self._live for unit in units]

    def sums(self, place: Place, bits: int) -> list[TensorInfo]:
        group, unit = place
        tensors, shared = self.base.tensors, group in self.start.shares
        share = self.share(group, unit.names[0]) if shared else None
        return [sum_tensor(group, tensors[name], bits, share) for name in unit.names]

    def live_sums(self, steps: Steps, units: Container[Unit]) -> Iterator[TensorInfo]:
        """The live superpositions of some units that there will be."""
        for group, unit in self.places(steps):
            enters = unit in steps.ready and group in self.entered.get(unit, ())
            if unit in units and (enters or (group, unit) in self.kept):
                yield from self.sums((group, unit), steps.width(unit))

    def share(self, group: int, name: str) -> Share:
        """Which elements a group's superposition of a tensor has."""
        return share_of(self.base.tensors[name], group, self.start.shares)

    def statistics(self, cells: Cells) -> list[TensorInfo]:
        """Lengths and Gram matrices of the tasks that stay and come."""
        count = len(self.start.tasks) + len(self.coming)
        shapes = statistics_shapes(len(norm_rows(self.base.tensors)), len(cells), count)
        return [TensorInfo(key, "F64", shape) for key, shape in shapes.items()]

    def base_digests(self) -> TensorInfo:
        size = DIGEST_BYTES * int(columns(self.base.tensors).of(chunk_count).sum())
        return TensorInfo(BASE_DIGESTS, "U8", (size,))

    def new_files(self) -> list[tuple[TensorInfo, SideFile]]:
        """Side files that the old bank lacks, each content once."""
        return [
            (TensorInfo(file_key(content), "U8", (file.size,)), file)
            for content, file in sorted(self.side_files.items())
            if self.old is None or file_key(content) not in self.old
        ]

    @cached_property
    def exact(self) -> list[Exact]:
        """What the tasks that come keep exactly, or may."""
        return exact_tensors(self.base, self.coming)

    def kept_keys(self, *kinds: str) -> list[str]:
        """The old bank's tensors of some kinds, in its order."""
        keys = () if self.old is None else self.old.header.tensors
        return [key for key in keys if parse_key(key).kind in kinds]

    def kept_statistics(self) -> list[str]:
        """Keys of the old bank's statistics, without those of sealed groups that go."""
        cuts = set(map(cut_key, self.start.sealed))
        kept = self.kept_keys("stats")
        kept = [key for key in kept if key != FORGOTTEN or self.start.forgotten]
        return [key for key in kept if not key.startswith(CUTS) or key in cuts]

    def taken_over(self) -> list[str]:
        """Keys of the old bank's sealed sums and scales, then exact tensors and files, kept."""
        if self.old is None:
            return []
        tensors = self.old.header.tensors
        groups = set(map(str, self.start.sealed))
        sealed = [key for key in self.kept_keys("sum", "scale") if parse_key(key).owner in groups]
        sealed.sort(key=lambda key: -ITEM_SIZE[tensors[key].dtype])
        gone = {own_key(task.name, n) for task in self.gone for n in [*task.own, *task.shapes]}
        used = {file_key(content) for content in self.side_files}
        for files in [self.start.base.files, *(task.files for task in self.start.tasks)]:
            used.update(map(file_key, files.values()))
        own = [key for key in self.kept_keys("own", "files") if key not in gone]
        return [*sealed, *(key for key in own if parse_key(key).kind == "own" or key in used)]

    # Sizes

    def forgotten(self) -> TensorInfo:
        rows = len(norm_rows(self.base.tensors))
        return TensorInfo(FORGOTTEN, "F64", (len(self.start.forgotten), rows))

    def beside(self, cells: Cells) -> list[TensorInfo]:
        """What a new bank has whatever its tasks change, without its base."""
        outside = self.start.base.storage is BaseStorage.reference
        return [*self.statistics(cells), *([self.base_digests()] if outside else [])]
