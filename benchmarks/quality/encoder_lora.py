"""The text-encoder bed again with LoRA (paper, Table 4): once merged into full deltas, as the
paper does, and once as adapters, whose factors are superposed themselves."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import encoder
import torch
from beds import CACHE, Bed, StateDict, load, save
from encoder_data import TASKS
from torch import Tensor
from training import Recipe, fit

FOLDER = CACHE / "encoder-lora"
RANK, ALPHA = 16, 32
TARGETS = ("query", "key", "value", "dense")
FINE_TUNING = Recipe(steps=300, rate=1e-3, batch=32, half=True)


def fine_tune(task: str, seed: int, folder: Path) -> None:
    """Train an adapter on every linear layer of the encoder, and save it as PEFT does."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    recipe = replace(FINE_TUNING, seed=seed)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS))
    model = get_peft_model(encoder.new_model(), config).train()  # type: ignore[arg-type]
    fit(model, encoder.batch_loss(model, task, recipe), recipe)
    unfinished = folder.with_suffix(".unfinished")
    model.save_pretrained(str(unfinished))
    unfinished.rename(folder)


def merged(base: StateDict, adapter: StateDict) -> dict[str, Tensor]:
    """The base with an adapter's low-rank products added: W + (alpha / r) B A."""
    made = dict(base)
    for name, down in adapter.items():
        if name.endswith("lora_A.weight"):
            up = adapter[name.replace("lora_A", "lora_B")]
            layer = name.removeprefix("base_model.model.").replace("lora_A.", "")
            made[layer] = base[layer] + (ALPHA / RANK) * (up @ down)
    return made


def _folders() -> dict[str, Path]:
    folders = {task: FOLDER / "adapters" / task for task in TASKS}
    for task, folder in folders.items():
        if not folder.exists():
            fine_tune(task, 0, folder)
            print(f"encoder-lora: trained {task}", flush=True)
    return folders


def _weights(folder: Path) -> Path:
    return folder / "adapter_model.safetensors"


@cache
def _base() -> dict[str, Tensor]:
    return load(encoder.base_checkpoint())


def _evaluate_adapter(state: StateDict, task: str, part: str) -> float:
    return encoder.evaluate(merged(_base(), state), task, part)


def merged_bed() -> Bed:
    """Adapters merged into full checkpoints."""
    tasks, folders = {}, _folders()
    for task, folder in folders.items():
        tasks[task] = FOLDER / f"{task}.safetensors"
        if not tasks[task].exists():
            save(merged(_base(), load(_weights(folder))), tasks[task])
    return Bed(
        "encoder-lora",
        "Text encoder, eight LoRA fine-tunes merged",
        encoder.base_checkpoint(),
        tasks,
        encoder.evaluate,
        f"The same eight tasks with LoRA of rank {RANK} on every linear layer, merged into full "
        "models: a bank is packed from PEFT's folders with `merge_adapters`, the other methods "
        "have the merged checkpoints. The eight adapters as they are take 0.235 × the base.",
        folders=folders,
    )


def adapter_bed() -> Bed:
    """The factors A and B themselves, over a base of zeros."""
    folders = _folders()
    tasks = {task: _weights(folder) for task, folder in folders.items()}
    base = FOLDER / "zeros.safetensors"
    if not base.exists():
        first = load(next(iter(tasks.values())))
        save({name: torch.zeros_like(tensor) for name, tensor in first.items()}, base)
    return Bed(
        "encoder-adapters",
        "Text encoder, eight LoRA adapters",
        base,
        tasks,
        _evaluate_adapter,
        "The same adapters, packed as they are: the factors A and B are superposed. Bytes are in "
        "units of one adapter in float32, and one such unit is counted for the base in every row, "
        "though it lies outside. Factors of rank 16 are too thin to be sealed: a bank asked for 2 "
        "bits keeps 16.",
        folders=folders,
        outside=True,
    )
