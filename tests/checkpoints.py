"""Small checkpoints for tests: random models, their fine-tunes, and banks of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, Transform, pack
from randes_cli.files.bank.file import BankFile
from randes_cli.reports import PackReport
from tests.independent.judge import judge

State = dict[str, torch.Tensor]

PRESET_NAMES = ("two-sided", "hankel", "srsf", "rsf", "s", "shift", "ta")


def generator(seed: int) -> torch.Generator:
    """A seeded generator of test data."""
    return torch.Generator().manual_seed(seed)


def random_state(
    shapes: Mapping[str, Sequence[int]], *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> State:
    """Normally distributed tensors of these shapes."""
    source = generator(seed)
    return {name: torch.randn(*shape, generator=source).to(dtype) for name, shape in shapes.items()}


def small_model(rows: int = 40) -> State:
    """An embedding, a matrix and a vector."""
    return random_state({"embed.weight": [rows, 8], "a.weight": [64, 64], "b.weight": [16]})


def perturbed(state: State, *, seed: int, scale: float = 0.01) -> State:
    """A fine-tune: every floating-point tensor moved a little, in its own dtype."""
    source = generator(1000 + seed)
    return {
        name: (value.float() + scale * torch.randn(value.shape, generator=source)).to(value.dtype)
        if value.is_floating_point()
        else value.clone()
        for name, value in state.items()
    }


def layered_shapes(layers: int = 4, width: int = 6, hidden: int = 10) -> dict[str, list[int]]:
    """Names and shapes of a small transformer: an embedding and layers of three tensors."""
    shapes = {"embed.weight": [9, width]}
    for layer in range(layers):
        shapes[f"layers.{layer}.attn.weight"] = [width, width]
        shapes[f"layers.{layer}.mlp.weight"] = [hidden, width]
        shapes[f"layers.{layer}.norm.weight"] = [width]
    return shapes


def save(state: State, path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, path, metadata)
    return path


def save_family(
    folder: Path, shapes: Mapping[str, Sequence[int]], names: Sequence[str], *, seed: int = 0
) -> list[Path]:
    """Write ``base.safetensors`` and a fine-tune of it of each name; the fine-tunes' paths."""
    base = random_state(shapes, seed=seed)
    save(base, folder / "base.safetensors")
    tasks = ((perturbed(base, seed=number), name) for number, name in enumerate(names))
    return [save(task, folder / f"{name}.safetensors") for task, name in tasks]


def save_sharded(state: State, folder: Path, *, shards: int = 2, stem: str = "model") -> Path:
    """Write a folder of shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(state)
    weights = {}
    for number in range(shards):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        save({name: state[name] for name in part}, folder / file)
        weights.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": 0}, "weight_map": weights}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    return folder


@dataclass
class Packer:
    """Writes state dicts to files below `folder` and packs them."""

    folder: Path
    reports: list[PackReport] = field(default_factory=list, repr=False)

    def inputs(
        self, tasks: Mapping[str, State], indices: Mapping[str, int] | None = None
    ) -> list[TaskInput]:
        """Write the tasks; their inputs, in the mapping's order."""
        made = []
        for name, state in tasks.items():
            path = save(state, self.folder / f"{name}.safetensors")
            made.append(TaskInput(name, str(path), (indices or {}).get(name)))
        return made

    def pack(
        self,
        base: State,
        tasks: Mapping[str, State],
        options: PackOptions | str | None = None,
        *,
        run: RunOptions | None = None,
        indices: Mapping[str, int] | None = None,
        out: str = "bank.randes",
    ) -> Path:
        """Pack into `folder/out`; `options` may be a preset's name."""
        if isinstance(options, str):
            options = PackOptions(transform=Transform.from_preset(options))
        source = save(base, self.folder / "base.safetensors")
        path = self.folder / out
        inputs = self.inputs(tasks, indices)
        run = run or RunOptions(threads=1)
        self.reports.append(pack(str(source), inputs, path, options, run, force=True))
        judge(path, source)
        return path


def retrieve(bank: Path, task: str, *, coefficient: float | None = None) -> State:
    """One task of a bank as a state dict."""
    with Bank.open(bank) as opened:
        return opened.retrieve(task, coefficient=coefficient)


def stored_sums(bank: Path) -> dict[str, torch.Tensor]:
    """The superpositions of a bank's first group, by tensor, as int64."""
    with BankFile(bank) as opened:
        made = {}
        for key, info in opened.header.tensors.items():
            if key.startswith("sum/0/"):
                dtype = torch.int16 if info.dtype == "I16" else torch.int8
                raw = torch.from_numpy(opened.read_whole(key))
                made[key.removeprefix("sum/0/")] = raw.view(dtype).reshape(info.shape).long()
        return made


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors agree in dtype, shape and every bit."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    pair = (left.contiguous().reshape(-1), right.contiguous().reshape(-1))
    first, second = (value.view(torch.uint8) for value in pair)
    return torch.equal(first, second)


def cosine(left: State, right: State) -> float:
    """Cosine of two models' deltas, over all their tensors."""
    pairs = [(left[name].double().reshape(-1), right[name].double().reshape(-1)) for name in left]
    dot = sum(float(a @ b) for a, b in pairs)
    norms = [sum(float(v @ v) for v in side) for side in zip(*pairs, strict=True)]
    return float(dot / (norms[0] * norms[1]) ** 0.5)


def delta(task: State, base: State) -> State:
    """Task minus base, in float32."""
    return {name: task[name].float() - base[name].float() for name in task}
