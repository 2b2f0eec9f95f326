"""What the verbs return. Plain records: the command line renders them, `--json` dumps them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """One task as pack, add and inspect report it; tensors are counts."""

    name: str
    index: int
    seed: int
    predicted_cosine: float
    coefficient: float
    superposed: int
    own: int
    unchanged: int
    missing: int


@dataclass(frozen=True, slots=True)
class PackReport:
    """What `pack` did, or with a dry run would do. Sizes are bytes."""

    bank: str
    dry_run: bool
    bank_bytes: int
    base_bytes: int
    separate_bytes: int
    read_bytes: int
    buffer_bytes: int
    tasks: tuple[TaskSummary, ...]
    kept_exactly: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class EditReport:
    """What `add` or `remove` did, or with a dry run would do. Sizes are bytes.

    `estimated` lists the pairs of task indices whose cosines are estimates, because a
    checkpoint could not be read.
    """

    bank: str
    dry_run: bool
    bytes_before: int
    bytes_after: int
    read_bytes: int
    buffer_bytes: int
    before: tuple[TaskSummary, ...]
    after: tuple[TaskSummary, ...]
    estimated: tuple[tuple[int, int], ...]
