"""Frozen records shared by all layers: dtypes, tensors, transforms, options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import prod
from typing import Any, NamedTuple

from randes_cli.errors import UsageError
from randes_cli.limits import (
    LIMITS,
    MOST_SECONDS,
    Limit,
    StrPath,
    as_source,
    check_line,
    check_number,
    choose,
)

FORMAT_NAME = "randes"
FORMAT_VERSION = 2


class Dtype(NamedTuple):
    """A dtype of stored tensors.

    Attributes:
        size: bytes of an element.
        floating: whether deltas can be superposed; all others travel as exact own tensors.
        numpy: its name in NumPy, or in ml_dtypes.
        torch: its name in torch.
    """

    size: int
    floating: bool
    numpy: str
    torch: str


#: Every dtype that randes stores, by its name in safetensors.
DTYPES: Mapping[str, Dtype] = {
    "F64": Dtype(8, True, "float64", "float64"),
    "F32": Dtype(4, True, "float32", "float32"),
    "F16": Dtype(2, True, "float16", "float16"),
    "BF16": Dtype(2, True, "bfloat16", "bfloat16"),
    "F8_E4M3": Dtype(1, True, "float8_e4m3fn", "float8_e4m3fn"),
    "F8_E5M2": Dtype(1, True, "float8_e5m2", "float8_e5m2"),
    "I64": Dtype(8, False, "int64", "int64"),
    "I32": Dtype(4, False, "int32", "int32"),
    "I16": Dtype(2, False, "int16", "int16"),
    "I8": Dtype(1, False, "int8", "int8"),
    "U64": Dtype(8, False, "uint64", "uint64"),
    "U32": Dtype(4, False, "uint32", "uint32"),
    "U16": Dtype(2, False, "uint16", "uint16"),
    "U8": Dtype(1, False, "uint8", "uint8"),
    "BOOL": Dtype(1, False, "bool_", "bool"),
    "C64": Dtype(8, False, "complex64", "complex64"),
}
ITEM_SIZE: Mapping[str, int] = {name: dtype.size for name, dtype in DTYPES.items()}
FLOAT_DTYPES = frozenset(name for name, dtype in DTYPES.items() if dtype.floating)


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


def check_pattern(what: str, text: str) -> None:
    """Raise UsageError for what is no regular expression."""
    check_line(what, text)
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{what}: not a regular expression: {error}") from None


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
    pattern. `exact` are the statistics and constants of the base, which are kept exactly (see
    `core.roles`), recorded likewise. `any_digits`: layer numbers may be digits of any script, as
    in banks of version 1, and not ASCII's alone. `extra` are optional fields that a bank records
    and this version does not know.
    """

    shuffle: Shuffle = Shuffle.none
    signs: Signs = Signs.two_sided
    targets: str = "all"
    every: int = 1
    rest: Rest = Rest.sum
    matched: frozenset[str] | None = None
    exact: frozenset[str] = frozenset()
    any_digits: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _set(self, shuffle=choose("--shuffle", Shuffle, self.shuffle))
        _set(self, signs=choose("--signs", Signs, self.signs))
        _set(self, rest=choose("--rest", Rest, self.rest))
        LIMITS["every"].check("--every", self.every)
        check_line("--targets", self.targets)
        if self.matched is None and self.targets not in ("all", "attn", "mlp"):
            check_pattern("--targets", self.targets)

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


#: The m of shares: a superposition has one element in m.
SHARES = (1, 2, 4, 8)


def task_seed(bank: int, index: int) -> int:
    """The seed of a task. Raises UsageError where no number is left for it."""
    LIMITS["seed"].check("--seed plus a task's index", bank + index)
    return bank + index


def _set(record: object, **values: object) -> None:
    """Put a checked value into a frozen record under construction."""
    for name, value in values.items():
        object.__setattr__(record, name, value)


def check_shard_size(size: int | None) -> None:
    """Raise UsageError unless `size` is one that a shard may have, or None."""
    if size is not None:
        Limit(1, 2**63 - 1).check("--max-shard-size", size)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """What may be read of a checkpoint.

    Attributes:
        allow_pickle: read pickles (.bin, .pt, .pth …) with torch's `weights_only`, so that no
            code of theirs runs.
        trust_remote_code_files: carry a folder's Python files along.
        safetensors_only: carry no side files (config, tokenizer) at all.
        weights_key: where in a pickle the tensors are (``model_ema``), where it has several.
    """

    allow_pickle: bool = False
    trust_remote_code_files: bool = False
    safetensors_only: bool = False
    weights_key: str | None = None

    def recorded(self, pickle: str | None) -> OpenOptions:
        """The same for a source that a bank recorded: a pickle may be read as it was then."""
        if pickle is None:
            return self
        return replace(self, allow_pickle=True, weights_key=pickle or self.weights_key)


@dataclass(frozen=True, slots=True)
class EditOptions:
    """How an edit runs.

    Attributes:
        base: the base's checkpoint, where it lies outside the bank and has moved.
        wait: seconds to wait for another editor.
        dry_run: only report.
        merge_adapters: refuse a bank of adapters that stay adapters (where there is a base,
            adapters become full tasks anyway: base + scaling · B · A).
        opening: what may be read of the checkpoints.
        max_shard_size: bytes of a file of the bank at the most (None: as the bank is).
    """

    base: StrPath | None = None
    wait: float = 0.0
    dry_run: bool = False
    merge_adapters: bool = False
    opening: OpenOptions = field(default_factory=OpenOptions)
    max_shard_size: int | None = None

    def __post_init__(self) -> None:
        check_number("--wait", self.wait, MOST_SECONDS)
        check_shard_size(self.max_shard_size)


@dataclass(frozen=True, slots=True)
class PackOptions:
    """Everything besides the checkpoints that decides a new bank's bytes.

    Attributes:
        bits: width of one superposed element: 16 or 8, or 4 to 1 (packed at 16, then sealed).
        share: superpositions have one element in this many of each matrix: 1, 2, 4 or 8.
        seed: bank seed; a task's seed is this plus its index.
        fit: choose the bits, groups and share that are predicted to keep most of the gain in a
            bank of this size (``500MB``) or ratio to the base (``1.1``); then these do not count.
        exact: a regular expression: tensors with such names are kept exactly, for each task.
        keep: choose them for the smallest bank that is predicted to keep this share of the gain
            over the base (``99%``).
        groups: superpositions side by side; tasks that name none are dealt by index.
        capacity: tasks that an 8-bit superposition must have room for
            (None: twice the tasks of the largest group, at least 16).
        steps: step exponents by tensor name, in place of the measured ones.
        widths: bits by tensor name, for those of `steps` that are not `bits` wide.
        adapters: LoRA adapters stay adapters, also where a base is named.
        merge_adapters: refuse to keep them so (where there is a base and not `adapters`, they
            become full tasks anyway: base + scaling · B · A).
        opening: what may be read of the checkpoints.
        max_shard_size: bytes of a file at the most: the bank goes into shards beside an index
            (None: one file up to 50 GB, then shards).
    """

    transform: Transform = field(default_factory=Transform)
    bits: int = 16
    share: int = 1
    seed: int = 42
    groups: int = 1
    fit: str | None = None
    keep: str | None = None
    exact: str | None = None
    base_storage: BaseStorage = BaseStorage.embed
    capacity: int | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    adapters: bool = False
    merge_adapters: bool = False
    opening: OpenOptions = field(default_factory=OpenOptions)
    max_shard_size: int | None = None

    def __post_init__(self) -> None:
        check_shard_size(self.max_shard_size)
        if self.adapters and self.merge_adapters:
            raise UsageError("--adapters keeps adapters as they are; leave --merge-adapters out")
        if self.exact is not None:
            check_pattern("--exact", self.exact)
        if self.fit is not None and self.keep is not None:
            raise UsageError("--fit asks for a size and --keep for a quality: give one of them")
        if type(self.bits) is not int or self.bits not in (16, 8, 4, 3, 2, 1):
            raise UsageError(f"--bits must be 16, 8, 4, 3, 2 or 1, not {self.bits}")
        if type(self.share) is not int or self.share not in SHARES:
            raise UsageError(f"--share must be 1, 1/2, 1/4 or 1/8, not 1/{self.share}")
        LIMITS["seed"].check("--seed", self.seed)
        LIMITS["groups"].check("--groups", self.groups)
        if self.capacity is not None:
            LIMITS["capacity"].check("--capacity", self.capacity)
        for name, step in self.steps.items():
            LIMITS["step"].check(f"steps[{name!a}]", step)
        for name, width in self.widths.items():
            if type(width) is not int or width not in (16, 8):
                raise UsageError(f"widths[{name!a}] must be 16 or 8, not {width}")
        _set(self, base_storage=choose("--base", BaseStorage, self.base_storage))


#: Where a job may compute.
DEVICES = ("cpu", "cpu-torch", "cuda", "mps")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What decides how a job runs, and never what it writes.

    Attributes:
        threads: worker threads (0: one per core).
        max_memory: bytes that buffers may take together (None: 128 MiB).
        strip_elements: elements of one strip (None: the planner chooses).
        device: "cpu" (NumPy), "cpu-torch", "cuda" or "mps".
        allow_pickle: read a base outside and originals from pickles, too, as `OpenOptions` says.
    """

    threads: int = 0
    max_memory: int | None = None
    strip_elements: int | None = None
    device: str = "cpu"
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        Limit(0, 2**31 - 1).check("--threads", self.threads)
        for option, value in (
            ("--max-memory", self.max_memory),
            ("strip_elements", self.strip_elements),
        ):
            if value is not None:
                Limit(1, 2**63 - 1).check(option, value)
        if self.device not in DEVICES:
            raise UsageError(f"unknown device {self.device!a}; choose from {', '.join(DEVICES)}")


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


@dataclass(frozen=True, slots=True, init=False)
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
    index: int | None
    group: int | None

    def __init__(
        self, name: str, source: StrPath, index: int | None = None, group: int | None = None
    ) -> None:
        if index is not None:
            LIMITS["index"].check("a task's index", index)
        if group is not None:
            LIMITS["group"].check(f"{name}: its group", group)
        _set(self, name=name, source=as_source(source), index=index, group=group)
