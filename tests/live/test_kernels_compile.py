"""The Triton kernels compile for GPUs that need not be here, as they are launched there."""

from __future__ import annotations

import os
import subprocess
import sys


def test_products_keep_tensor_cores_busy_and_a_swap_rounds_each_product_and_each_sum() -> None:
    there = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.live.compile_kernels"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=there)
    kinds = [f"{bits} bits" for bits in (0, 1, 2, 3, 4, 8)]
    kinds += ["many rows", "half precision", "tall", "wide", "a byte", "one task a group"]
    wanted = []
    for kind in kinds:
        levels = " registers" if kind != "0 bits" else ""
        wanted += [f"{kind}: code_sums tensor cores{levels}", f"{kind}: base_sums tensor cores"]
    wanted += [f"single precision: {name}_sums" for name in ("code", "base")]
    wanted += ["W₀ first: code_sums tensor cores registers ahead"]
    wanted += ["W₀ first: base_sums tensor cores"]
    assert done.stdout.splitlines() == [
        *wanted,
        "swap: each rounded levels in lanes to finite numbers",
    ]
