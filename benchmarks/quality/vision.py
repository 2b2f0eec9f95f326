"""The vision beds: the digits example's transformer with eight tasks, and a larger one with
twenty (paper, Tables 1 and 5)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from beds import CACHE, Bed, StateDict, load, rows, save

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
sys.path.append(str(EXAMPLE))

from model import Shape, VisionTransformer  # noqa: E402
from tasks import TASKS as EIGHT  # noqa: E402
from tasks import Examples, View, evaluation_set, plain  # noqa: E402
from train import FINE_TUNING, PRE_TRAINING, Recipe, fit  # noqa: E402

LARGER = Shape(width=192, depth=8)
SHORTER = replace(FINE_TUNING, epochs=5)
#: Further fine-tunes of the eight tasks that fill a bank: seeds 1, 2, ...
EXTRA_SEEDS = ()


def _picture(change: Callable[[torch.Tensor], torch.Tensor]) -> View:
    return lambda digits, _: Examples(change(digits.images), digits.labels)


def _question(answers: Iterable[int]) -> View:
    table = torch.tensor(list(answers))
    return lambda digits, _: Examples(digits.images, table[digits.labels])


def _scrambled(seed: int) -> View:
    """The digit of an image whose 64 pixels are in another, fixed order."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
    return _picture(lambda images: images.flatten(1)[:, order].view_as(images))


def _striped(images: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(8)[:, None] % 2 == 1
    return torch.where(rows, 1 - images, images)


TWENTY: dict[str, View] = {
    **EIGHT,
    "turned": _picture(lambda images: images.rot90(2, dims=(1, 2))),
    "left": _picture(lambda images: images.rot90(3, dims=(1, 2))),
    "transposed": _picture(lambda images: images.transpose(1, 2)),
    "rolled": _picture(lambda images: images.roll((4, 4), dims=(1, 2))),
    "striped": _picture(_striped),
    "scrambled0": _scrambled(0),
    "scrambled1": _scrambled(1),
    "scrambled2": _scrambled(2),
    "modulo3": _question((0, 1, 2, 0, 1, 2, 0, 1, 2, 0)),
    "large": _question((0, 0, 0, 0, 0, 1, 1, 1, 1, 1)),
    "straight": _question((0, 1, 0, 0, 1, 0, 0, 1, 0, 0)),
    "complement": _question((9, 8, 7, 6, 5, 4, 3, 2, 1, 0)),
}


def _train(shape: Shape, start: Path | None, view: View, recipe: Recipe, path: Path) -> None:
    torch.manual_seed(recipe.seed)
    model = VisionTransformer(shape)
    if start is not None:
        model.load_state_dict(load(start))
    fit(model, view, recipe)
    save(model.state_dict(), path)


def _evaluator(shape: Shape, tasks: dict[str, View]) -> Callable[[StateDict, str, str], float]:
    model = VisionTransformer(shape).eval()
    seen = cache(lambda task: evaluation_set(tasks[task]))

    def evaluate(state: StateDict, task: str, part: str) -> float:
        model.load_state_dict(state)
        examples = seen(task)
        chosen = rows(len(examples.labels), part, 0.5)
        with torch.inference_mode():
            right = model(examples.images[chosen]).argmax(dim=1) == examples.labels[chosen]
        return float(right.float().mean())

    return evaluate


def _bed(
    name: str, title: str, shape: Shape, tasks: dict[str, View], story: str, *, extra: bool
) -> Bed:
    folder = CACHE / name
    base = folder / "base.safetensors"
    tuned = FINE_TUNING if shape == Shape() else SHORTER
    wanted = {task: (folder / f"{task}.safetensors", view, 0) for task, view in tasks.items()}
    more = {
        f"{task}-{seed}": (folder / f"{task}-{seed}.safetensors", tasks[task], seed)
        for seed in (EXTRA_SEEDS if extra else ())
        for task in tasks
    }
    if not base.exists():
        _train(shape, None, plain, PRE_TRAINING, base)
    for made, (path, view, seed) in {**wanted, **more}.items():
        if not path.exists():
            _train(shape, base, view, replace(tuned, seed=seed), path)
            print(f"{name}: trained {made}", flush=True)
    return Bed(
        name,
        title,
        base,
        {task: path for task, (path, _, _) in wanted.items()},
        _evaluator(shape, tasks),
        story,
        {made: path for made, (path, _, _) in more.items()},
        curves=True,
    )


def digits() -> Bed:
    """The bed of `examples/digits`, with the same fine-tunes at other seeds."""
    return _bed(
        "digits",
        "Vision, eight tasks",
        Shape(),
        EIGHT,
        "The vision transformer of `examples/digits` (1.2M parameters), trained on scikit-learn's "
        "handwritten digits and fine-tuned whole for eight tasks; 270 held-out images choose the "
        "coefficient, 270 others give the score.",
        extra=True,
    )


def digits_large() -> Bed:
    """A larger transformer with twenty tasks."""
    return _bed(
        "digits-large",
        "Larger vision model, twenty tasks",
        LARGER,
        TWENTY,
        "The same transformer three times as large (3.6M parameters) with twenty tasks: the eight, "
        "and further turned, mixed-up and re-labelled digits.",
        extra=False,
    )
