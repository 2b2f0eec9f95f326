"""Retrieval: one task's tensors out of a bank, piece by piece (paper equation 6)."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.core.convert import all_finite, narrow, widen
from randes_cli.core.kernel import Kernel
from randes_cli.errors import BankDamaged, MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import base_key, own_key
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.base import BankBase
from randes_cli.files.digests import hasher
from randes_cli.files.local.guard import reads_far
from randes_cli.limits import MOST_COEFFICIENT, check_number
from randes_cli.plan import Rect
from randes_cli.read.compiled import retrieve_compiled
from randes_cli.read.pieces import Piece, Read, StoredChunk
from randes_cli.read.sealed import StepsReader
from randes_cli.read.task_tensors import TaskTensors
from randes_cli.read.turned import Turned
from randes_cli.specs import ITEM_SIZE, RunOptions
from randes_cli.stats.coefficients import stands_alone, usual_coefficient
from randes_cli.workers import Workers


class Retrieval(TaskTensors):
    """How one task comes out of a bank. One object serves all threads.

    Attributes:
        saturated: values that did not fit the output's dtype and became its largest.
        turned: tensors that are positive in the base and come back with negative values.
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
        run: RunOptions | None = None,
    ) -> None:
        super().__init__(bank, task, dtype)
        self.base, self.force = base, force
        if coefficient is not None:
            check_number("--lambda", coefficient, MOST_COEFFICIENT)
        recorded = task.default if task.coefficient is None else task.coefficient
        self._chosen = recorded if coefficient is None else coefficient
        far = bank.far or reads_far()
        self.workers = Workers(run or RunOptions(), self.tensors.values(), far=far)
        self.saturated = 0
        self.turned = Turned()
        self._lock = threading.Lock()
        self.damaged: set[str] = set()
        self.verified: set[tuple[str, int]] | None = None
        self._reader: StepsReader | None = None
        if task.group in bank.manifest.sealed or task.group in bank.manifest.shares:
            self._reader = StepsReader(bank, task.group, self._check)

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
        found, damaged = usual_coefficient(self.bank, self.task, force=self.force)
        self.damaged.update(damaged)
        return found

    @property
    def reader(self) -> StepsReader:
        """What reads the task's group, sealed or of shares. Raises BankDamaged."""
        if self._reader is None:
            raise BankDamaged(f"{self.bank.path}: group {self.task.group} is not sealed")
        return self._reader

    def _check(self, found: bytes, recorded: bytes, key: str, chunk: int = -1) -> None:
        if found != recorded:
            if not self.force:
                raise BankDamaged(
                    f"{self.bank.path}: tensor {key!r} is damaged; task {self.task.name} cannot "
                    "be retrieved whole (see: randes verify; --force writes it all the same)"
                )
            self.damaged.add(key)
        elif self.verified is not None:
            self.verified.add((key, chunk))

    def read(self, name: str) -> Raw:
        """All bytes of one output tensor. Raises BankDamaged."""
        out = np.empty(self.tensors[name].nbytes, np.uint8)
        self.write(name, out)
        return out

    def write(self, name: str, out: Raw) -> None:
        """Write all bytes of one output tensor to `out`. Raises BankDamaged."""
        for piece in self.pieces(name):
            self.fill(self.workers.own_kernel(), piece, out[piece.start :][: piece.nbytes])

    def fill(self, kernel: Kernel, piece: Piece, out: Raw) -> None:
        """Write one piece's bytes to `out`. Raises BankDamaged."""
        piece = self._as_kept(piece)
        if piece.own:
            self._fill_own(piece, out)
        elif not self.superposed(piece.tensor.name):
            self._fill_base(piece, out)
        elif not self._compiled(kernel, piece, out):
            self._fill_superposed(kernel, piece, out)

    def send(self, kernel: Kernel, piece: Piece, to: tuple[int, int]) -> bool:
        """Write a piece to a place in an open file in one call; False where `fill` is to do it."""
        piece = self._as_kept(piece)
        exact = piece.own or not self.superposed(piece.tensor.name)
        return not exact and self._compiled(kernel, piece, to)

    def _as_kept(self, piece: Piece) -> Piece:
        name = self.kept_name(piece.tensor.name)
        if name == piece.tensor.name:
            return piece
        return replace(piece, tensor=piece.tensor._replace(name=name))

    def checks(self, key: str, chunk: int) -> bool:
        """Whether a chunk is not yet known to be sound."""
        return self.verified is None or (key, chunk) not in self.verified

    def _chunk(self, read: Read, name: str, dtype: str, key: str, chunk: int) -> StoredChunk:
        """What reads a chunk, digesting it unless it is known to be sound."""
        return StoredChunk(read, name, dtype, hasher() if self.checks(key, chunk) else None)

    def count_saturated(self, values: int) -> None:
        """Count for all threads: `+=` alone reads the sum before it is ready to write it."""
        if values:
            with self._lock:
                self.saturated += values

    def _fill_own(self, piece: Piece, out: Raw) -> None:
        key = own_key(self.task.name, piece.tensor.name)
        dtype = self.bank.info(key).dtype
        chunk = self._chunk(self.bank.read_into, key, dtype, key, piece.chunk)
        self._read_exact(chunk, piece, out)
        self.check_chunk(chunk.digest(piece.rect, piece.rect), piece, key)

    def _fill_base(self, piece: Piece, out: Raw) -> None:
        chunk = self._base_chunk(piece)
        if chunk is None:
            out[:] = 0
            return
        self._read_exact(chunk, piece, out)
        self.check_base(chunk.digest(self.whole(piece), piece.rect), piece)

    def _read_exact(self, chunk: StoredChunk, piece: Piece, out: Raw) -> None:
        """Read a piece as it is stored, and convert it where the output has another dtype."""
        same = chunk.dtype == piece.tensor.dtype
        raw = out if same else np.empty(piece.rect.elements * ITEM_SIZE[chunk.dtype], np.uint8)
        chunk.read(piece.rect, raw)
        if not same:
            values = np.empty(piece.rect.elements, np.float32)
            widen(raw, chunk.dtype, values)
            self.count_saturated(narrow(values, piece.tensor.dtype, out))

    def _base_chunk(self, piece: Piece) -> StoredChunk | None:
        """The base's chunk that a piece is made from; None where the base is zero."""
        if self.base is None:
            return None
        name = piece.tensor.name
        dtype = self._named[name].dtype
        return self._chunk(self.base.read, name, dtype, base_key(name), piece.chunk)

    def check_base(self, found: bytes | None, piece: Piece) -> None:
        """Compare the digest of the base's chunk. Raises MismatchError, BankDamaged."""
        name = piece.tensor.name
        if self.base is None or found is None:
            return
        recorded = self.base.digest(name, piece.chunk)
        if found != recorded and self.base.outside is not None:
            raise MismatchError(
                f"{self.base.source}: tensor {name!r} has other values than the base of "
                f"{self.bank.path}"
            )
        self._check(found, recorded, base_key(name), piece.chunk)

    def check_chunk(self, found: bytes | None, piece: Piece, key: str) -> None:
        """Compare that of a stored chunk. Raises BankDamaged."""
        if found is not None:
            self._check(found, self.bank.digest(key, piece.chunk), key, piece.chunk)

    def _compiled(self, kernel: Kernel, piece: Piece, to: Raw | tuple[int, int]) -> bool:
        """Retrieve a superposed piece in one call; whether that could be done."""
        name, key = piece.tensor.name, self.sum_key(piece.tensor.name)
        digests = self.checks(base_key(name), piece.chunk), self.checks(key, piece.chunk)
        came = retrieve_compiled(
            self,
            self.base,
            self._reader,
            kernel,
            piece,
            to,
            coefficient=self.coefficient,
            digests=digests,
            turned=self.turned.asks(name),
        )
        if came is None:
            return False
        if digests[0]:
            self.check_base(came.base, piece)
        if digests[1] and self.bank.info(key).dtype != "U8":  # what `reader` reads it also checks
            self.check_chunk(came.sum, piece, key)
        self.count_saturated(came.lost)
        self.turned.took(name, mixed=came.mixed, negative=came.negative)
        return True

    def _fill_superposed(self, kernel: Kernel, piece: Piece, out: Raw) -> None:
        unit, position = self.place(piece.tensor.name)
        key, base = self.sum_key(piece.tensor.name), self._base_chunk(piece)
        if key not in self.bank:
            raise BankDamaged(f"{self.bank.path}: tensor {key!r} is missing")
        dtype = self.bank.info(key).dtype
        sums = self._chunk(self.bank.read_into, key, dtype, key, piece.chunk)
        every = self.share(piece.tensor.name).every
        scale = self.coefficient * every * 2.0 ** self.bank.manifest.steps[unit.names[position]]
        direct = dtype != "U8" and every == 1
        flips = unit.flips(self.task.seed, position)
        size = ITEM_SIZE[piece.tensor.dtype]
        onto = base is not None and base.dtype == piece.tensor.dtype == "F32"
        for rect in piece.rect.split(kernel.elements):
            start = (rect.start - piece.rect.start) * size
            target = out[start : start + rect.elements * size]
            positive = self._base_strip(kernel, base, rect, target if onto else None, piece)
            if direct:
                bits = 8 * ITEM_SIZE[dtype]
                codes = kernel.buffer(rect.elements * bits // 8)
                sums.read(rect, codes)
            else:
                held = self.held(piece.tensor.name)
                codes = self.reader.steps(held, rect.start, rect.elements).view(np.uint8)
                bits = 32
            signs = unit.window(flips, rect, scale)
            if onto:
                lost = kernel.retrieve_onto(codes, bits, signs, target)
            else:
                lost = kernel.retrieve(codes, bits, signs, piece.tensor.dtype, target)
            self.count_saturated(lost)
            if positive:
                self.turned.back(piece.tensor.name, target, piece.tensor.dtype)
        if base is not None:
            self.check_base(base.digest(self.whole(piece), piece.rect), piece)
        if direct:  # what `reader` reads it also checks
            self.check_chunk(sums.digest(self.whole(piece), piece.rect), piece, key)

    def _base_strip(
        self,
        kernel: Kernel,
        base: StoredChunk | None,
        rect: Rect,
        target: Raw | None,
        piece: Piece,
    ) -> bool:
        """Read the base's strip to where the kernel adds to it: `target`, or its own memory.

        Returns whether all of the tensor's base that was seen is positive.
        Nothing is packed on a base with NaN or infinite values: one that has them is forged.
        """
        if base is None:
            kernel.set_base(0, None, "F32", rect.elements)
            return False
        raw = target
        if raw is None:
            raw = kernel.buffer(rect.elements * ITEM_SIZE[base.dtype])
        base.read(rect, raw)
        if base.unchecked and not all_finite(raw, base.dtype):
            self._check(b"NaN or infinite values", b"", base_key(piece.tensor.name), piece.chunk)
        positive = self.turned.base(piece.tensor.name, raw, base.dtype)
        if target is None:
            kernel.set_base(0, raw, base.dtype, rect.elements)
        return positive
