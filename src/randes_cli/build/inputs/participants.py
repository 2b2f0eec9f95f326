"""The participants of a build: tasks whose deltas enter or leave superpositions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Protocol

import numpy as np

from randes_cli.core.arrays import F32
from randes_cli.core.columns import some_columns
from randes_cli.files.checkpoint.names import Naming
from randes_cli.files.checkpoint.shared import Ties, lent_by, untied
from randes_cli.files.reading import read_values_of
from randes_cli.files.side_files import SideFile
from randes_cli.files.source import Sample, Source, clear_below, not_finite, read_values
from randes_cli.fit import TaskFit
from randes_cli.plan import Unit
from randes_cli.specs import TaskInput, TensorInfo

#: Why a tensor is kept exactly of which names and shapes tell nothing.
_BYTES = "other values than the base's where float32 shows little of that or nothing"


@dataclass(frozen=True)
class Origin:
    """What lies beside a model's tensors.

    Attributes:
        layout: weight file by component where it comes back; empty for a bare file.
        side_files: what travels with it, by name.
        left_out: its folder's other files, each with the reason.
        pickle: where in a pickle its tensors were; None where it is none.
    """

    layout: Mapping[str, str] = field(default_factory=dict)
    side_files: Mapping[str, SideFile] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    pickle: str | None = None


@dataclass(frozen=True)
class OpenTask:
    """A task whose checkpoint is open.

    Attributes:
        source: its tensors under the base's names (an adapter's merged into the base).
        naming: how its own names became the base's.
        notes: what was mapped, chosen or left out, in words.
    """

    task: TaskInput
    source: Source
    naming: Naming
    beside: Origin
    notes: tuple[str, ...]

    def under(self, ties: Ties) -> OpenTask:
        """The same with its tensors under the names that a bank keeps them under."""
        return replace(self, source=untied(self.source, ties))


@dataclass(frozen=True, slots=True)
class Participant:
    """One task whose deltas enter (or, with `sign` −1, leave) superpositions.

    Its index names it: no two tasks of a bank ever have the same.
    """

    opened: OpenTask
    fit: TaskFit
    index: int
    seed: int
    group: int = 0
    sign: int = 1

    @property
    def name(self) -> str:
        return self.opened.task.name

    @property
    def source(self) -> Source:
        return self.opened.source

    def keeping(self, names: Collection[str]) -> Participant:
        """The same with more of its tensors kept exactly, which differ where no delta shows."""
        left = {name: t for name, t in self.fit.superposed.items() if name not in names}
        exact = {**self.fit.exact, **dict.fromkeys(names, _BYTES)}
        return replace(self, fit=replace(self.fit, superposed=left, exact=exact))

    def kept_exactly(self) -> dict[str, str]:
        """What it keeps exactly, under its own names, and why."""
        theirs, lent = self.opened.naming.names, lent_by(self.source)
        named = ((lent.get(name, name), why) for name, why in self.fit.exact.items())
        return {theirs.get(name, name): why for name, why in named}

    def meets(self, unit: Unit) -> bool:
        """Whether any of its tensors is superposed in a unit."""
        return any(name in self.fit.superposed for name in unit.names)

    def meets_of(self, units: Sequence[Unit]) -> list[bool]:
        held = self.fit.superposed.keys()
        return [unit.names[0] in held or (unit.layers > 1 and self.meets(unit)) for unit in units]

    def tensors_of(self, unit: Unit) -> list[TensorInfo]:
        found = map(self.fit.superposed.get, unit.names)
        return [tensor for tensor in found if tensor is not None]

    def delta(self, base: Sample, name: str) -> F32 | None:
        """Θ_i − Θ_0 on a sample, zeros below a shorter task's rows; None where it has none."""
        tensor = self.fit.superposed.get(name)
        if tensor is None:
            return None
        delta, zero = read_values(self.source, name, base.runs), base.values(name)
        if zero is not None:
            with np.errstate(invalid="ignore", over="ignore"):
                np.subtract(delta, zero, out=delta)
            clear_below(delta, tensor.matrix[0], base.runs)
        if not np.isfinite(delta).all():
            raise not_finite(name, *filter(None, (base.source, self.source)))
        return delta

    def many(self, zero: F32 | None, names: Sequence[str], unit: Unit) -> F32 | None:
        """`delta` of tensors like a unit's, one a row, which `zero` has the base's values of.

        None where it is to be asked of one after the other.
        """
        elements = unit.form.elements
        found = some_columns(self.fit.superposed, names).of(attrgetter("elements"))
        if not (found == elements).all():
            return None
        made = read_values_of(self.source, names, elements)
        with np.errstate(invalid="ignore", over="ignore"):
            made = made if zero is None else np.subtract(made, zero, out=made)
        return made if np.isfinite(made).all() else None


class Deltas(Protocol):
    """One task's deltas and transform, as sampling needs them."""

    @property
    def group(self) -> int:
        """The superposition that it is in."""

    @property
    def seed(self) -> int:
        """The task's seed."""

    @property
    def index(self) -> int:
        """The task's index."""

    def delta(self, base: Sample, name: str) -> F32 | None:
        """The task's delta on a sample of a tensor, None where it has none."""

    def many(self, zero: F32 | None, names: Sequence[str], unit: Unit) -> F32 | None:
        """`delta` of tensors like a unit's that are their own samples, one a row.

        `zero` are the base's values. None where it is to be asked of one after the other.
        """
