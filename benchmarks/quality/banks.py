"""randes itself: the fine-tunes packed into a bank file, and retrieved from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from beds import CACHE, StateDict
from methods import Models, Packed

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, Transform, pack


def bank(preset: str, bits: int, groups: int = 1) -> Callable[[Models, int], Packed]:
    """A bank of one transform and width; its bytes are those of the file."""

    def build(models: Models, seed: int) -> Packed:
        path = Path(mkdtemp(dir=CACHE)) / "bank.randes"
        inputs = [TaskInput(task, str(models.bed.tasks[task])) for task in models.tasks]
        options = PackOptions(Transform.from_preset(preset), bits=bits, seed=seed, groups=groups)
        run = RunOptions(threads=1)
        pack(str(models.bed.base), inputs, path, options, run)
        nbytes = path.stat().st_size
        opened = Bank.open(path, run=run)
        path.unlink()
        path.parent.rmdir()

        def restore(task: str, knob: float) -> StateDict:
            return opened.retrieve(task, coefficient=knob)

        return Packed(nbytes, restore)

    return build
