"""`Bank`: a bank that stays open, for tasks as torch takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from randes_cli.core.kernel import Kernel
from randes_cli.errors import BankDamaged
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.base import BankBase, base_task, open_base
from randes_cli.files.sources import open_bank
from randes_cli.limits import StrPath, as_source
from randes_cli.read.load import LoadReport, as_torch, load_into
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import RunOptions

if TYPE_CHECKING:
    import torch


class Bank:
    """An open bank. Use it in a ``with`` block, or call `close`.

    Every method raises MissingError for a task that is not there and BankDamaged for bytes
    that are not those written.
    """

    def __init__(self, file: BankFile, base: BankBase | None, run: RunOptions) -> None:
        self._file, self._base, self._run = file, base, run
        self._verified: set[tuple[str, int]] = set()
        self._kernels: list[Kernel] = []

    @classmethod
    def open(
        cls, path: StrPath, *, base: StrPath | None = None, run: RunOptions | None = None
    ) -> Bank:
        """Open a bank, or one on the Hub (``org/name@rev``), which is read by range.

        `base` is the base's checkpoint where it lies outside and has moved.
        """
        file = open_bank(as_source(path))
        try:
            how = run or RunOptions()
            return cls(file, open_base(file, base, allow_pickle=how.allow_pickle), how)
        except BaseException:
            file.close()
            raise

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of their indices."""
        return tuple(task.name for task in self._file.manifest.tasks)

    def task(self, name: str) -> TaskRecord:
        """What the manifest records of a task."""
        return self._file.task(name)

    @property
    def file(self) -> BankFile:
        """The bank's file, for the layers above."""
        return self._file

    @property
    def run(self) -> RunOptions:
        """How retrievals run."""
        return self._run

    def retrieval(self, task: str | None, *, coefficient: float | None = None) -> Retrieval:
        """How a task comes out, or the base (None). What was found sound is not checked again."""
        record = base_task(self._file) if task is None else self._file.task(task)
        made = Retrieval(self._file, self._base, record, coefficient=coefficient, run=self._run)
        made.verified = self._verified
        return made

    def iter_tensors(
        self, task: str, *, coefficient: float | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor) of the retrieved task, one at a time, in its own dtypes.

        `coefficient` is λ; None takes the task's own: as tuned, or the default from norms.
        """
        record = self._file.task(task)
        retrieval = Retrieval(
            self._file, self._base, record, coefficient=coefficient, run=self._run
        )
        for name, tensor in retrieval.tensors.items():
            made = as_torch(retrieval.read(name), tensor.dtype, tensor.shape)
            yield retrieval.output_name(name), made
            del made  # or it would live until the next one is made

    def retrieve(self, task: str, *, coefficient: float | None = None) -> dict[str, torch.Tensor]:
        """The retrieved task as a state dict."""
        return dict(self.iter_tensors(task, coefficient=coefficient))

    def load_into(
        self,
        module: torch.nn.Module,
        task: str,
        *,
        coefficient: float | None = None,
        strict: bool = True,
    ) -> LoadReport:
        """Write the retrieved task into a module's own parameters and buffers.

        The module may be on any device and in other floating-point dtypes; there is no second
        copy of it. Parameters that share memory (tied ones) are written once, under the first
        of their names that the task has. Loading A, then B, then A gives A exactly. Stored
        bytes are checked when they are first used.

        Raises, before anything is written, MissingError for parameters that the task lacks and
        MismatchError for tensors that the module lacks (neither with ``strict=False``) or has
        in another shape, or (whole numbers, truths) in another dtype. After BankDamaged, or a
        MismatchError for values beyond the module's dtype, the module is partly written: load a
        task again.
        """
        retrieval = self.retrieval(task, coefficient=coefficient)
        with self.steady():
            return load_into(retrieval, module, strict=strict, kernels=self._kernels)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Read what was opened, or raise BankDamaged.

        A bank that is replaced by a new file stays what it is. One that is written over in place
        (``cp new.randes bank.randes``) is another: what was found sound before is checked again.
        """
        before = self._written()
        if before:
            self._verified.clear()
        try:
            yield
        except BankDamaged as error:
            if self._written():
                raise self._other() from error
            raise
        if not before and self._written():
            raise self._other()

    def _other(self) -> BankDamaged:
        return BankDamaged(
            f"{self._file.path}: was written over in place since it was opened, and is another "
            "bank or none: open it again (replace a bank by a new file, and it stays as opened)"
        )

    def _written(self) -> bool:
        outside = None if self._base is None else self._base.outside
        return self._file.store.written() or (outside is not None and outside.written())

    def close(self) -> None:
        """Close the bank and the base."""
        if self._base is not None:
            self._base.close()
        self._file.close()

    def __enter__(self) -> Bank:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
