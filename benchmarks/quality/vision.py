"""The vision beds: the digits example's transformer with eight tasks, a larger one with twenty
(paper, Tables 1 and 5), and convolutions with the eight."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from beds import CACHE, Bed, StateDict, load, rows, save
from convolutional import Convolutions
from torch import nn

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
sys.path.append(str(EXAMPLE))

from model import Shape, VisionTransformer  # noqa: E402
from tasks import TASKS as EIGHT  # noqa: E402
from tasks import Examples, View, evaluation_set, plain  # noqa: E402
from train import FINE_TUNING, PRE_TRAINING, Recipe, fit  # noqa: E402

LARGER = Shape(width=192, depth=8)
SHORTER = replace(FINE_TUNING, epochs=5)
Make = Callable[[], nn.Module]


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


def _train(make: Make, start: Path | None, view: View, recipe: Recipe, path: Path) -> None:
    torch.manual_seed(recipe.seed)
    model = make()
    if start is not None:
        model.load_state_dict(load(start))
    fit(model, view, recipe)
    save(model.state_dict(), path)


def _evaluator(make: Make, tasks: dict[str, View]) -> Callable[[StateDict, str, str], float]:
    model = make().eval()
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
    name: str, title: str, make: Make, tasks: dict[str, View], tuned: Recipe, story: str
) -> Bed:
    folder = CACHE / name
    base = folder / "base.safetensors"
    wanted = {task: (folder / f"{task}.safetensors", view) for task, view in tasks.items()}
    if not base.exists():
        _train(make, None, plain, PRE_TRAINING, base)
    for made, (path, view) in wanted.items():
        if not path.exists():
            _train(make, base, view, tuned, path)
            print(f"{name}: trained {made}", flush=True)
    return Bed(
        name,
        title,
        base,
        {task: path for task, (path, _) in wanted.items()},
        _evaluator(make, tasks),
        story,
        curves=True,
    )


def digits() -> Bed:
    """The bed of `examples/digits`, with the same fine-tunes at other seeds."""
    return _bed(
        "digits",
        "Vision, eight tasks",
        VisionTransformer,
        EIGHT,
        FINE_TUNING,
        "The vision transformer of `examples/digits` (1.2M parameters), trained on scikit-learn's "
        "handwritten digits and fine-tuned whole for eight tasks; 270 held-out images choose the "
        "coefficient, 270 others give the score.",
    )


def digits_convolutions() -> Bed:
    """The same tasks for a network of convolutions."""
    return _bed(
        "digits-conv",
        "Vision by convolutions, eight tasks",
        Convolutions,
        EIGHT,
        FINE_TUNING,
        "A residual network of 3 x 3 convolutions (0.8M parameters) with the same images and "
        "eight tasks, trained and fine-tuned as long.",
    )


def digits_large() -> Bed:
    """A larger transformer with twenty tasks."""
    return _bed(
        "digits-large",
        "Larger vision model, twenty tasks",
        partial(VisionTransformer, LARGER),
        TWENTY,
        SHORTER,
        "The same transformer three times as large (3.6M parameters) with twenty tasks: the eight, "
        "and further turned, mixed-up and re-labelled digits.",
    )
