"""Compiles the Triton kernels for a GPU that need not be here, and prints what it found.

Run without TRITON_INTERPRET, which is read when kernels are defined.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from randes_cli.live import kernels, triton_kernels, triton_swap
from randes_cli.live.machine_code import text_of

POINTERS = {"table": "fp32", "starts": "i32", "slot_tasks": "i64", "places": "i32"} | {
    "residues": "i32",
    "scales": "fp32",
    "partial": "fp32",
    "arrived": "i32",
}
#: Bytes of shared memory that a block may have there.
SHARED = 227 * 1024
VALUES = ("x", "base", "y", "met", "down")
NUMBERS = ("rows", "columns", "batch", "units", "width", "size", "count")


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], **more: Any) -> Any:
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if signature[name][0] == "*" or name in ("rows", "columns", "units", "width", "height")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=more)


def products(bits: int, stored: str, dtype: torch.dtype, batch: int, groups: int) -> Any:
    """The kernel in the form that 4096 × 4096 of one or several groups takes."""
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    types = {name: f"*{kind}" for name, kind in {**POINTERS, "stored": stored}.items()}
    types |= dict.fromkeys(VALUES, f"*{name}") | dict.fromkeys(NUMBERS, "i32")
    longest = batch // groups
    form = kernels.form_of((4096, 4096), batch, bits, groups, groups, longest)
    constants = {
        "slots": batch,
        "bits": bits,
        "per": kernels.PER[bits],
        "unit": 3 if bits == 3 else 1,
        "every": groups,
        "groups": groups,
        "most": 1,
        "batch_block": batch,
        "slot_block": max(8, longest),
        "row_block": form.rows,
        "column_block": form.columns,
        "unit_block": form.units,
        **{name: getattr(form, name) for name in ("base_parts", "code_parts")},
        **{name: getattr(form, name) for name in ("base_stages", "code_stages")},
        "whole": True,
        "whole_units": True,
        "turn": form.turn,
        "text": text_of(bits, dtype),
        "early": hasattr(tl.extra.cuda, "gdc_wait"),
    }
    return compiled(triton_kernels.products, types, constants, num_warps=form.warps)


def swap() -> Any:
    types = {"base": "*bf16", "stored": "*i16", "out": "*bf16", "height": "i32", "width": "i32"}
    types |= dict.fromkeys(("table", "rows", "columns"), "*fp32") | {"signs": "*u8"}
    types |= dict.fromkeys(("scale", "largest"), "fp32")
    constants = {"bits": 2, "per": 8, "unit": 1, "kind": 3, "dtype": tl.bfloat16}
    constants |= {"row_block": 4, "unit_block": 64}
    return compiled(triton_swap.swap, types, constants, enable_fp_fusion=False)


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


if __name__ == "__main__":
    for bits, stored, dtype, batch, groups in (
        (0, "i16", torch.bfloat16, 16, 1),
        (2, "i32", torch.bfloat16, 16, 1),
        (2, "i32", torch.float16, 64, 8),
        (1, "i16", torch.bfloat16, 16, 8),
        (4, "i32", torch.bfloat16, 64, 1),
        (8, "i32", torch.bfloat16, 64, 8),
    ):
        made = products(bits, stored, dtype, batch, groups)
        ptx = made.asm["ptx"]
        used = bool(text_of(bits, dtype)) == ("%lanemask_lt" in ptx)
        print(made.metadata.shared <= SHARED, "wgmma" in ptx, used, not serialized(ptx))
    made = swap()
    print(len(made.asm["cubin"]) > 0, "fma" in made.asm["ptx"])
