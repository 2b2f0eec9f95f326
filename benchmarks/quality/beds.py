"""What a bed is: one base, its fine-tuned models, and a score for any state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CACHE = Path(__file__).parent / ".cache"
#: λ and other knobs are chosen on one part of the held-out examples, scores are of the other.
VALIDATION, TEST = "validation", "test"

StateDict = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Bed:
    """One experiment of the paper at a size that a processor can train.

    Attributes:
        tasks: checkpoints of the fine-tuned models by task.
        evaluate: (state dict, task, part) to a score from 0 to 1; the state dict has the
            names of the base's checkpoint.
        extra: further fine-tunes (other seeds) that only make a bank fuller, by name.
        story: one paragraph for the report.
        folders: adapters in PEFT's format by task: what a bank is packed from, in place of `tasks`.
        outside: whether `base` is zeros in place of a base that lies outside, as with adapters.
        curves: whether a score is cheap enough to try every λ where a curve is drawn.
    """

    name: str
    title: str
    base: Path
    tasks: Mapping[str, Path]
    evaluate: Callable[[StateDict, str, str], float]
    story: str
    extra: Mapping[str, Path] = field(default_factory=dict)
    curves: bool = False
    folders: Mapping[str, Path] = field(default_factory=dict)
    outside: bool = False


def load(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors."""
    return load_file(path)


def save(state: StateDict, path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, unfinished)
    unfinished.replace(path)


def rows(count: int, part: str, share: float) -> slice:
    """The rows of one part of `count` held-out examples; `share` of them are for validation."""
    cut = int(share * count)
    return slice(0, cut) if part == VALIDATION else slice(cut, count)
