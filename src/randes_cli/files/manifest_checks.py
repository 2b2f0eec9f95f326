"""Checks of a manifest across its fields: unique names and indices, known tensors."""

from __future__ import annotations

from collections.abc import Mapping

from randes_cli.files.header import CONTROL
from randes_cli.files.json_fields import Fields
from randes_cli.files.manifest import Manifest, TaskRecord
from randes_cli.specs import FLOAT_DTYPES, TensorInfo


def check_conversions(fields: Fields, task: TaskRecord, base: Mapping[str, TensorInfo]) -> None:
    """Only floating-point tensors come back in another dtype than the base's."""
    if task.dtype is None and not task.dtypes:
        return
    for name, tensor in base.items():
        dtype = task.dtypes.get(name, task.dtype or tensor.dtype)
        if dtype == tensor.dtype or name in task.missing or name in task.own:
            continue
        if dtype not in FLOAT_DTYPES or tensor.dtype not in FLOAT_DTYPES:
            raise fields.fail(f"dtypes[{name[:100]!a}]", f"is {dtype}, the base's {tensor.dtype}")


def check_whole(fields: Fields, made: Manifest) -> None:
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


def _check_cells(fields: Fields, made: Manifest, names: set[str]) -> None:
    """Each cell of the Gram matrices sums over tensors of the base, and no tensor counts twice."""
    seen: set[str] = set()
    for position, (kind, members) in enumerate(made.cells):
        if not members or CONTROL.search(kind) or not names.issuperset(members):
            raise fields.fail(f"stats.cells[{position}]", "does not name tensors of the base")
        if len(set(members)) != len(members) or not seen.isdisjoint(members):
            raise fields.fail(f"stats.cells[{position}]", "names a tensor twice")
        seen.update(members)
