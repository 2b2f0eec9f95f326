"""Banks of small models with several fine-tunes, for tests of what runs from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import randes_cli
from randes_cli import PackOptions, TaskInput, Transform, pack
from tests.models import Made, perturb, save

TASKS = ("cars", "sun", "dtd")
#: What the rows of a batch ask for; None is the base.
ASKED = ("sun", "cars", "dtd", "sun", None)


def options(transform: str = "two-sided", **more: Any) -> PackOptions:
    return PackOptions(transform=Transform.from_preset(transform), **more)


def pack_folders(folder: Path, given: PackOptions, tasks: Sequence[str] = TASKS) -> Path:
    """A bank of the folders ``base`` and those of the tasks."""
    inputs = [TaskInput(task, str(folder / task)) for task in tasks]
    pack(str(folder / "base"), inputs, folder / "bank.randes", given, force=True)
    return folder / "bank.randes"


def bank_of(
    make: Callable[[], Made],
    folder: Path,
    given: PackOptions | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A bank of a model with a random base and three fine-tunes."""
    torch.manual_seed(0)
    model, _ = make()
    save(model, folder / "base", dtype, sharded=False)
    for number, task in enumerate(TASKS):
        perturb(model, number)
        save(model, folder / task, dtype, sharded=False)
    return pack_folders(folder, given or options())


def batch_of(inputs: dict[str, torch.Tensor], rows: int = len(ASKED)) -> dict[str, torch.Tensor]:
    """Inputs of these shapes with `rows` different rows."""
    source = torch.Generator().manual_seed(1)
    made = {}
    for name, value in inputs.items():
        shape = (rows, *value.shape[1:])
        if value.is_floating_point():
            made[name] = torch.randn(shape, generator=source)
        else:
            made[name] = torch.randint(3, 90, shape, generator=source)
    return made


def alone(bank: Path, asked: Sequence[str | None] = ASKED) -> dict[str | None, Any]:
    """Each task's own model, and the base."""
    return {task: randes_cli.transformers.from_bank(bank, task) for task in set(asked)}


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Within 10⁻⁴ of the largest, −∞ and NaN in the same places."""
    assert found.shape == wanted.shape
    finite = wanted.isfinite()
    assert torch.equal(finite, found.isfinite())
    largest = wanted[finite].abs().max()
    assert (found[finite] - wanted[finite]).abs().max() <= 1e-4 * largest


def differ(models: dict[str | None, nn.Module], run: Callable[[Any], torch.Tensor]) -> None:
    """The tasks answer differently by far more than the tolerance, or a test would show nothing."""
    answers = [run(model) for model in models.values()]
    for number, one in enumerate(answers):
        for other in answers[:number]:
            width = min(one.shape[-1], other.shape[-1])
            gap = (one[..., :width] - other[..., :width]).abs().max()
            assert gap > 1e-2 * one.abs().max()


def logits(found: Any, row: int) -> torch.Tensor:
    """One row's answer; of CLIP the picture with its own words."""
    if "logits_per_image" in found:
        return torch.as_tensor(found.logits_per_image[row, row : row + 1])
    return torch.as_tensor(found.logits[row])


def attached(bank: Path, **more: Any) -> randes_cli.MixedModel:
    """The base of a bank, with its tasks attached."""
    return randes_cli.attach(randes_cli.transformers.from_bank(bank), bank, **more)


@torch.inference_mode()
def assert_rows_are_their_tasks(
    mixed: randes_cli.MixedModel, models: dict[str | None, Any], batch: dict[str, torch.Tensor]
) -> None:
    """Each row of a batch is answered as its task's own model answers it."""
    with mixed.tasks(ASKED) as model:
        found = model(**batch)
    for row, task in enumerate(ASKED):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        assert_near(logits(found, row), logits(models[task](**one), 0))


def assert_rows_answered(bank: Path, batch: dict[str, torch.Tensor]) -> None:
    """The same of a bank's base with its tasks attached, however they are held."""
    models = alone(bank)
    for hold in ("dense", "codes"):
        assert_rows_are_their_tasks(attached(bank, hold=hold), models, batch)
