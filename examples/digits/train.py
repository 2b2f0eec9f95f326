"""Train a small vision transformer on digits and fine-tune it, whole, for eight tasks.

Run `python train.py`; it leaves `base.safetensors` and one `<task>.safetensors` per task in
the cache folder. A checkpoint that is already there is not trained again.
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from model import VisionTransformer
from safetensors.torch import load_file, save_file
from tasks import TASKS, Examples, View, digits, plain
from torch import Tensor
from torch.nn import functional

CACHE = Path(__file__).parent / ".cache"
BASE = "base"
PROCESSES = 2


@dataclass(frozen=True)
class Recipe:
    """How one model is trained."""

    epochs: int
    rate: float
    batch: int = 32
    decay: float = 0.01
    warmup: float = 0.1  # share of the steps
    shift: int = 0  # pixels
    noise: float = 0.05  # standard deviation, of pixels in [0, 1]
    seed: int = 0


PRE_TRAINING = Recipe(epochs=10, rate=1e-3, shift=1)
FINE_TUNING = Recipe(epochs=6, rate=3e-4)


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Shift every image by up to `recipe.shift` pixels each way and add Gaussian noise."""
    padded = functional.pad(images, (recipe.shift,) * 4)
    corners = torch.randint(2 * recipe.shift + 1, (2, len(images), 1), generator=generator)
    rows, columns = corners + torch.arange(images.shape[-1])
    picture = torch.arange(len(images))[:, None, None]
    shifted = padded[picture, rows[:, :, None], columns[:, None, :]]
    grain = recipe.noise * torch.randn(images.shape, generator=generator)
    return (shifted + grain).clamp(0, 1)


def batches(view: View, recipe: Recipe, generator: torch.Generator) -> Iterator[Examples]:
    """The training digits as a task sees them, one shuffled epoch after another."""
    source = digits(held_out=False)
    for _ in range(recipe.epochs):
        images = augment(source.images, recipe, generator)
        seen = view(Examples(images, source.labels), generator)
        order = torch.randperm(len(images), generator=generator)
        for rows in torch.split(order, recipe.batch):
            yield Examples(seen.images[rows], seen.labels[rows])


def fit(model: VisionTransformer, view: View, recipe: Recipe) -> None:
    """Train every parameter of a model in place by AdamW, the rate on one cosine cycle."""
    generator = torch.Generator().manual_seed(recipe.seed)
    steps = recipe.epochs * -(-len(digits(held_out=False).labels) // recipe.batch)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.rate, weight_decay=recipe.decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=steps, pct_start=recipe.warmup, cycle_momentum=False
    )
    for batch in batches(view, recipe, generator):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(batch.images), batch.labels)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()


def save(model: VisionTransformer, path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    save_file(model.state_dict(), unfinished)
    unfinished.replace(path)


def train_base(path: Path) -> None:
    """Train the base from nothing on the plain digits."""
    torch.manual_seed(PRE_TRAINING.seed)
    model = VisionTransformer()
    fit(model, plain, PRE_TRAINING)
    save(model, path)


def fine_tune(base: Path, task: str, path: Path) -> None:
    """Fine-tune all of the base for one task."""
    model = VisionTransformer()
    model.load_state_dict(load_file(base))
    fit(model, TASKS[task], FINE_TUNING)
    save(model, path)


def checkpoints(cache: Path = CACHE, *, force: bool = False) -> dict[str, Path]:
    """The base and the eight fine-tuned models by name; those not in the cache are trained."""
    cache.mkdir(parents=True, exist_ok=True)
    paths = {name: cache / f"{name}.safetensors" for name in (BASE, *TASKS)}
    missing = [name for name, path in paths.items() if force or not path.exists()]
    # One thread per process: models this small gain little from two, and the result cannot
    # depend on the number of cores. Spawned, for a fork does not survive torch's own threads.
    with ProcessPoolExecutor(PROCESSES, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        if BASE in missing:
            pool.submit(train_base, paths[BASE]).result()
            print(f"trained {BASE}", flush=True)
        tasks = [name for name in missing if name != BASE]
        runs = [pool.submit(fine_tune, paths[BASE], name, paths[name]) for name in tasks]
        for name, run in zip(tasks, runs, strict=True):
            run.result()
            print(f"trained {name}", flush=True)
    return paths


def main() -> None:
    """Train what the cache folder lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the checkpoints")
    parser.add_argument("--force", action="store_true", help="train again what is there already")
    options = parser.parse_args()
    checkpoints(options.cache, force=options.force)


if __name__ == "__main__":
    main()
