"""What a task's tensors are called, and where they lie in a bank."""

from __future__ import annotations

from randes_cli.core.share import Share
from randes_cli.errors import BankDamaged
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import own_key, scale_key, sum_key
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.checkpoint.shared import all_names
from randes_cli.plan import Rect, Unit, chunk_grid, share_of
from randes_cli.read.pieces import Piece
from randes_cli.specs import FLOAT_DTYPES, TensorInfo


class TaskTensors:
    """The tensors that a task of a bank comes back as: `tensors`, by name.

    `dtype` is that of those of floats, where it is not the task's own. One object serves all
    threads.
    """

    def __init__(self, bank: BankFile, task: TaskRecord, dtype: str | None = None) -> None:
        self.bank, self.task, self._dtype = bank, task, dtype
        self._named = bank.manifest.base.tensors
        absent = task.absent
        shared = [
            task.tensor(tensor)
            for name, tensor in self._named.items()
            if name not in absent and name not in task.own
        ]
        kept = {t.name: self._output(t) for t in [*shared, *task.own.values()]}
        whole = all_names(kept, task.ties)
        self.tensors = {n: t for n, t in whole.items() if n not in task.missing or n in task.ties}
        self._positions: dict[Unit, dict[str, int]] = {}

    def _output(self, tensor: TensorInfo) -> TensorInfo:
        if self._dtype is None or tensor.dtype not in FLOAT_DTYPES:
            return tensor
        return TensorInfo(tensor.name, self._dtype, tensor.shape)

    def pieces(self, name: str) -> list[Piece]:
        tensor, name = self.tensors[name], self.kept_name(name)
        rows, cols = tensor.matrix
        if name in self.task.own:
            return [Piece(tensor, n, r, own=True) for n, r in enumerate(chunk_grid(rows, cols))]
        common = min(rows, self._named[name].matrix[0])
        made = [Piece(tensor, n, rect) for n, rect in enumerate(chunk_grid(common, cols))]
        extra = enumerate(chunk_grid(rows - common, cols) if rows > common else ())
        return made + [Piece(tensor, n, rect, own=True, skip=common) for n, rect in extra]

    def output_name(self, name: str) -> str:
        """What the task itself calls a tensor that `tensors` has under `name`."""
        known = name in self._named or name in self.bank.manifest.base.ties
        return self.task.output_name(name) if known else name

    def kept_name(self, name: str) -> str:
        """The name that a tensor is kept under: its own, or that of the one it shares."""
        return self.task.ties.get(name, name)

    def once(self) -> list[str]:
        """Names of the output's tensors, one for each that is kept."""
        found: dict[str, str] = {}
        for name in self.tensors:
            found.setdefault(self.kept_name(name), name)
        return list(found.values())

    def superposed(self, name: str) -> bool:
        """Whether a tensor of the task is approximate: it comes from a superposition."""
        name = self.kept_name(name)
        return name not in self.task.own and name not in self.task.unchanged

    def place(self, name: str) -> tuple[Unit, int]:
        """The unit of a tensor and the position where this task's layer lies in it."""
        name = self.kept_name(name)
        unit = self.bank.units.get(name)
        if unit is None:
            raise BankDamaged(f"{self.bank.path}: tensor {name!r} is not superposed in this bank")
        if len(unit.names) == 1:
            return unit, 0
        places = self._positions.get(unit)
        if places is None:
            order = unit.order(self.task.seed, self.task.index)
            places = {unit.names[layer]: position for position, layer in enumerate(order)}
            self._positions[unit] = places
        return unit, places[name]

    def held(self, name: str) -> TensorInfo:
        """The base's tensor under whose name a tensor of the task is superposed."""
        unit, position = self.place(name)
        return self._named[unit.names[position]]

    def share(self, name: str) -> Share:
        """Which elements the superposition of a tensor of the task has."""
        return share_of(self.held(name), self.task.group, self.bank.manifest.shares)

    def sum_key(self, name: str) -> str:
        """The superposition that a tensor of the task lies in."""
        return sum_key(self.task.group, self.held(name).name)

    def stored_bytes(self, *, base: bool) -> int:
        """Bytes of the stored tensors that the task is made of, its base's too if it has one."""
        found = set[str]()
        for name in map(self.kept_name, self.once()):
            found.add(own_key(self.task.name, name))
            if name not in self.task.own and self.superposed(name):
                found |= {self.sum_key(name), scale_key(self.task.group, self.held(name).name)}
        below = [self._named[n] for n in map(self.kept_name, self.once()) if n in self._named]
        shared = sum(t.nbytes for t in below if base and t.name not in self.task.own)
        return shared + sum(self.bank.info(key).nbytes for key in found if key in self.bank)

    def whole(self, piece: Piece) -> Rect:
        """The base's chunk that a piece, named as it is kept, lies in."""
        return chunk_grid(*self._named[piece.tensor.name].matrix)[piece.chunk]
