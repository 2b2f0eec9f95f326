"""Launches the Triton kernels on a GPU that need not be here, and prints what was compiled.

Run without TRITON_INTERPRET, which is read when kernels are defined. All is as on a device, what
Triton makes of each argument included, but for the launch itself.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime import driver

from randes_cli.live.batch.selection import Selection
from randes_cli.live.kernels import launch as kernels
from randes_cli.live.kernels import products as triton_kernels
from randes_cli.live.kernels import swap as triton_swap
from randes_cli.live.kernels.forms import Order

#: Bytes of shared memory that a block may have there.
SHARED = 227 * 1024


class Absent:
    """A Hopper GPU that takes kernels, and runs none."""

    def __init__(self, *_: Any) -> None:
        self.utils = self.launcher_cls = type(self)

    def __call__(self, *_: Any) -> None:
        """A launch."""

    @staticmethod
    def load_binary(*_: Any) -> tuple[int, int, int, int, int]:
        """A module, a function, registers, spills, and the most threads."""
        return 1, 1, 32, 0, 1024

    @staticmethod
    def unload_module(_: int) -> None:
        """A kernel that is forgotten."""

    @staticmethod
    def get_device_properties(_: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED}

    @staticmethod
    def get_current_device() -> int:
        return 0

    @staticmethod
    def get_current_stream(_: int) -> int:
        return 0

    @staticmethod
    def get_current_target() -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def compiled(kernel: Any) -> Iterator[Any]:
    """What was compiled of it since this was asked."""
    for caches in kernel.device_caches.values():
        made = caches[0]
        yield from made.values()
        made.clear()


def product(
    shape: tuple[int, int],
    bits: int,
    dtype: torch.dtype,
    batch: int,
    groups: int,
    every: int,
    order: Order | None = None,
) -> None:
    """Launch a product of rows of different tasks, dealt to the groups in turn."""
    x, base = torch.zeros(batch, shape[1], dtype=dtype), torch.zeros(shape, dtype=dtype)
    width = -(-shape[1] // every)
    stored = (
        torch.zeros(groups, shape[0] * width * bits // 8, dtype=torch.uint8)
        if bits
        else torch.zeros(groups, shape[0], width, dtype=torch.int16)
    )
    tasks = tuple(frozenset(range(group, batch, groups)) for group in range(groups))
    slots = Selection.of(range(batch), x.device).slots(batch, tasks, x.device)
    across, down = (torch.zeros(groups, batch, size, dtype=dtype) for size in (shape[1], shape[0]))
    residues = torch.zeros(groups, every, dtype=torch.int32)
    kernels.mixed_product(
        x, base, stored, across, down, torch.zeros(groups), residues, slots, bits=bits,
        every=every, order=order,
    )  # fmt: skip


def serialized(ptx: str) -> bool:
    """Whether ptxas waits for each product of the tensor cores, as it says where it does."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "k.ptx"
        source.write_text(ptx)
        line = [
            get_ptxas(90).path,
            "-v",
            "--gpu-name=sm_90a",
            source,
            "-o",
            source.with_suffix(".cubin"),
        ]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
    return "serialized" in done.stderr


def told(kind: str, *given: Any) -> None:
    """A line of each product: what its kernels are like."""
    product(*given)
    early = "griddepcontrol.wait"
    steps = (triton_kernels.prepare, triton_kernels.finish)
    assert all((early in made.asm["ptx"]) == EARLY for step in steps for made in compiled(step))
    for kernel in (triton_kernels.code_sums, triton_kernels.base_sums):
        for made in compiled(kernel):
            ptx = made.asm["ptx"]
            assert made.metadata.shared <= SHARED and not serialized(ptx), (kind, given)
            used = ("mma" in ptx and "tensor cores", "%lanemask_lt" in ptx and "registers",
                    "prefetch.L2" in ptx and "ahead")  # fmt: skip
            print(kind, kernel.fn.__name__, *filter(None, used))


if __name__ == "__main__":
    driver.set_active(Absent())
    EARLY = hasattr(tl.extra.cuda, "gdc_wait")
    kernels.starts_early = lambda device: EARLY  # type: ignore[assignment]
    kernels.on_cuda = kernels.narrows = lambda device: True  # type: ignore[assignment]
    for bits in (0, 1, 2, 3, 4, 8):
        told(f"{bits} bits:", (4096, 4096), bits, torch.bfloat16, 16, 1, 1)
    told("many rows:", (4096, 4096), 4, torch.bfloat16, 64, 1, 1)
    told("half precision:", (4096, 4096), 2, torch.float16, 64, 8, 8)
    told("tall:", (11008, 4096), 2, torch.bfloat16, 64, 8, 1)
    told("wide:", (4096, 11008), 8, torch.bfloat16, 64, 8, 1)
    told("a byte:", (1, 4), 2, torch.bfloat16, 2, 2, 1)
    told("one task a group:", (40, 24), 4, torch.bfloat16, 3, 3, 1)
    told("single precision:", (96, 256), 2, torch.float32, 20, 1, 1)
    told("W₀ first:", (4096, 4096), 2, torch.bfloat16, 64, 8, 1, Order(True, 1024, True))
    matrix, columns = torch.zeros(64, 64, dtype=torch.bfloat16), torch.zeros(64)
    kernels.swap(
        matrix, torch.zeros(64 * 64 // 4, dtype=torch.uint8), (columns, columns),
        (3, torch.zeros(18, dtype=torch.uint8)), torch.bfloat16, matrix,
        bits=2, scale=1.0, largest=1.0,
    )  # fmt: skip
    for made in compiled(triton_swap.swap):
        ptx = made.asm["ptx"]
        used = ("shfl" in ptx and "levels in lanes", "satfinite" in ptx and "to finite numbers")
        print("swap:", "fused" if "fma" in ptx else "each rounded", *filter(None, used))
