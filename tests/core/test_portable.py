"""The compiled passes give equal numbers from every compiler, for x86-64 and for ARM64."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from randes_cli.core.fused_kernel import available

HERE = Path(__file__).parent
SOURCES = [*sorted((HERE.parents[1] / "src/randes_cli/core").glob("*.c")), HERE / "portable.c"]
FLAGS = ["-O3", "-ffp-contract=off", "-w"]
#: Compilers, each with what runs that which it makes.
COMPILERS = {
    "cc": [],
    "clang": [],
    "musl-gcc": [],
    "aarch64-linux-gnu-gcc": ["qemu-aarch64-static"],
}


def test_numbers_are_equal_from_every_compiler_that_is_here(tmp_path: Path) -> None:
    found = {}
    for compiler, runner in COMPILERS.items():
        if not all(map(shutil.which, [compiler, *runner])):
            continue
        made = tmp_path / compiler
        static = ["-static"] if runner else []
        subprocess.run([compiler, *FLAGS, *SOURCES, "-o", made, *static, "-lm"], check=True)
        for version in ("1", "3", "4"):
            done = subprocess.run([*runner, made, version], check=True, capture_output=True)
            found[compiler, version] = done.stdout
    assert len(set(found.values())) == (1 if available() or found else 0), found
