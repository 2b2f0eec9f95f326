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

from randes_cli.live import forms, triton_kernels, triton_swap
from randes_cli.live.machine_code import text_of

POINTERS = {"table": "fp32", "starts": "i32", "slot_tasks": "i64", "residues": "i32"} | {
    "scales": "fp32",
    "sums": "fp32",
}
#: Bytes of shared memory that a block may have there.
SHARED = 227 * 1024
NUMBERS = (
    "rows",
    "columns",
    "batch",
    "units",
    "width",
    "size",
    "count",
    "height",
    "longest",
    "parts",
)


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], **more: Any) -> Any:
    types = {name: kind for name, kind in types.items() if name in kernel.arg_names}
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if signature[name][0] == "*" or name in ("rows", "columns", "units", "width", "height")
    }
    more = {"enable_fp_fusion": True, **more}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=more)


def code_sums(bits: int, stored: str, dtype: torch.dtype, batch: int, groups: int) -> Any:
    """The kernel in the form that 4096 × 4096 of one or several groups takes."""
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    types = {name: f"*{kind}" for name, kind in {**POINTERS, "stored": stored}.items()}
    types |= {"met": f"*{name}", "down": f"*{name}", **dict.fromkeys(NUMBERS, "i32")}
    longest = batch // groups
    form = forms.code_form((4096, 4096), bits, groups, groups, longest)
    constants = {
        "slots": batch,
        "bits": bits,
        "per": forms.PER[bits],
        "unit": 3 if bits == 3 else 1,
        "every": groups,
        "row_block": form.rows,
        "slot_block": max(8, longest),
        "unit_block": form.columns,
        "stages": form.stages,
        "whole": True,
        "text": text_of(bits, dtype),
        "early": hasattr(tl.extra.cuda, "gdc_wait"),
    }
    return compiled(triton_kernels.code_sums, types, constants, num_warps=form.warps)


def base_sums(batch: int) -> Any:
    types = {"x": "*bf16", "base": "*bf16", "sums": "*fp32", **dict.fromkeys(NUMBERS, "i32")}
    form = forms.base_form((4096, 4096), batch)
    constants = {
        "batch_block": batch,
        "row_block": form.rows,
        "column_block": form.columns,
        "stages": form.stages,
        "whole": True,
        "early": hasattr(tl.extra.cuda, "gdc_wait"),
    }
    return compiled(triton_kernels.base_sums, types, constants, num_warps=form.warps)


def finish() -> Any:
    types = {"of_base": "*fp32", "of_codes": "*fp32", "places": "*i32", "y": "*bf16"}
    types |= dict.fromkeys(NUMBERS, "i32")
    constants = {"most": 1, "every": 1, "base_parts": 2, "code_parts": 4, "block": 512}
    constants |= {"early": hasattr(tl.extra.cuda, "gdc_wait")}
    return compiled(triton_kernels.finish, types, constants)


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


def told(made: Any, used: bool) -> None:
    """Whether it fits, has tensor cores, `used` what it should, and does not wait for each."""
    ptx = made.asm["ptx"]
    print(made.metadata.shared <= SHARED, "mma" in ptx, used, not serialized(ptx))


if __name__ == "__main__":
    for bits, stored, dtype, batch, groups in (
        (0, "i16", torch.bfloat16, 16, 1),
        (2, "u8", torch.bfloat16, 16, 1),
        (2, "u8", torch.float16, 64, 8),
        (1, "u8", torch.bfloat16, 16, 8),
        (3, "u8", torch.bfloat16, 16, 8),
        (4, "u8", torch.bfloat16, 64, 1),
        (8, "u8", torch.bfloat16, 64, 8),
    ):
        made = code_sums(bits, stored, dtype, batch, groups)
        told(made, bool(text_of(bits, dtype)) == ("%lanemask_lt" in made.asm["ptx"]))
    for batch in (16, 64):
        made = base_sums(batch)
        told(made, "wgmma" in made.asm["ptx"])
    print("griddepcontrol.wait" in finish().asm["ptx"])
    made = swap()
    print(len(made.asm["cubin"]) > 0, "fma" in made.asm["ptx"])
