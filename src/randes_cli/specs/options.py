"""What decides a job: options, and what is put into a bank."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from randes_cli.errors import UsageError
from randes_cli.limits import (
    LIMITS,
    MOST_SECONDS,
    Limit,
    StrPath,
    as_source,
    check_number,
    choose,
)
from randes_cli.specs.transform import SHARES, BaseStorage, Transform, check_pattern, put


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
        components: the components of a folder to read (None: all); what a bank recorded of one.
        apart: sub-folders that are models of their own, and no components.
    """

    allow_pickle: bool = False
    trust_remote_code_files: bool = False
    safetensors_only: bool = False
    weights_key: str | None = None
    components: frozenset[str] | None = None
    apart: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.weights_key is not None and not self.allow_pickle:
            raise UsageError("--weights-key is for pickles: say --allow-pickle, too")

    def recorded(self, pickle: str | None, layout: Collection[str]) -> OpenOptions:
        """The same for a source that a bank recorded: it may be read as it was then.

        A pickle, and of a folder the components that it had.
        """
        made = replace(self, components=frozenset(layout) or None)
        if pickle is None:
            return made
        return replace(made, allow_pickle=True, weights_key=pickle or self.weights_key)


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


#: Options that choose others, and those that they choose.
CHOOSERS = ("fit", "keep")
CHOSEN = ("bits", "groups", "share")


def check_chosen(given: Collection[str]) -> None:
    """Refuse an option beside another one that chooses it; `given` are the names of all."""
    chooser = next((name for name in CHOOSERS if name in given), None)
    said = [f"--{name}" for name in CHOSEN if name in given]
    if chooser is not None and said:
        raise UsageError(
            f"--{chooser} chooses bits, groups and share: leave out {' and '.join(said)}, or say "
            f"{'it' if len(said) == 1 else 'them'} without --{chooser}"
        )


_BITS = (16, 8, 4, 3, 2, 1)


@dataclass(frozen=True, slots=True)
class PackOptions:
    """Everything besides the checkpoints that decides a new bank's bytes.

    Attributes:
        bits: width of one superposed element: 16 or 8, or 4 to 1 (packed at 16, then sealed).
            None: 8 where the base's weights take two bytes each or fewer and no task is alone in
            a group, else 16.
        share: superpositions have one element in this many of each matrix: 1, 2, 4 or 8.
        seed: bank seed; a task's seed is this plus its index.
        fit: choose the bits, groups and share that are predicted to keep most of the gain in a
            bank of this size (``500MB``) or ratio to the base (``1.1``); none of them beside it.
        exact: a regular expression: tensors with such names are kept exactly, for each task.
        keep: choose them for the smallest bank that is predicted to keep this share of the gain
            over the base (``99%``).
        groups: superpositions side by side; tasks that name none are dealt by index (1: as many
            as the tasks name).
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
    bits: int | None = None
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
        usual = {"fit": None, "keep": None, "bits": None, "groups": 1, "share": 1}
        check_chosen([name for name, value in usual.items() if getattr(self, name) != value])
        if self.bits is not None and (type(self.bits) is not int or self.bits not in _BITS):
            raise UsageError(f"--bits must be 16, 8, 4, 3, 2 or 1, not {self.bits}")
        if type(self.share) is not int or self.share not in SHARES:
            raise UsageError(f"--share must be 1, 1/2, 1/4 or 1/8, not 1/{self.share}")
        LIMITS["seed"].check("--seed", self.seed)
        LIMITS["groups"].check("--groups", self.groups)
        if self.capacity is not None:
            LIMITS["capacity"].check("--capacity", self.capacity)
        for name, step in self.steps.items():
            LIMITS["step"].check(f"steps[{name!r}]", step)
        for name, width in self.widths.items():
            if type(width) is not int or width not in (16, 8):
                raise UsageError(f"widths[{name!r}] must be 16 or 8, not {width}")
        put(self, base_storage=choose("--base", BaseStorage, self.base_storage))


#: Where a job may compute; `auto` is where that is soonest done.
DEVICES = ("auto", "cpu", "cpu-torch", "cuda", "mps")
#: Who may do a job.
ENGINES = ("threads", "ray")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What decides how a job runs, and never what it writes.

    Attributes:
        threads: worker threads (0: one per core).
        max_memory: bytes that buffers may take together (None: 128 MiB).
        strip_elements: elements of one strip (None: the planner chooses).
        device: "auto", "cpu", "cpu-torch", "cuda" or "mps". "auto" is the CPU, whatever else
            there is: what is read from a disk is done there before a GPU has been started.
        allow_pickle: read a base outside and originals from pickles, too, as `OpenOptions` says.
        engine: "threads" of this process, or "ray": workers of a Ray cluster, of `threads` each.
        address: of the cluster (None: one of this machine's processors, or RAY_ADDRESS).
    """

    threads: int = 0
    max_memory: int | None = None
    strip_elements: int | None = None
    device: str = "auto"
    allow_pickle: bool = False
    engine: str = "threads"
    address: str | None = None

    @property
    def networked(self) -> bool:
        """Whether other machines work too, on storage that all of them share: its reads wait."""
        return self.engine == "ray" and bool(self.address or os.environ.get("RAY_ADDRESS"))

    def __post_init__(self) -> None:
        Limit(0, 2**31 - 1).check("--threads", self.threads)
        if self.engine not in ENGINES:
            raise UsageError(f"--engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        if self.address is not None and self.engine != "ray":
            raise UsageError("--address is of a Ray cluster: say --engine ray")
        for option, value in (
            ("--max-memory", self.max_memory),
            ("strip_elements", self.strip_elements),
        ):
            if value is not None:
                Limit(1, 2**63 - 1).check(option, value)
        if self.device not in DEVICES:
            raise UsageError(f"--device must be one of {', '.join(DEVICES)}, not {self.device!r}")


_TASK_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]")
#: Names that Windows reserves for devices, whatever their suffix.
DEVICE_NAMES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def check_task_name(name: str) -> str:
    """Return `name` when it may name a task and its output file; raise UsageError else."""
    wrong = _wrong_with(name)
    if wrong is None:
        return name
    raise UsageError(
        f"task name {name[:120]!r}: use 1-100 of A-Z a-z 0-9 . _ - without a leading or "
        f"trailing dot, not {wrong} (say NAME=PATH with another NAME)"
    )


def _wrong_with(name: str) -> str | None:
    """What keeps a text from naming a task, in words; None where nothing does."""
    if _TASK_NAME.fullmatch(name) and not DEVICE_NAMES.fullmatch(name) and not name.endswith("."):
        return None
    strange = _NO_NAME.search(name)
    if strange:
        return "a blank" if strange[0] == " " else repr(strange[0])
    if DEVICE_NAMES.fullmatch(name):
        return "a device of Windows"
    return f"{len(name)} characters" if len(name) > 100 or not name else "such a dot"


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
        put(self, name=name, source=as_source(source), index=index, group=group)


def check_groups(tasks: Iterable[TaskInput], groups: int) -> None:
    """Refuse a task that names a group beyond the `groups` that were asked for."""
    for task in tasks:
        if task.group is not None and task.group >= groups:
            made = f"groups 0 to {groups - 1}" if groups > 1 else "one group, 0"
            raise UsageError(f"{task.name}@{task.group}: --groups {groups} makes {made}")
