"""A bank's base and superpositions on a device, and tasks retrieved from them there.

The same float32 steps as `core.kernel`, so the bits are those of `unpack`: units times scales,
times ±λ · step, plus the base, rounded once to the task's dtype; beyond its range its largest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch

from randes_cli.api import Bank
from randes_cli.core.compiled.run import SIGNS
from randes_cli.core.compiled.swap import Source, Sum, known
from randes_cli.core.convert import BEYOND, LARGEST
from randes_cli.core.signs import sign_vector
from randes_cli.live.lazy import Whole
from randes_cli.live.weights import blocks
from randes_cli.live.weights.codes import unpack
from randes_cli.live.weights.stack import kernels_for
from randes_cli.plan import Unit
from randes_cli.read.factors import superposition
from randes_cli.read.load import torch_dtypes
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import Signs

_Vectors: TypeAlias = tuple[torch.Tensor, torch.Tensor]
#: Writes one tensor of a task to its place, by what is on the device.
_Launch: TypeAlias = Callable[[torch.Tensor], object]
#: What torch rounds to as the CPU does.
_KNOWN = ("F32", "F16", "BF16")
#: Bytes of a tensor of a task's own, up to which it stays here once it was read.
_SMALL = 2**20


class Resident:
    """What was read of a bank stays here. Use it from any thread."""

    def __init__(self, bank: Bank, device: torch.device) -> None:
        self._device = device
        self._base = Whole(bank.retrieval(None))
        self._kept: dict[str, torch.Tensor] = {}
        self._gates: dict[str, threading.Lock] = {}
        self._lock, self._launching = threading.Lock(), threading.Lock()
        self._ready: dict[tuple[Whole, str], _Launch] = {}

    def write(self, whole: Whole, name: str, target: torch.Tensor) -> bool:
        """Write a tensor of a task to `target`, bit for bit as it is retrieved elsewhere.

        False, and nothing written, for what only the bank's reader knows: large exact tensors,
        extra rows, rare dtypes. Raises BankDamaged.
        """
        if self.at_once(whole, name, target):
            return True
        retrieval = whole.retrieval
        if self._small(whole, name):
            own = self._keep(f"own/{retrieval.task.name}/{name}", lambda: whole.read(name))
            self._ready[whole, name] = lambda target: target.copy_(own)
        elif not self._has(whole, name):
            return False
        elif not retrieval.superposed(name):
            base = self._base_tensor(retrieval.kept_name(name))
            self._ready[whole, name] = lambda target: target.copy_(base)
        elif launch := self._by_kernel(whole, name):
            self._ready[whole, name] = launch
        if not self.at_once(whole, name, target):
            target.copy_(self._retrieved(whole, name))
        return True

    def _small(self, whole: Whole, name: str) -> bool:
        """Whether a tensor is a small one of the task's own."""
        retrieval = whole.retrieval
        own = retrieval.kept_name(name) in retrieval.task.own
        return own and retrieval.tensors[name].nbytes <= _SMALL

    def _has(self, whole: Whole, name: str) -> bool:
        """Whether a tensor of a task is made of what lies here alone."""
        retrieval, kept = whole.retrieval, whole.retrieval.kept_name(name)
        info, base = retrieval.tensors[name], self._base.retrieval.tensors.get(kept)
        if kept in retrieval.task.own or base is None or base.shape != info.shape:
            return False
        if info.dtype not in _KNOWN or base.dtype not in _KNOWN:
            return False
        return retrieval.superposed(name) or base.dtype == info.dtype

    def source(self, whole: Whole, name: str, rows: range | None = None) -> Source | None:
        """A tensor of a task (or some of its rows) as compiled code makes it in memory.

        None where it does not.
        """
        if not (self._has(whole, name) and self._device.type == "cpu"):
            return None
        retrieval, info = whole.retrieval, whole.retrieval.tensors[name]
        added = retrieval.superposed(name)
        if not known(info.dtype) or (added and retrieval.share(name).every > 1):
            return None
        base = self._base_tensor(retrieval.kept_name(name)).data_ptr()
        stored = self._base.retrieval.tensors[retrieval.kept_name(name)].dtype
        each = info.elements // info.shape[0] if rows else info.elements
        place = (rows.start * each, rows.stop * each) if rows else (0, each)
        if not added:
            return Source(*place, 1, (1, 1), base, stored, info.dtype, None)
        unit, _ = retrieval.place(name)
        made = self._sum(retrieval, name)
        return Source(*place, unit.cols, unit.view, base, stored, info.dtype, made)

    def _sum(self, retrieval: Retrieval, name: str) -> Sum:
        stored, bits = self._stored(retrieval, name)
        unit, position = retrieval.place(name)
        scales = None
        if bits:
            rows, columns = retrieval.reader.scales(retrieval.held(name))
            scales = rows, columns[None]
        return Sum(
            stored.data_ptr(),
            bits or 8 * stored.element_size(),
            scales,
            unit.signs,
            unit.flips(retrieval.task.seed, position),
            _scale(retrieval, name),
        )

    def _keep(self, key: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Read once, whatever the number of threads that ask."""
        found = self._kept.get(key)
        if found is None:
            with self._lock:
                gate = self._gates.setdefault(key, threading.Lock())
            with gate:
                found = self._kept.get(key)
                if found is None:
                    found = self._kept[key] = make().contiguous().to(self._device)
        return found

    def _base_tensor(self, name: str) -> torch.Tensor:
        info = self._base.retrieval.tensors[name]

        def read() -> torch.Tensor:
            made = torch.empty(info.shape, dtype=torch_dtypes()[info.dtype])
            self._base.retrieval.write(name, made.view(-1).view(torch.uint8).numpy())
            return made

        return self._keep(f"base/{name}", read)

    def _stored(self, retrieval: Retrieval, name: str) -> tuple[torch.Tensor, int]:
        """A superposition as the bank stores it, and its bits (0: integers)."""
        key, bank = retrieval.sum_key(name), retrieval.bank
        if bank.info(key).dtype == "U8":
            bits = bank.manifest.sealed[retrieval.task.group].bits
            return self._keep(key, lambda: torch.from_numpy(bank.read_whole(key))), bits
        return self._keep(key, lambda: torch.from_numpy(superposition(retrieval, name))), 0

    def _scales(self, retrieval: Retrieval, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 scales of rows and of columns."""
        key, held = retrieval.sum_key(name), retrieval.held(name)
        rows = self._keep(f"rows/{key}", lambda: torch.from_numpy(retrieval.reader.scales(held)[0]))
        columns = self._keep(
            f"columns/{key}", lambda: torch.from_numpy(retrieval.reader.scales(held)[1])
        )
        return rows, columns

    def _retrieved(self, whole: Whole, name: str) -> torch.Tensor:
        retrieval = whole.retrieval
        unit, position = retrieval.place(name)
        flips = unit.flips(retrieval.task.seed, position)
        info = retrieval.tensors[name]
        values = self._steps(retrieval, name, unit.view)
        delta = _signed(values, unit, flips, _scale(retrieval, name)).reshape(info.shape)
        made = delta.add_(self._base_tensor(retrieval.kept_name(name)).to(torch.float32))
        largest = LARGEST[info.dtype]
        made = torch.where(made.abs() >= BEYOND[info.dtype], made.sign() * largest, made)
        return made.to(torch_dtypes()[info.dtype])

    def _steps(self, retrieval: Retrieval, name: str, view: tuple[int, int]) -> torch.Tensor:
        """Elements of the superposition in steps, zeros outside its share."""
        (stored, bits), share = self._stored(retrieval, name), retrieval.share(name)
        if bits:
            codes = unpack(stored, bits, torch.float32)[: share.shape[0] * share.shape[1]]
            rows, columns = self._scales(retrieval, name)
            values = codes.reshape(share.shape)
            table = torch.from_numpy(share.table(columns.cpu().numpy())).to(self._device)
            residues = torch.arange(share.rows, device=self._device) % share.every
            values = values * table[residues] * rows[:, None]
        else:
            values = stored.to(torch.float32)
        if share.every == 1:
            return values
        return blocks.whole(blocks.as_blocks(values, share.every), view, share.group)

    def at_once(self, whole: Whole, name: str, target: torch.Tensor) -> bool:
        """Write what is ready for it; False where `write` is to make it so."""
        launch = self._ready.get((whole, name))
        if launch is None or target.shape != whole.retrieval.tensors[name].shape:
            return False
        launch(target)
        return True

    def _by_kernel(self, whole: Whole, name: str) -> _Launch | None:
        """What writes it by one kernel, in place; None where that is not for one."""
        retrieval, info = whole.retrieval, whole.retrieval.tensors[name]
        unit, position = retrieval.place(name)
        matrix = unit.view if unit.signs is Signs.two_sided else (unit.rows, unit.cols)
        if not kernels_for(self._device) or retrieval.share(name).every > 1:
            return None
        from randes_cli.live.kernels import launch as kernels

        stored, bits = self._stored(retrieval, name)
        if matrix != unit.view or not kernels.swap_fits(unit.view[1], bits):
            return None
        flips = unit.flips(retrieval.task.seed, position)
        signs = SIGNS[unit.signs], torch.tensor([*flips, 0, 0], dtype=torch.uint8)
        return partial(
            self._swap,
            self._base_tensor(retrieval.kept_name(name)).view(matrix),
            stored,
            self._scales(retrieval, name) if bits else None,
            (signs[0], signs[1].to(self._device)) if flips else None,
            torch_dtypes()[info.dtype],
            bits=bits,
            scale=_scale(retrieval, name),
            largest=LARGEST[info.dtype],
        )

    def _swap(
        self,
        base: torch.Tensor,
        stored: torch.Tensor,
        scales: _Vectors | None,
        signs: tuple[int, torch.Tensor] | None,
        dtype: torch.dtype,
        target: torch.Tensor,
        **form: Any,
    ) -> None:
        """A matrix by one kernel, in its target's memory or by way of a copy."""
        from randes_cli.live.kernels import launch as kernels

        plain = target.is_contiguous() and target.dtype in kernels.DTYPES
        out = target.view(base.shape) if plain else torch.empty_like(base, dtype=dtype)
        with self._launching:
            kernels.swap(base, stored, scales, signs, dtype, out, **form)
        if not plain:
            target.copy_(out.view(target.shape))


def _scale(retrieval: Retrieval, name: str) -> float:
    """λ · m · step as float32 holds it."""
    step = retrieval.bank.manifest.steps[retrieval.held(name).name]
    return float(np.float32(retrieval.coefficient * retrieval.share(name).every * 2.0**step))


def _signed(values: torch.Tensor, unit: Unit, flips: bytes, scale: float) -> torch.Tensor:
    """Times ±scale."""

    def vector(start: int, count: int) -> torch.Tensor:
        return torch.from_numpy(sign_vector(flips, start, count)).to(values.device)

    if unit.signs is Signs.none:
        return values * scale
    if unit.signs is Signs.two_sided:
        rows, cols = unit.view
        return values * vector(rows, cols) * vector(0, rows).mul(scale)[:, None]
    matrix, hankel = (unit.rows, unit.cols), int(unit.signs is Signs.hankel)
    signs = vector(0, unit.cols + hankel * (unit.rows - 1))
    return values.reshape(matrix) * signs.mul(scale).as_strided(matrix, (hankel, 1))
