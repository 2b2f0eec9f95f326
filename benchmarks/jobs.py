"""The jobs that are measured: each a `randes` command beside a plain copy of the same bytes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measure import randes

Command = Sequence[str] | str


@dataclass
class Bench:
    """Files of one size: the base, its fine-tunes, and where jobs write."""

    folder: Path
    base: Path
    tasks: list[Path]
    bank: Path = field(init=False)
    edited: Path = field(init=False)
    out: Path = field(init=False)
    sealed: Path = field(init=False)

    def __post_init__(self) -> None:
        self.bank = self.folder / "bank.randes"
        self.edited = self.folder / "edited.randes"
        self.out = self.folder / "out.safetensors"
        self.sealed = self.folder / "sealed.randes"

    def like(self, bits: int) -> Path:
        """A file about as large as a bank of so many bits an element: a part of the one there is.

        It is kept under its size, beside the bank.
        """
        base = self.base.stat().st_size
        path = self.folder / f"like-{bits}-bits"
        size = base + base * bits // 16
        if not path.exists() or path.stat().st_size != size:
            with self.bank.open("rb") as bank, path.open("wb") as out:
                for start in range(0, size, 2**24):
                    out.write(bank.read(min(2**24, size - start)))
        return path

    def named(self, count: int | None = None) -> list[str]:
        """The fine-tunes as `pack` takes them."""
        return [f"task{n}={path}" for n, path in enumerate(self.tasks[:count])]


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        command: what to measure.
        limit: the plain copy that reads and writes the same bytes.
        made: files to delete before each run, the command's and the limit's.
        goal: what the job may take, as a multiple of the limit.
        prepare: makes what is edited, before each run of either, unmeasured.
    """

    name: str
    command: Callable[[Bench], Command]
    limit: Callable[[Bench], Command]
    made: Callable[[Bench], list[Path]]
    goal: float | None = None
    prepare: Callable[[Bench], Command] | None = None


def copy_limit(read: Sequence[Path], like: Path, to: Path) -> str:
    """`cat` of all that is read, and `cp` of one file as large as the output."""
    words = " ".join(shlex.quote(str(path)) for path in read)
    return f"cat {words} > /dev/null && cp {shlex.quote(str(like))} {shlex.quote(str(to))}"


def replace_limit(read: Sequence[Path], edited: Path, to: Path) -> str:
    """As `copy_limit`, and the copy takes the old file's name, as an edit's output does."""
    return f"{copy_limit(read, edited, to)} && mv {shlex.quote(str(to))} {shlex.quote(str(edited))}"


def _pack(transform: str, goal: float) -> Job:
    def command(b: Bench) -> Command:
        return randes(
            "pack", b.base, *b.named(), "-o", b.edited, "--transform", transform, "--quiet"
        )

    def limit(b: Bench) -> Command:
        return copy_limit([b.base, *b.tasks], b.bank, b.out)

    return Job(f"pack {transform}", command, limit, lambda b: [b.edited, b.out], goal)


def _pack_bits(bits: int, groups: int = 1) -> Job:
    def command(b: Bench) -> Command:
        words = ("--bits", bits, "--groups", groups)
        return randes("pack", b.base, *b.named(), "-o", b.edited, *words, "--quiet")

    def limit(b: Bench) -> Command:
        return copy_limit([b.base, *b.tasks], b.like(bits * groups), b.out)

    name = f"pack --bits {bits}" + (f" --groups {groups}" if groups > 1 else "")
    return Job(name, command, limit, lambda b: [b.edited, b.out], 1.5)


def prepare_bank(b: Bench) -> Command:
    """The bank that all other jobs start from: all fine-tunes, default options."""
    return randes("pack", b.base, *b.named(), "-o", b.bank, "--quiet", "--force")


def prepare_sealed(b: Bench) -> Command:
    """The same bank, sealed at 2 bits."""
    return randes("seal", b.bank, "--bits", 2, "-o", b.sealed, "--quiet", "--force")


#: What jobs start from, by file.
PREPARED = {"bank.randes": prepare_bank, "sealed.randes": prepare_sealed}


def _copied_bank(b: Bench) -> Command:
    return f"cp {shlex.quote(str(b.bank))} {shlex.quote(str(b.edited))}"


def _smaller_bank(b: Bench) -> Command:
    return randes("pack", b.base, *b.named(-1), "-o", b.edited, "--quiet", "--force")


JOBS = (
    _pack("hankel", 1.3),
    _pack("srsf", 1.5),
    *(_pack_bits(bits) for bits in (8, 4, 2, 1)),
    _pack_bits(2, groups=2),
    Job(
        "unpack",
        lambda b: randes("unpack", b.bank, "--task", "task0", "-o", b.out, "--quiet"),
        lambda b: copy_limit([b.bank], b.base, b.edited),
        lambda b: [b.out, b.edited],
        1.2,
    ),
    Job(
        "unpack, sealed at 2 bits",
        lambda b: randes("unpack", b.sealed, "--task", "task0", "-o", b.out, "--quiet"),
        lambda b: copy_limit([b.sealed], b.base, b.edited),
        lambda b: [b.out, b.edited],
        1.2,
    ),
    Job(
        "seal --bits 2",
        lambda b: randes("seal", b.bank, "--bits", 2, "-o", b.edited, "--quiet"),
        lambda b: copy_limit([b.bank], b.like(2), b.out),
        lambda b: [b.edited, b.out],
        1.5,
    ),
    Job(
        "add",
        lambda b: randes("add", b.edited, b.named()[-1], "--quiet"),
        lambda b: replace_limit([b.edited, b.tasks[-1]], b.edited, b.out),
        lambda b: [b.edited, b.out],
        1.3,
        _smaller_bank,
    ),
    Job(
        "remove",
        lambda b: randes(
            "remove", b.edited, "--task", "task0", "--checkpoint", b.tasks[0], "--quiet"
        ),
        lambda b: replace_limit([b.edited, b.tasks[0]], b.edited, b.out),
        lambda b: [b.edited, b.out],
        1.3,
        _copied_bank,
    ),
    Job(
        "verify",
        lambda b: randes("verify", b.bank, "--quiet"),
        lambda b: f"cat {shlex.quote(str(b.bank))} > /dev/null",
        lambda b: [],
    ),
)
