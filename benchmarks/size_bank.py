"""Writes all of a bank but its data: header, manifest, statistics; sums and base are holes.

    python benchmarks/size_bank.py OUT BASE TASK...

It is `pack` without the one pass over the bytes, for models of which no disk here has room: every
tensor counts as changed, samples are those of a dry run, and no room is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from randes_cli import RunOptions
from randes_cli.build import build, pack
from randes_cli.build.passes import Passes
from randes_cli.files.local.disk import OutputFile
from randes_cli.plan import Unit
from randes_cli.stats.stored import empty_statistics


def without_data() -> None:
    """Leave the pass out, and what asks for the disk's room."""
    sample = build.Build.sample

    def few(self: build.Build, *, supposed: bool = False, few: bool = False) -> None:
        sample(self, supposed=supposed, few=True)
        tensors = list(self.draft.base.tensors.values())
        self.stored = empty_statistics(tensors, self.cells)  # a bank has cells of all tensors

    def run(self: Passes, units: Sequence[Unit], *rest: Any, **more: Any) -> None:
        for one in self.draft.coming:
            self.tally.changed[one.index] = set(one.fit.superposed)

    def no_room(*arguments: Any, **more: Any) -> None:
        pass

    build.Build.sample, Passes.run = few, run  # type: ignore[method-assign]
    build.check_space = no_room  # type: ignore[attr-defined]
    OutputFile.reserve = no_room  # type: ignore[method-assign]


def main() -> None:
    """Write the bank."""
    out, base, *tasks = sys.argv[1:]
    without_data()
    pack.pack(base, tasks, out, run=RunOptions(threads=1), force=True)


if __name__ == "__main__":
    main()
