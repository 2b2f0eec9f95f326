"""Put eight fine-tuned models into one bank, take them out again, and compare them.

The models of `train.py` go through the `randes` command line once per transform: task
arithmetic, shuffled layers with column signs, and two-sided signs. Every model that comes back
is measured on its held-out images, beside the fine-tuned original and the base.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from evaluate import accuracy
from rich.console import Console
from rich.table import Table
from tasks import TASKS
from train import BASE, CACHE, checkpoints

PRESETS = ("ta", "srsf", "two-sided")
INSPECTED = "two-sided"
THREADS = 2

Accuracies = Mapping[str, float]
Run = Callable[..., None]


@dataclass(frozen=True)
class Column:
    """One way to keep the models: what they score, and what they weigh on the disk (bytes)."""

    title: str
    accuracies: Accuracies
    size: int


def runner(console: Console, folder: Path) -> Run:
    """A function that shows a `randes` command and runs it in a folder."""

    def run(*arguments: str, show: bool = False) -> None:
        console.print(
            f"$ {shlex.join(['randes', *arguments])}", style="bold", markup=False, highlight=False
        )
        console.file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "randes_cli", *arguments],
            cwd=folder,
            capture_output=not show,
            text=True,
            check=False,
        )
        if done.returncode:
            if done.stderr:
                console.print(done.stderr, style="red", markup=False, highlight=False)
            raise SystemExit(done.returncode)

    return run


def measure(models: Mapping[str, Path]) -> Accuracies:
    """The accuracy of each model on the held-out images of the task it is named after."""
    return {task: accuracy(path, task) for task, path in models.items()}


def size(*paths: Path) -> int:
    """The bytes of some files together."""
    return sum(path.stat().st_size for path in paths)


def through_bank(run: Run, preset: str, models: Mapping[str, Path], options: list[str]) -> Column:
    """Pack the models with one transform, unpack them all, and measure what came back."""
    base, folder = models[BASE], models[BASE].parent
    named = [f"{task}={models[task].name}" for task in TASKS]
    bank = f"{preset}.randes"
    run("pack", base.name, *named, "--transform", preset, *options, "-o", bank, "--force")
    run("inspect", bank, show=preset == INSPECTED)
    run("unpack", bank, "--all", "-o", preset, "--force")
    retrieved = {task: folder / preset / f"{task}.safetensors" for task in TASKS}
    return Column(preset, measure(retrieved), size(folder / bank))


def table(columns: list[Column], reference: Column) -> Table:
    """Accuracies by task and column, their mean relative to the reference, and the bytes."""
    result = Table(title="Accuracy on held-out images")
    result.add_column("task")
    for column in columns:
        result.add_column(column.title, justify="right")
    for task in TASKS:
        result.add_row(task, *(f"{column.accuracies[task]:.3f}" for column in columns))
    result.add_section()
    result.add_row("normalised mean", *(f"{normalised(c, reference):.3f}" for c in columns))
    result.add_row("bytes", *(f"{column.size:,}" for column in columns))
    return result


def normalised(column: Column, reference: Column) -> float:
    """The mean over tasks of a column's accuracy divided by the reference's."""
    return fmean(column.accuracies[task] / reference.accuracies[task] for task in TASKS)


def main() -> None:
    """Train, pack, unpack, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of models and banks")
    parser.add_argument("--bits", type=int, help="bits per value of the banks (`randes pack`)")
    arguments = parser.parse_args()
    options = [] if arguments.bits is None else ["--bits", str(arguments.bits)]

    console = Console(soft_wrap=True)
    models = checkpoints(arguments.cache.resolve())
    torch.set_num_threads(THREADS)
    tuned = {task: models[task] for task in TASKS}
    base = Column(BASE, measure(dict.fromkeys(TASKS, models[BASE])), size(models[BASE]))
    reference = Column("fine-tuned", measure(tuned), size(*tuned.values()))

    run = runner(console, models[BASE].parent)
    banks = [through_bank(run, preset, models, options) for preset in PRESETS]
    console.print(table([base, reference, *banks], reference))
    console.print(
        f"Each bank holds the base and {len(TASKS)} models; the fine-tuned column is "
        f"{len(TASKS)} separate checkpoints.",
        highlight=False,
    )


if __name__ == "__main__":
    main()
