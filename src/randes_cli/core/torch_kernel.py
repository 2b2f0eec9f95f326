"""The same strip arithmetic as `kernel`, as torch tensors on a device: equal bytes.

Host buffers are pinned where the device is a GPU, and there are two of each, so that the next
read overlaps the copy of the last one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from randes_cli.core.arrays import F32, Raw
from randes_cli.core.convert import BEYOND, LARGEST
from randes_cli.core.energy import PART_BITS, Energy
from randes_cli.core.kernel import GRID_LIMIT, Added, Kernel, NonFinite, Overflow
from randes_cli.core.signs import SignRun, Window
from randes_cli.errors import UsageError
from randes_cli.specs import DTYPES, FLOAT_DTYPES, ITEM_SIZE

_DTYPES = {name: getattr(torch, DTYPES[name].torch) for name in FLOAT_DTYPES}
_CODES = {32: torch.float32, 16: torch.int16, 8: torch.int8}


def _host(nbytes: int, device: torch.device) -> tuple[torch.Tensor, Raw]:
    memory = torch.empty(nbytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    return memory, memory.numpy()


def _refuse_absent(device: str) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise UsageError(f"--device {device}: torch {torch.__version__} sees none here")


class TorchKernel(Kernel):
    """See `kernel.Kernel`. `device` is a torch device name."""

    def __init__(self, device: str, elements: int, layers: int) -> None:
        self.elements = elements
        _refuse_absent(device)
        self._device = torch.device(device)
        self._buffers = [_host(8 * elements, self._device) for _ in range(2)]
        self._turn = 0
        self._codes = _host(2 * elements, self._device)
        new: dict[str, Any] = {"device": self._device}
        self._base = torch.empty((layers, elements), dtype=torch.float32, **new)
        self._sum = torch.empty(elements, dtype=torch.int32, **new)
        self._size = 0

    def buffer(self, nbytes: int) -> Raw:
        self._turn = 1 - self._turn
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return self._buffers[self._turn][1][:nbytes]

    def _values(self, raw: Raw, dtype: str) -> torch.Tensor:
        stored = torch.from_numpy(raw).view(_DTYPES[dtype])
        if self._device.type == "mps" and dtype in ("F64", "F8_E4M3", "F8_E5M2"):
            return stored.to(torch.float32).to(self._device)
        return stored.to(self._device, non_blocking=True).to(torch.float32)

    def _signs(self, window: Window) -> torch.Tensor:
        """The signs of a window, sent as the short vectors that they are made of."""
        if isinstance(window, SignRun):
            pairs = [tuple(map(self._vector, part.factors)) for part in window.parts()]
            return torch.cat([torch.outer(*pair).view(-1) for pair in pairs]).view(window.shape)
        signs = window.values()
        rows, cols = signs.shape
        down, across = (stride // 4 for stride in signs.strides)
        count = down * (rows - 1) + across * (cols - 1) + 1
        vector = np.lib.stride_tricks.as_strided(signs, (count,), (4,)).copy()
        return self._vector(vector).as_strided((rows, cols), (down, across))

    def _vector(self, values: F32) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device)

    def set_base(self, layer: int, raw: Raw | None, dtype: str, elements: int) -> None:
        if raw is None:
            self._base[layer, :elements] = 0
        else:
            self._base[layer, :elements] = self._values(raw, dtype)

    def _difference(self, layer: int, raw: Raw, dtype: str) -> torch.Tensor:
        size = len(raw) // ITEM_SIZE[dtype]
        return self._values(raw, dtype) - self._base[layer, :size]

    def changed(self, layer: int, raw: Raw, dtype: str) -> float:
        delta = self._difference(layer, raw, dtype)
        largest = float(delta.abs().max()) if delta.numel() else 0.0
        if not largest < float("inf"):
            raise NonFinite
        return largest

    def begin(self, elements: int, codes: Raw | None, bits: int) -> None:
        self._size = elements
        if codes is None:
            self._sum[:elements] = 0
        else:
            stored = torch.from_numpy(codes).view(_CODES[bits])
            self._sum[:elements] = stored.to(self._device).to(torch.int32)

    def add(self, layer: int, raw: Raw, dtype: str, signs: Window) -> Added:
        delta = self._difference(layer, raw, dtype)
        size = delta.numel()
        if not size:
            return Added(Energy(), False)
        steps = (delta.view(signs.shape) * self._signs(signs)).view(-1)
        units = steps.round()
        peak = float(units.abs().max())
        if not peak <= GRID_LIMIT:
            step = 1 / abs(signs.scale)
            raise Overflow(int(self.changed(layer, raw, dtype) / step))
        integers = units.to(torch.int32)
        self._sum[:size] += integers
        energy = self._energy(integers, ((steps - units) * 2**PART_BITS).round_())
        return Added(energy, any(energy) or bool((delta != 0).any()))

    def _energy(self, integers: torch.Tensor, parts: torch.Tensor) -> Energy:
        if self._device.type == "mps":
            integers, parts = integers.cpu(), parts.cpu()
        wide, rests = integers.to(torch.int64), parts.to(torch.int64)
        sums = torch.stack([(wide * wide).sum(), (wide * rests).sum(), (rests * rests).sum()])
        return Energy(*sums.tolist())

    def finish(self, bits: int) -> tuple[Raw, int]:
        total = self._sum[: self._size]
        peak = int(total.abs().max()) if self._size else 0
        memory, view = self._codes
        nbytes = self._size * bits // 8
        memory[:nbytes].view(_CODES[bits]).copy_(total.to(_CODES[bits]))
        return view[:nbytes], peak

    def retrieve(self, codes: Raw, bits: int, signs: Window, dtype: str, out: Raw) -> int:
        delta = self._signed(codes, bits, signs)
        values = delta + self._base[0, : delta.numel()]
        return self._narrow(values, dtype, out)

    def retrieve_onto(self, codes: Raw, bits: int, signs: Window, out: Raw) -> int:
        base = torch.from_numpy(out).view(torch.float32).to(self._device)
        return self._narrow(self._signed(codes, bits, signs) + base, "F32", out)

    def _signed(self, codes: Raw, bits: int, signs: Window) -> torch.Tensor:
        stored = torch.from_numpy(codes).view(_CODES[bits]).to(self._device)
        return (stored.to(torch.float32).view(signs.shape) * self._signs(signs)).view(-1)

    def _narrow(self, values: torch.Tensor, dtype: str, out: Raw) -> int:
        host = values.cpu() if self._device.type == "mps" else values
        # What a cast does beyond the range (infinity, NaN, the largest) is torch's choice.
        lost = host.abs() >= BEYOND[dtype]
        count = int(lost.sum())
        if count:
            largest = torch.full_like(host, LARGEST[dtype])
            host = torch.where(lost, torch.copysign(largest, host), host)
        target = _DTYPES[dtype]
        torch.from_numpy(out).view(target).copy_(host.to(target))
        return count
