"""Random banks, and what is true of them: read from the files by the stock library, in float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from randes_cli.core.arrays import F64
from tests.checkpoints import State, same_bits, save

SHAPES = {
    **{f"layers.{layer}.weight": (64, 48) for layer in range(2)},
    "embed.weight": (40, 48),
    "norm.weight": (96,),
    "layers.0.conv.weight": (16, 4, 3, 3),
    "head.weight": (5, 48),
}
KINDS = ("dense", "sparse", "rows", "low rank", "shared", "outlier", "one layer", "half zero")
MORE = ("zero", "same", "heavy")
TRANSFORMS = ("two-sided", "hankel", "srsf", "rsf", "s", "shift", "ta")
_NONE = np.zeros(0)


@dataclass
class Family:
    """A random base, and fine-tunes of sizes 1 : 10^`spread` of all kinds."""

    rng: np.random.Generator
    folder: Path
    states: dict[str, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = self.rng
        self.dtype = torch.float32 if rng.random() < 0.75 else torch.bfloat16
        self.spread, self.size = float(rng.choice([0, 1, 2, 3, 6])), float(rng.choice([0.01, 1e-3]))
        self.only = str(rng.choice(KINDS)) if rng.random() < 0.4 else None
        self.common = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
        self.base: State = {
            name: torch.from_numpy(0.02 * rng.standard_normal(shape)).to(self.dtype)
            for name, shape in SHAPES.items()
        }
        self.base["steps"] = torch.arange(3)
        self.source = save(self.base, self.folder / "base.safetensors")

    def task(self, name: str) -> Path:
        """The file of another fine-tune."""
        rng, kind = self.rng, self.only or str(self.rng.choice(KINDS + MORE))
        size = self.size * 10.0 ** -rng.uniform(0, self.spread)
        if kind == "same" and self.states:
            self.states[name] = self.states[next(iter(self.states))]
        else:
            far = str(rng.choice(list(SHAPES)))
            made = {key: self._moved(kind, key, far, size) for key in SHAPES}
            self.states[name] = {"steps": self.base["steps"].clone(), **made}
            if rng.random() < 0.15:
                self.states[name]["own.weight"] = torch.randn(3, 4)
            if rng.random() < 0.15:
                del self.states[name]["head.weight"]
        return save(self.states[name], self.folder / f"{name}.safetensors")

    def _moved(self, kind: str, name: str, far: str, size: float) -> torch.Tensor:
        rng, shape = self.rng, SHAPES[name]
        value = rng.standard_normal(shape)
        if kind == "sparse":
            value *= rng.random(shape) < 0.02
        elif kind == "rows":
            value *= (rng.random(shape[0]) < 0.1).reshape(-1, *[1] * (len(shape) - 1))
        elif kind == "low rank" and value.ndim > 1:
            rows = int(np.prod(shape[:-1]))
            thin = rng.standard_normal((rows, 2)) @ rng.standard_normal((2, shape[-1]))
            value = thin.reshape(shape)
        elif kind == "shared":
            value = 0.8 * self.common[name] + 0.6 * value
        elif kind == "outlier" and name == far:
            value.flat[rng.integers(value.size)] = 10.0 ** rng.uniform(1, 5)
        elif kind == "one layer" and name == far:
            value *= 1000
        elif kind == "zero" or (kind == "half zero" and rng.random() < 0.5):
            value *= 0
        elif kind == "heavy":
            value = rng.standard_t(3, shape)
        moved = self.base[name].float() + torch.from_numpy((size * value).astype(np.float32))
        return moved.to(self.dtype)

    def options(self) -> list[str]:
        """Words of `pack`."""
        rng = self.rng
        made = ["--groups", str(rng.integers(1, 4))]
        for words, share in (
            (["--transform", str(rng.choice(TRANSFORMS))], 0.4),
            (["--bits", str(rng.choice([16, 8, 4, 3, 2, 1]))], 0.8),
            (["--share", f"1/{rng.choice([2, 4, 8])}"], 0.4),
            (["--capacity", str(rng.choice([1, 4, 400]))], 0.2),
            (["--base", "reference"], 0.15),
            (["--max-shard-size", "20kB"], 0.2),
            (["--targets", "layers"], 0.15),
        ):
            made += words if rng.random() < share else []
        return made


def size(state: State) -> int:
    return sum(value.numel() * value.element_size() for value in state.values())


def file_bytes(bank: Path) -> int:
    """Of a bank and its shards."""
    beside = bank.with_name(f"{bank.name}.d")
    files = [bank, *(beside.iterdir() if beside.is_dir() else ())]
    return sum(path.stat().st_size for path in files)


def bytes_of(bank: Path, *kinds: str) -> int:
    """Of the tensors of some kinds, in all files of a bank."""
    beside = bank.with_name(f"{bank.name}.d")
    files = [bank, *(beside.iterdir() if beside.is_dir() else ())]
    held = [item for path in files for item in load_file(path).items()]
    return size({key: value for key, value in held if key.partition("/")[0] in kinds})


def flat(value: torch.Tensor) -> F64:
    made: F64 = value.double().numpy().ravel()
    return made


def cosine(a: F64, b: F64) -> float:
    """0 where one is zero, 1 where both are."""
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else float(not a.any() and not b.any())


class Came:
    """A task that came back: its true delta and the retrieved one, of what is superposed.

    `exact` are the tensors that are kept exactly.
    """

    def __init__(self, original: State, base: State, exact: set[str], path: str) -> None:
        back = load_file(path)
        self.back = back
        self.names = [
            name
            for name, value in original.items()
            if name in base and name not in exact and not same_bits(value, base[name])
        ]
        self.true = {name: flat(original[name]) - flat(base[name]) for name in self.names}
        self.found = {name: flat(back[name]) - flat(base[name]) for name in self.names}
        self.equal = sum(same_bits(back[name], value) for name, value in original.items())

    @property
    def both(self) -> tuple[F64, F64]:
        pair = (self.true, self.found)
        return tuple(np.concatenate([*one.values(), _NONE]) for one in pair)  # type: ignore[return-value]

    @property
    def cosine(self) -> float:
        true, found = self.both
        return 1.0 if not self.names else cosine(true, found) if found.any() else 0.0

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.both[0]))

    @property
    def error(self) -> float:
        true, found = self.both
        return float(np.linalg.norm(found - true)) / (self.norm or 1.0)


def pair_cosine(one: Came, two: Came) -> float:
    """Of two tasks' deltas over all that they changed."""
    dot = sum(float(one.true[n] @ two.true[n]) for n in one.true.keys() & two.true.keys())
    scale = one.norm * two.norm
    return dot / scale if scale > 0 else 0.0
