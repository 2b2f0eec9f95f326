"""What a bed is: one base, its fine-tuned models, and a score for any state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CACHE = Path(__file__).parent / ".cache"
#: λ and other knobs are chosen on the first half of the held-out examples, scores are reported
#: on the second.
VALIDATION, TEST = "validation", "test"

StateDict = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Bed:
    """One experiment of the paper at a size that a processor can train.

    Attributes:
        tasks: checkpoints of the fine-tuned models by task.
        evaluate: (state dict, task, half) to a score from 0 to 1; the state dict has the
            names of the base's checkpoint.
        extra: further fine-tunes (other seeds) that only make a bank fuller, by name.
        story: one paragraph for the report.
    """

    name: str
    title: str
    base: Path
    tasks: Mapping[str, Path]
    evaluate: Callable[[StateDict, str, str], float]
    story: str
    extra: Mapping[str, Path] = field(default_factory=dict)


def load(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors."""
    return load_file(path)


def save(state: StateDict, path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, unfinished)
    unfinished.replace(path)


def half(count: int, which: str) -> slice:
    """The rows of one half of `count` held-out examples."""
    middle = count // 2
    return slice(0, middle) if which == VALIDATION else slice(middle, count)
