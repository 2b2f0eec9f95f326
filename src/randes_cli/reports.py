"""What the verbs return. Plain records: the command line renders them, `--json` dumps them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Refusal:
    """A task that a dry run found not to fit, why, and the exit code that it would end with."""

    name: str
    reason: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """One task as pack, add and inspect report it; tensors are counts.

    After a dry run `unchanged` counts the tensors whose sample shows no change.
    `read_bytes` is what is read of it; `left_out` are the files of its folder that are not in the
    bank, each with the reason; `notes` say what was mapped, chosen or left out. `lost` says that
    its delta does not come back, and what to do (empty where it does), `lost_tensors` how many of
    its changed tensors do not. `kept` is the predicted share of its gain over the base, 0 to 1:
    the mean of the measured families of models, `kept_low` and `kept_high` their range.
    `approximate` says why what is predicted is approximate; empty where all was measured.
    `length` is the delta's beside the base's; None where that is not known.
    """

    name: str
    index: int
    group: int
    seed: int
    predicted_cosine: float
    coefficient: float
    superposed: int
    own: int
    unchanged: int
    missing: int
    read_bytes: int = 0
    side_files: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lost: str = ""
    lost_tensors: int = 0
    kept: float | None = None
    kept_low: float | None = None
    kept_high: float | None = None
    verdict: str = ""
    expected: tuple[float, float] | None = None
    approximate: str = ""
    length: float | None = None


@dataclass(frozen=True, slots=True)
class Alternative:
    """A bank of the same tasks with other bits, groups or shares.

    Attributes:
        predicted_cosine: mean over the tasks, from their norms.
        present: whether it is the bank at hand.
        share: superpositions have one element in this many.
        kept: predicted share of the gain over the base, mean over the tasks: the mean of the
            measured families of models; `kept_low` and `kept_high` are their range.
        best: whether no choice that is looked at is predicted to keep as much in fewer bytes.
        exact: whether `bank_bytes` are those of the file, but for a digit of a λ that comes out
            otherwise than predicted; others are near it.
        approximate: whether few bits would cut deltas of heavy tails (sparse ones, outliers), of
            which the prediction may be far off, and --fit and --keep make a trial.
    """

    groups: int
    bits: int
    bank_bytes: int
    predicted_cosine: float
    present: bool
    share: int = 1
    kept: float = 1.0
    kept_low: float = 1.0
    kept_high: float = 1.0
    best: bool = False
    exact: bool = False
    approximate: bool = False


@dataclass(frozen=True, slots=True)
class PackReport:
    """What `pack` did, or with a dry run would do. Sizes are bytes.

    `kept_exactly` gives for each task the reason why a tensor is not superposed; `refused`
    are the tasks that a dry run found wanting; `notes` are about the base; `download_bytes`
    are those of the inputs that the Hub's cache lacked. `bits` and `groups` are as packed (or
    chosen for --fit), on one element in `share`. `adapters` is what LoRA adapters became:
    `merged` (so many tasks), `kept`, or None where there are none. `alternatives` are other
    choices of bits, groups and shares; `advice` names one that keeps notably more in no more
    bytes, `unsuited` says why superposition is the wrong choice, `saving` is the command that makes
    the bank smaller and loses next to nothing. `room` is how many more tasks like these its 8-bit
    superpositions have room for; None where it has none.
    """

    bank: str
    dry_run: bool
    bank_bytes: int
    base_bytes: int
    separate_bytes: int
    read_bytes: int
    buffer_bytes: int
    tasks: tuple[TaskSummary, ...]
    kept_exactly: dict[str, dict[str, str]]
    notes: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    download_bytes: int = 0
    bits: int = 16
    share: int = 1
    groups: int = 1
    alternatives: tuple[Alternative, ...] = ()
    advice: str | None = None
    saving: str | None = None
    unsuited: tuple[str, ...] = ()
    adapters: str | None = None
    merged: int = 0
    room: int | None = None


@dataclass(frozen=True, slots=True)
class EditReport:
    """What `add` or `remove` did, or with a dry run would do. Sizes are bytes.

    `read_bytes` are those of the checkpoints that came or left; the bank's own are not counted.

    `estimated` lists the pairs of task indices whose cosines are estimates, because a
    checkpoint could not be read. `adapters` is what LoRA adapters that came became: `merged` (so
    many tasks), `kept`, or None where none came. `kept_exactly` is as `pack` reports it, of the
    tasks that came; in `after` these have what was read of them, and notes. `room` is as `pack`
    reports it, of the bank as edited, and so is `unsuited` where tasks came; `notes` say which of
    these are one with another, and which a replacement only added.
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
    adapters: str | None = None
    merged: int = 0
    kept_exactly: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unsuited: tuple[str, ...] = ()
    room: int | None = None


@dataclass(frozen=True, slots=True)
class SealReport:
    """What `seal` did, or with a dry run would do. Sizes are bytes.

    `groups` are those that were cut to `bits`; `kept` is the predicted share of the gain, mean over
    the tasks: its low end, mean and high end by family; None where none can be told.
    """

    bank: str
    dry_run: bool
    bits: int
    groups: tuple[int, ...]
    bytes_before: int
    bytes_after: int
    before: tuple[TaskSummary, ...]
    after: tuple[TaskSummary, ...]
    kept: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What `convert` did, or would do: bytes of the bank before and after, and its files."""

    bank: str
    dry_run: bool
    bytes_before: int
    bytes_after: int
    files: int
