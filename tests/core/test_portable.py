"""The compiled passes give equal numbers from every compiler, for x86-64 and for ARM64."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from randes_cli.core.compiled.library import library

HERE = Path(__file__).parent
COMPILED = HERE.parents[1] / "src/randes_cli/core/compiled"
#: What the program calls. The others take as long to compile: whether they would is looked at.
CALLED = [
    COMPILED / f"{n}.c" for n in ("add", "cut", "digest", "fused", "levels", "sample", "shake")
]
OTHERS = sorted({*COMPILED.glob("*.c")} - {*CALLED})


@dataclass(frozen=True)
class Compiler:
    """A compiler, what it makes a program of, and what runs that."""

    command: str
    options: list[str] = field(default_factory=lambda: ["-O3"])
    passes: list[Path] = field(default_factory=lambda: CALLED)
    runner: list[str] = field(default_factory=list)

    def results(self, made: Path) -> list[bytes]:
        """What the program prints for each version of the passes; nothing where it is not here."""
        if not all(map(shutil.which, [self.command, *self.runner])):
            return []
        words = [self.command, *self.options, "-ffp-contract=off", "-w"]
        sources = [HERE / "portable.c", *self.passes]
        subprocess.run([*words, *sources, "-o", made, "-lm"], check=True)
        subprocess.run([*words, *OTHERS, "-fsyntax-only"], check=True)
        versions = [[*self.runner, str(made), version] for version in ("1", "3", "4")]
        return [subprocess.check_output(version) for version in versions]


def compilers() -> list[Compiler]:
    """The package's own, whose work is there where a program can be linked with an extension; and
    others. musl's is GCC once more, so it is GCC without vectors that stands beside the first."""
    compiled = library()
    linked = [Path(compiled._name)] if compiled and sys.platform == "linux" else CALLED
    return [
        Compiler("cc", passes=linked),
        Compiler("clang"),
        Compiler("musl-gcc", ["-O0"]),
        Compiler("aarch64-linux-gnu-gcc", ["-O3", "-static"], runner=["qemu-aarch64-static"]),
    ]


def test_numbers_are_equal_from_every_compiler_that_is_here(tmp_path: Path) -> None:
    found = {made.command: made.results(tmp_path / made.command) for made in compilers()}
    told = {number for numbers in found.values() for number in numbers}
    assert len(told) == (1 if library() or told else 0), found
