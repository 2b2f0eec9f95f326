"""Tensors of a task that are retrieved when they are asked for, and the small files beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randes_cli.api import Bank
from randes_cli.errors import RandesError
from randes_cli.files.passing import passing_folder
from randes_cli.read.load import as_torch, torch_dtypes
from randes_cli.read.places import UnpackOptions, by_component, destination, write_side_files
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import TensorInfo

if TYPE_CHECKING:
    import torch


@contextmanager
def opened(bank: Bank | str | Path, base: str | None = None) -> Iterator[Bank]:
    """An open bank as it is, or one opened for the time of the block."""
    if isinstance(bank, Bank):
        with bank.steady():
            yield bank
    else:
        with Bank.open(bank, base=base) as found:
            yield found


class Whole:
    """Whole tensors of a retrieved task, by the bank's names. One object serves all threads.

    `error` is the first that a tensor could not be retrieved for: libraries that load in
    threads of their own report it in other words, or not at all. `lent` are the task's own names
    of tensors that it has under others alone than the base's, by those.
    """

    def __init__(self, retrieval: Retrieval) -> None:
        self.retrieval = retrieval
        task = retrieval.task
        self.lent = {kept: name for name, kept in task.ties.items() if kept in task.missing}
        self.error: RandesError | None = None

    def called(self, name: str) -> str:
        """The name under which the task has what the base has under `name`, one of several."""
        if name in self.retrieval.tensors:
            return name
        kept = self.retrieval.bank.manifest.base.ties.get(name, name)
        return self.lent.get(kept, kept)

    def dtype(self, name: str) -> torch.dtype:
        """The task's own dtype of a tensor."""
        return torch_dtypes()[self.retrieval.tensors[name].dtype]

    def read(self, name: str) -> torch.Tensor:
        """One tensor in the task's own dtype. Raises BankDamaged, MismatchError."""
        tensor = self.retrieval.tensors[name]
        try:
            return as_torch(self.retrieval.read(name), tensor.dtype, tensor.shape)
        except RandesError as error:
            self.error = self.error or error
            raise


@dataclass(frozen=True, slots=True)
class Lazy:
    """A tensor to come: ``lazy[...]`` retrieves it, as a slice of a safetensors file would."""

    whole: Whole
    name: str
    info: TensorInfo

    @property
    def dtype(self) -> torch.dtype:
        return torch_dtypes()[self.info.dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    def is_floating_point(self) -> bool:
        """As of a tensor: transformers asks, to find a checkpoint's dtype."""
        return self.dtype.is_floating_point

    def __getitem__(self, item: Any) -> torch.Tensor:
        made = self.whole.read(self.name)
        return made if item is Ellipsis else made[item]


def lazy_components(whole: Whole) -> dict[str, dict[str, Lazy]]:
    """By component ("" where the task is one model): its tensors by the names in its file."""
    retrieval = whole.retrieval
    named = by_component(retrieval, retrieval.task.layout or {"": ""})
    return {
        component: {
            inside.name: Lazy(whole, name, retrieval.tensors[name])
            for name, inside in tensors.items()
        }
        for component, tensors in named.items()
        if tensors
    }


@contextmanager
def side_folder(bank: Bank, task: str | None, *, code: bool) -> Iterator[Path]:
    """A folder of a task's small files for the time of the block: config, tokenizer, no weights.

    `code`: Python files too.
    """
    options = UnpackOptions(trust_remote_code_files=code)
    with passing_folder() as folder:
        place = destination(bank.retrieval(task).task, folder, options, single=True)
        write_side_files(bank.file, place)
        yield folder
