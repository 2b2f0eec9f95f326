"""Swaps on a GPU, checked and timed: `gpu.py` runs this."""

from __future__ import annotations

from typing import Any

import torch
from gpu_data import group, weights
from gpu_figures import BITS, note, swap_name, timed

from randes_cli.core.compiled.run import SIGNS
from randes_cli.core.convert import LARGEST
from randes_cli.core.signs import many_signs
from randes_cli.live.kernels import launch as kernels
from randes_cli.live.weights.codes import unpack
from randes_cli.live.weights.group import Group
from randes_cli.specs import Signs

#: Rows and columns that a program of a swap may take.
BLOCKS = ((4, 512), (2, 1024), (1, 2048), (1, 1024), (4, 1024), (2, 2048))


def check_swaps(device: str, dtype: torch.dtype) -> None:
    """A swap by kernel has the bits of torch's operations, numbers beyond the range included."""
    name = {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    for bits in (0, 1, 2, 3, 4, 8):
        for kind in (Signs.none, Signs.column, Signs.hankel, Signs.two_sided):
            base, scale = weights([(96, 256)], device, dtype)[0], 2.0**-9 * 0.7
            most = LARGEST[name]
            one = group((96, 256), bits or 16, range(1), 1, base)
            rows, columns = (torch.rand(size, device=device) for size in (96, 256))
            base[:2], rows[:2] = torch.tensor([[most], [-most]]), most  # sums are beyond it
            flips = torch.randint(0, 256, (46,), dtype=torch.uint8)
            scales = (rows, columns) if bits else None
            out = torch.empty_like(base)
            kernels.swap(
                base, one.held.stored, scales, (SIGNS[kind], flips.to(device)), dtype, out,
                bits=bits, scale=scale, largest=most,
            )  # fmt: skip
            values = one.held.stored.float()
            if bits:
                levels = unpack(one.held.stored, bits, torch.float32).reshape(96, 256)
                values = levels * columns * rows[:, None]
            packed = flips.numpy().reshape(1, -1).view("u1")
            signs = many_signs(kind, packed, (96, 256), (96, 256)).reshape(-1)
            signed = torch.from_numpy(signs).to(device).expand(96 * 256).reshape(96, 256) * scale
            made = (values * signed + base.float()).clamp(-most, most)
            equal = torch.equal(out, made.to(dtype))
            print(f"check swap  {bits:2} bits, {kind.value}: {'ok' if equal else 'WRONG'}")
            assert equal


def time_swaps(bases: list[torch.Tensor], device: str) -> None:
    """All matrices of one task, beside a copy of the base."""
    out = [torch.empty_like(base) for base in bases]

    def copy() -> None:
        for one, base in zip(out, bases, strict=True):
            one.copy_(base)

    name = {torch.bfloat16: "BF16", torch.float16: "F16"}[bases[0].dtype]
    one_copy = timed(copy, device)
    print(f"copy of the base: {one_copy:.2f} ms")
    for bits in BITS:
        parts = [group((b.shape[0], b.shape[1]), bits, range(1), 1, b) for b in bases]
        sides = [tuple(torch.ones(size, device=device) for size in b.shape) for b in bases]
        flips = torch.zeros(4096, dtype=torch.uint8, device=device)

        def swap(
            parts: list[Group] = parts,
            sides: list[Any] = sides,
            bits: int = bits,
            flips: torch.Tensor = flips,
        ) -> None:
            for one, part, side, base in zip(out, parts, sides, bases, strict=True):
                kernels.swap(
                    base, part.held.stored, side if bits < 16 else None, (3, flips), base.dtype,
                    one, bits=0 if bits == 16 else bits, scale=1e-3, largest=LARGEST[name],
                )  # fmt: skip

        taken = timed(swap, device)
        note(swap_name(bits), taken / one_copy)
        print(f"{swap_name(bits)}: {taken:.2f} ms, {taken / one_copy:.2f} × a copy", flush=True)
        key, others = bits % 16, {}
        before = kernels.SWAP_BLOCKS.get(key)
        for blocks in BLOCKS:
            kernels.SWAP_BLOCKS[key] = blocks
            others[blocks] = timed(swap, device) / one_copy
        told = ", ".join(f"{others[b]:.2f} {b}" for b in sorted(others, key=lambda b: others[b]))
        print(f"  SWAP_BLOCKS[{key}], {before} now: {told}", flush=True)
        del kernels.SWAP_BLOCKS[key]
        kernels.SWAP_BLOCKS |= {key: before} if before else {}
        del parts
