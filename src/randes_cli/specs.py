"""Frozen records shared by all layers: dtypes, tensors, transforms, options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from typing import NamedTuple

from randes_cli.errors import UsageError

FORMAT_NAME = "randes"
FORMAT_VERSION = 1

#: Bytes per element of every safetensors dtype that randes stores.
ITEM_SIZE: Mapping[str, int] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "C64": 8,
}
#: Dtypes whose deltas can be superposed. All others travel as exact own tensors.
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


class TensorInfo(NamedTuple):
    """Name, dtype (safetensors spelling) and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * ITEM_SIZE[self.dtype]

    @property
    def matrix(self) -> tuple[int, int]:
        """(rows, columns): leading dimensions multiplied × last; a vector is 1 × n."""
        if len(self.shape) < 2:
            return 1, self.elements
        return prod(self.shape[:-1]), self.shape[-1]


class Shuffle(str, Enum):
    """How a task's layers of one type are moved (paper 4.3 and C.2)."""

    none = "none"
    random = "random"
    shift = "shift"


class Signs(str, Enum):
    """How a task's elements are flipped (paper 4.4; `hankel` and `two_sided` are ours)."""

    none = "none"
    column = "column"
    hankel = "hankel"
    two_sided = "two-sided"


class Rest(str, Enum):
    """What becomes of tensors outside the targets."""

    sum = "sum"
    own = "own"


class BaseStorage(str, Enum):
    """Where a bank's base lives: inside it, outside it, or nowhere (all zeros)."""

    embed = "embed"
    reference = "reference"
    zero = "zero"


PRESETS: Mapping[str, tuple[Shuffle, Signs]] = {
    "two-sided": (Shuffle.none, Signs.two_sided),
    "hankel": (Shuffle.none, Signs.hankel),
    "srsf": (Shuffle.random, Signs.column),
    "rsf": (Shuffle.none, Signs.column),
    "s": (Shuffle.random, Signs.none),
    "shift": (Shuffle.shift, Signs.none),
    "ta": (Shuffle.none, Signs.none),
}


@dataclass(frozen=True, slots=True)
class Transform:
    """The orthogonal map of a bank: shuffle, then signs, on the targets.

    `matched` are the tensors that `targets` stands for, once a base is at hand; None where all
    are, or where that is not yet known. A bank records them, so that reading one never runs a
    pattern.
    """

    shuffle: Shuffle = Shuffle.none
    signs: Signs = Signs.hankel
    targets: str = "all"
    every: int = 1
    rest: Rest = Rest.sum
    matched: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"--every must be 1 or more, not {self.every}")
        if self.matched is None and self.targets not in ("all", "attn", "mlp"):
            try:
                re.compile(self.targets)
            except re.error as error:
                raise UsageError(f"--targets: not a regular expression: {error}") from None

    @property
    def preset(self) -> str | None:
        """The preset's name, or None where the parts match none."""
        parts = (self.shuffle, self.signs)
        return next((name for name, pair in PRESETS.items() if pair == parts), None)

    @classmethod
    def from_preset(cls, name: str, **more: object) -> Transform:
        if name not in PRESETS:
            raise UsageError(f"unknown transform {name!r}; choose from {', '.join(PRESETS)}")
        shuffle, signs = PRESETS[name]
        return cls(shuffle, signs, **more)  # type: ignore[arg-type]


#: Groups that a bank may have.
MOST_GROUPS = 2**20


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """What may be read of a checkpoint.

    Attributes:
        allow_pickle: read .bin, .pt and .pth files (with torch's `weights_only`, so that no
            code of theirs runs).
        trust_remote_code_files: carry a folder's Python files along.
        safetensors_only: carry no side files (config, tokenizer) at all.
    """

    allow_pickle: bool = False
    trust_remote_code_files: bool = False
    safetensors_only: bool = False


@dataclass(frozen=True, slots=True)
class EditOptions:
    """How an edit runs.

    Attributes:
        base: the base's checkpoint, where it lies outside the bank and has moved.
        wait: seconds to wait for another editor.
        dry_run: only report.
        merge_adapters: LoRA adapters become full tasks: base + scaling · B · A.
        opening: what may be read of the checkpoints.
    """

    base: str | None = None
    wait: float = 0.0
    dry_run: bool = False
    merge_adapters: bool = False
    opening: OpenOptions = field(default_factory=OpenOptions)


@dataclass(frozen=True, slots=True)
class PackOptions:
    """Everything besides the checkpoints that decides a new bank's bytes.

    Attributes:
        bits: width of one superposed element: 16 or 8, or 4 to 1 (packed at 16, then sealed).
        seed: bank seed; a task's seed is this plus its index.
        fit: choose bits and groups that are predicted best for a bank of this size (``500MB``)
            or ratio to the base (``1.1``); then `bits` and `groups` do not count.
        groups: superpositions side by side; tasks that name none are dealt by index.
        capacity: tasks that an 8-bit superposition must have room for
            (None: twice the tasks of the largest group, at least 16).
        steps: step exponents by tensor name that replace the measured ones; with
        widths: bits of those superpositions that are not `bits` wide, by tensor name.
        merge_adapters: LoRA adapters become full tasks: base + scaling · B · A.
        opening: what may be read of the checkpoints.
    """

    transform: Transform = field(default_factory=Transform)
    bits: int = 16
    seed: int = 42
    groups: int = 1
    fit: str | None = None
    base_storage: BaseStorage = BaseStorage.embed
    capacity: int | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    merge_adapters: bool = False
    opening: OpenOptions = field(default_factory=OpenOptions)

    def __post_init__(self) -> None:
        if self.bits not in (16, 8, 4, 3, 2, 1):
            raise UsageError(f"--bits must be 16, 8, 4, 3, 2 or 1, not {self.bits}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed must be between 0 and 2^63-1, not {self.seed}")
        if not 1 <= self.groups <= MOST_GROUPS:
            raise UsageError(f"--groups must be between 1 and {MOST_GROUPS}, not {self.groups}")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What decides how a job runs, and never what it writes.

    Attributes:
        threads: worker threads (0: one per core).
        max_memory: bytes that buffers may take together (None: 128 MiB).
        strip_elements: elements of one strip (None: the planner chooses).
        device: "cpu" (NumPy), "cpu-torch", "cuda" or "mps".
    """

    threads: int = 0
    max_memory: int | None = None
    strip_elements: int | None = None
    device: str = "cpu"


_TASK_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
#: Names that Windows reserves for devices, whatever their suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def check_task_name(name: str) -> str:
    """Return `name` when it may name a task and its output file; raise UsageError else."""
    if not _TASK_NAME.fullmatch(name) or _DEVICES.fullmatch(name) or name.endswith("."):
        raise UsageError(
            f"task name {name[:120]!a}: use 1-100 of A-Z a-z 0-9 . _ - without a leading or "
            "trailing dot (say NAME=PATH)"
        )
    return name


@dataclass(frozen=True, slots=True)
class TaskInput:
    """One fine-tuned model to put into a bank.

    Attributes:
        name: the task's name in the bank.
        source: what the user named: a file, a folder, or a Hub id.
        index: the task's index (None: the next unused one).
        group: the superposition that it enters (None: `pack` deals, `add` takes the emptiest).
    """

    name: str
    source: str
    index: int | None = None
    group: int | None = None
