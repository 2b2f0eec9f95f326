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
    blocks = {"batch_block": 16, "row_block": 32, "column_block": 64, "unit_block": 16}
    return compiled(triton_kernels.products, types, {**form(bits), "every": 2, **blocks})


def swap() -> Any:
    types = {"base": "*bf16", "stored": "*u8", "out": "*bf16", "height": "i32", "width": "i32"}
    types |= dict.fromkeys(("table", "rows", "columns", "signs", "down"), "*fp32")
    types |= dict.fromkeys(("scale", "largest", "beyond"), "fp32")
    constants = {**form(2), "kind": 2, "row_block": 16, "unit_block": 64}
    return compiled(triton_kernels.swap, types, constants, enable_fp_fusion=False)


if __name__ == "__main__":
    for bits, stored, dtype in ((0, "i16", "bf16"), (2, "u8", "fp16"), (2, "u8", "bf16")):
        made = products(bits, stored, dtype)
        print(len(made.asm["cubin"]) > 0, "mma.sync" in made.asm["ptx"])
    made = swap()
    print(len(made.asm["cubin"]) > 0, "fma" in made.asm["ptx"])
