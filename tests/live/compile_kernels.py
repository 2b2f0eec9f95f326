"""Compiles the Triton kernels for a GPU that need not be here, and prints what it found.

Run without TRITON_INTERPRET, which is read when kernels are defined.
"""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from randes_cli.live import kernels, triton_kernels

POINTERS = {"table": "fp32", "starts": "i32", "tasks": "i64", "residues": "i32", "scales": "fp32"}
#: Bytes of shared memory that a block may have there.
SHARED = 227 * 1024
VALUES = ("x", "base", "y", "inputs", "down", "more")
NUMBERS = ("rows", "columns", "batch", "slots", "units", "width", "size", "count")


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, int], **more: Any) -> Any:
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=more)


def form(bits: int) -> dict[str, int]:
    return {"bits": bits, "per": kernels.PER[bits], "unit": kernels.UNIT[bits]}


def products(bits: int, stored: str, dtype: str) -> Any:
    types = {name: f"*{kind}" for name, kind in {**POINTERS, "stored": stored}.items()}
    types |= dict.fromkeys(VALUES, f"*{dtype}") | dict.fromkeys(NUMBERS, "i32")
    sizes = kernels.block_sizes(bits, 4 if dtype == "fp32" else 2)
    blocks = dict(zip(("row_block", "column_block", "unit_block"), sizes, strict=True))
    constants = {**form(bits), "every": 2, "batch_block": 64, **blocks}
    return compiled(triton_kernels.products, types, constants, num_stages=3)


def swap() -> Any:
    types = {"base": "*bf16", "stored": "*u8", "out": "*bf16", "height": "i32", "width": "i32"}
    types |= dict.fromkeys(("table", "rows", "columns"), "*fp32") | {"signs": "*u8"}
    types |= dict.fromkeys(("scale", "largest", "beyond"), "fp32")
    constants = {**form(2), "kind": 3, "row_block": 16, "unit_block": 64}
    return compiled(triton_kernels.swap, types, constants, enable_fp_fusion=False)


if __name__ == "__main__":
    for bits, stored, dtype in ((0, "i16", "bf16"), (2, "u8", "fp16"), (3, "u8", "bf16")):
        made = products(bits, stored, dtype)
        print(made.metadata.shared <= SHARED, "mma" in made.asm["ptx"])
    made = swap()
    print(len(made.asm["cubin"]) > 0, "fma" in made.asm["ptx"])
