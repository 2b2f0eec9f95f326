"""Retrieval: one task's tensors out of a bank, piece by piece (paper equation 6)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.core.convert import narrow, widen
from randes_cli.core.kernel import Kernel
from randes_cli.errors import BankDamaged, MismatchError, UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import NORMS, ROUNDED, base_key, own_key, sum_key
from randes_cli.files.base import BankBase
from randes_cli.files.digests import hasher
from randes_cli.files.records import TaskRecord
from randes_cli.limits import MOST_COEFFICIENT, check_number
from randes_cli.plan import Rect, Unit, chunks, plan_units
from randes_cli.read.sealed import SealedReader
from randes_cli.specs import FLOAT_DTYPES, ITEM_SIZE, TensorInfo
from randes_cli.stats.stored import default_lambda, stands_alone


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of one output tensor; `own`: of the exact tensor, put after `skip` rows."""

    tensor: TensorInfo
    chunk: int
    rect: Rect
    own: bool = False
    skip: int = 0


class Retrieval:
    """How one task comes out of a bank. One object serves all threads.

    Attributes:
        tensors: the output's tensors by name.
        saturated: values that did not fit the output's dtype and became its largest.
        damaged: tensors whose stored bytes were damaged (only with `force`).
        verified: (tensor, chunk) pairs known to be sound, which are not checked again, and to
            which those found sound are added (None: check always).
    """

    def __init__(
        self,
        bank: BankFile,
        base: BankBase | None,
        task: TaskRecord,
        *,
        coefficient: float | None = None,
        dtype: str | None = None,
        force: bool = False,
    ) -> None:
        self.bank, self.base, self.task, self.force = bank, base, task, force
        if coefficient is not None:
            check_number("--lambda", coefficient, MOST_COEFFICIENT)
        self._chosen = task.coefficient if coefficient is None else coefficient
        if dtype is not None and dtype not in FLOAT_DTYPES:
            raise UsageError(f"--dtype must be one of {', '.join(sorted(FLOAT_DTYPES))}")
        self._dtype = dtype
        manifest = bank.manifest
        self._units: dict[str, Unit] = {
            name: unit
            for unit in plan_units(manifest.base.tensors.values(), manifest.transform)
            for name in unit.names
        }
        self._layer = {
            name: layer
            for unit in dict.fromkeys(self._units.values())
            for layer, name in enumerate(unit.names)
        }
        self._named = manifest.base.tensors
        shared = [
            task.tensor(tensor)
            for name, tensor in self._named.items()
            if name not in task.missing and name not in task.own
        ]
        self.tensors = {t.name: self._output(t) for t in [*shared, *task.own.values()]}
        self.saturated = 0
        self._lock = threading.Lock()
        self.damaged: set[str] = set()
        self.verified: set[tuple[str, int]] | None = None
        self._positions: dict[Unit, list[int]] = {}
        self._reader: SealedReader | None = None
        if task.group in manifest.sealed:
            self._reader = SealedReader(bank, task.group, self._check_sealed)

    @property
    def untuned(self) -> bool:
        """Whether λ is a default that depends on the bank's norms."""
        return self._chosen is None and not stands_alone(self.bank.manifest, self.task)

    @property
    def coefficient(self) -> float:
        """λ: as given, as tuned, or the default. Raises BankDamaged where norms are damaged."""
        if self._chosen is None:
            self._chosen = self._default() if self.untuned else 1.0
        return self._chosen

    def _default(self) -> float:
        tasks = self.bank.manifest.tasks
        place = next(n for n, task in enumerate(tasks) if task.index == self.task.index)
        try:
            return default_lambda(self.bank, place)
        except BankDamaged:
            keys = [key for key in (NORMS, ROUNDED) if self._hurt(key)]
            if not self.force:
                raise BankDamaged(
                    f"{self.bank.path}: tensor {keys[0]!a} is damaged, so the default λ of "
                    f"{self.task.name} is not known; say --lambda 1 (or --force, which takes 1)"
                ) from None
            self.damaged.update(keys)
            return 1.0

    def _hurt(self, key: str) -> bool:
        """Whether a statistics tensor is damaged."""
        try:
            return key in self.bank and self.bank.read_whole(key) is None
        except BankDamaged:
            return True

    def _output(self, tensor: TensorInfo) -> TensorInfo:
        if self._dtype is None or tensor.dtype not in FLOAT_DTYPES:
            return tensor
        return TensorInfo(tensor.name, self._dtype, tensor.shape)

    def pieces(self, name: str) -> list[Piece]:
        """The pieces of one output tensor, in order."""
        tensor = self.tensors[name]
        rows, cols = tensor.matrix
        if name in self.task.own:
            return [Piece(tensor, n, r, own=True) for n, r in enumerate(chunks(rows, cols))]
        common = min(rows, self._named[name].matrix[0])
        made = [Piece(tensor, n, rect) for n, rect in enumerate(chunks(common, cols))]
        extra = enumerate(chunks(rows - common, cols))
        return made + [Piece(tensor, n, rect, own=True, skip=common) for n, rect in extra]

    def output_name(self, name: str) -> str:
        """What the task itself calls a tensor that `tensors` has under `name`."""
        return self.task.output_name(name) if name in self._named else name

    def superposed(self, name: str) -> bool:
        """Whether a tensor of the task is approximate: it comes from a superposition."""
        return name not in self.task.own and name not in self.task.unchanged

    @property
    def sealed(self) -> SealedReader:
        """What reads the task's group, which must be sealed. Raises BankDamaged."""
        if self._reader is None:
            raise BankDamaged(f"{self.bank.path}: group {self.task.group} is not sealed")
        return self._reader

    def _check_sealed(self, found: bytes, recorded: bytes, key: str) -> None:
        self._check(found, recorded, key, -1)

    def _check(self, found: bytes, recorded: bytes, key: str, chunk: int) -> None:
        if found != recorded:
            if not self.force:
                raise BankDamaged(
                    f"{self.bank.path}: tensor {key!a} is damaged; task {self.task.name} cannot "
                    "be retrieved whole (see: randes verify; --force writes it all the same)"
                )
            self.damaged.add(key)
        elif self.verified is not None:
            self.verified.add((key, chunk))

    def _hasher(self, key: str, chunk: int) -> Any | None:
        """What to digest a chunk with; None where it is known to be sound."""
        known = self.verified is not None and (key, chunk) in self.verified
        return None if known else hasher()

    def fill(self, kernel: Kernel, piece: Piece, strip: int, out: Raw) -> None:
        """Write one piece's bytes to `out`. Raises BankDamaged."""
        if piece.own:
            self._fill_own(piece, out)
        elif self.superposed(piece.tensor.name):
            self._fill_superposed(kernel, piece, strip, out)
        else:
            self._fill_base(piece, out)

    def _convert(self, raw: Raw, stored: str, piece: Piece, out: Raw) -> None:
        """Write `raw` as the output's dtype (where that is the stored one, `raw` is `out`)."""
        if stored == piece.tensor.dtype:
            return
        values = np.empty(piece.rect.elements, np.float32)
        widen(raw, stored, values)
        self._count_saturated(narrow(values, piece.tensor.dtype, out))

    def _count_saturated(self, values: int) -> None:
        """Count for all threads: `+=` alone reads the sum before it is ready to write it."""
        if values:
            with self._lock:
                self.saturated += values

    def _fill_own(self, piece: Piece, out: Raw) -> None:
        key = own_key(self.task.name, piece.tensor.name)
        stored = self.bank.info(key).dtype
        size = ITEM_SIZE[stored]
        same = stored == piece.tensor.dtype
        raw = out if same else np.empty(piece.rect.elements * size, np.uint8)
        self.bank.read_into(key, piece.rect.start * size, raw)
        running = self._hasher(key, piece.chunk)
        if running:
            running.update(raw)
            self._check(running.digest(), self.bank.digest(key, piece.chunk), key, piece.chunk)
        self._convert(raw, stored, piece, out)

    def _fill_base(self, piece: Piece, out: Raw) -> None:
        name = piece.tensor.name
        stored = self._named[name].dtype
        if self.base is None:
            out[:] = 0
            return
        size = ITEM_SIZE[stored]
        same = stored == piece.tensor.dtype
        raw = out if same else np.empty(piece.rect.elements * size, np.uint8)
        self.base.read(name, piece.rect.start * size, raw)
        running = self._hasher(base_key(name), piece.chunk)
        if running:
            running.update(raw)
            self._rest_of_chunk(piece, stored, self.base.read, name, running)
            self._check_base(running.digest(), piece)
        self._convert(raw, stored, piece, out)

    def _check_base(self, found: bytes, piece: Piece) -> None:
        if self.base is None:
            return
        recorded = self.base.digest(piece.tensor.name, piece.chunk)
        if found != recorded and self.base.outside is not None:
            raise MismatchError(
                f"{self.base.source}: tensor {piece.tensor.name!a} has other values than the base "
                f"of {self.bank.path}"
            )
        self._check(found, recorded, base_key(piece.tensor.name), piece.chunk)

    def _rest_of_chunk(
        self,
        piece: Piece,
        dtype: str,
        read: Callable[[str, int, Raw], None],
        key: str,
        running: Any,
    ) -> None:
        """Digest what follows in the chunk where the task's rows end inside it."""
        whole = chunks(*self._named[piece.tensor.name].matrix)[piece.chunk]
        left = whole.elements - piece.rect.elements
        if left:
            raw = np.empty(left * ITEM_SIZE[dtype], np.uint8)
            read(key, (piece.rect.start + piece.rect.elements) * ITEM_SIZE[dtype], raw)
            running.update(raw)

    def place(self, name: str) -> tuple[Unit, int]:
        """The unit of a tensor and the position where this task's layer lies in it."""
        unit = self._units.get(name)
        if unit is None:
            raise BankDamaged(f"{self.bank.path}: tensor {name!a} is not superposed in this bank")
        places = self._positions.get(unit)
        if places is None:
            order = unit.order(self.task.seed, self.task.index)
            places = sorted(range(unit.layers), key=order.__getitem__)
            self._positions[unit] = places
        return unit, places[self._layer[name]]

    def held(self, name: str) -> TensorInfo:
        """The base's tensor under whose name a tensor of the task is superposed."""
        unit, position = self.place(name)
        return self._named[unit.names[position]]

    def sum_key(self, name: str) -> str:
        """The superposition that a tensor of the task lies in."""
        return sum_key(self.task.group, self.held(name).name)

    def _fill_superposed(self, kernel: Kernel, piece: Piece, strip: int, out: Raw) -> None:
        unit, position = self.place(piece.tensor.name)
        moved = unit.names[position]
        key = sum_key(self.task.group, moved)
        if key not in self.bank:
            raise BankDamaged(f"{self.bank.path}: tensor {key!a} is missing")
        stored, held = self._named[piece.tensor.name].dtype, self.bank.info(key).dtype
        sealed, bits = held == "U8", 8 * ITEM_SIZE[held]
        scale = self.coefficient * 2.0 ** self.bank.manifest.steps[moved]
        flips = unit.flips(self.task.seed, position)
        size = ITEM_SIZE[piece.tensor.dtype]
        base_hash = self._hasher(base_key(piece.tensor.name), piece.chunk)
        sum_hash = None if sealed else self._hasher(key, piece.chunk)
        onto = self.base is not None and stored == piece.tensor.dtype == "F32"
        for rect in piece.rect.split(strip):
            start = (rect.start - piece.rect.start) * size
            target, raw = out[start : start + rect.elements * size], None
            if self.base is not None:
                count = rect.elements * ITEM_SIZE[stored]
                raw = target if onto else kernel.buffer(count)
                self.base.read(piece.tensor.name, rect.start * ITEM_SIZE[stored], raw)
                if base_hash:
                    base_hash.update(raw)
            if not onto:
                kernel.set_base(0, raw, stored, rect.elements)
            if sealed:
                steps = self.sealed.steps(self._named[moved], rect.start, rect.elements)
                codes, bits = steps.view(np.uint8), 32
            else:
                codes = kernel.buffer(rect.elements * bits // 8)
                self.bank.read_into(key, rect.start * bits // 8, codes)
            if sum_hash:
                sum_hash.update(codes)
            signs = unit.window(flips, rect, scale)
            if onto:
                lost = kernel.retrieve_onto(codes, bits, signs, target)
            else:
                lost = kernel.retrieve(codes, bits, signs, piece.tensor.dtype, target)
            self._count_saturated(lost)
        if base_hash and self.base is not None:
            self._rest_of_chunk(piece, stored, self.base.read, piece.tensor.name, base_hash)
            self._check_base(base_hash.digest(), piece)
        if sum_hash:
            dtype = self.bank.info(key).dtype
            self._rest_of_chunk(piece, dtype, self.bank.read_into, key, sum_hash)
            self._check(sum_hash.digest(), self.bank.digest(key, piece.chunk), key, piece.chunk)


def output_metadata(task: TaskRecord) -> Mapping[str, str]:
    """The header metadata of a retrieved checkpoint: the task's own, readable by transformers."""
    return {"format": "pt", **task.metadata}
