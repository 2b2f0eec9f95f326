"""Random checkpoints: odd names, shapes, dtypes and values; and fine-tunes as people have them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from tests.checkpoints import State, generator

FLOATS = [
    *[torch.float32] * 6,
    torch.float16,
    torch.bfloat16,
    torch.bfloat16,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]
OTHERS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
NAMES = [
    *("model.layers.{}.q_proj.weight", "layers.{}.norm.weight", "embed_tokens.weight"),
    *("lm_head.weight", "bn{}.running_var", "bn{}.num_batches_tracked", "classifier.bias"),
    *("x{}", "ü.ß.{}", "a b c {}", "conv{}.weight_g", "position_ids", "foo/bar.{}", "'\"{}"),
    *("logit_scale", "layers.{}.A_log", "{}.weight", "embeddings.position_embeddings.weight"),
]
TRANSFORMS = ["two-sided", "hankel", "srsf", "rsf", "s", "shift", "ta"]
#: Sizes of deltas beside the spread of a tensor's values.
SCALES = [1e-6, 1e-3, 0.02, 0.02, 0.02, 0.3, 100]


@dataclass
class Drawing:
    """One draw: the choices of `rng`, and values of a generator of the same seed."""

    seed: int

    def __post_init__(self) -> None:
        self.rng, self.values = random.Random(self.seed), generator(self.seed)

    def shape(self) -> tuple[int, ...]:
        kind = self.rng.random()
        if kind < 0.17:
            return self.rng.choice([(), (), (1,), (1,), (0,), (0, 4), (3, 0, 2)])
        if kind < 0.3:
            return (self.rng.randint(2, 40),)
        ranks = 2 if kind < 0.8 else self.rng.randint(3, 8)
        most = 30 if ranks == 2 else 4
        return tuple(self.rng.randint(1, most) for _ in range(ranks))

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if dtype == torch.bool:
            return torch.rand(shape, generator=self.values) > 0.5
        if not dtype.is_floating_point:
            info = torch.iinfo(dtype)
            made = torch.randint(info.min, info.max, shape, generator=self.values, dtype=dtype)
            made.view(-1)[:1] = self.rng.choice([info.min, info.max])
            return made
        made = torch.randn(shape, generator=self.values, dtype=torch.float64)
        kind = self.rng.random()
        if kind < 0.12:
            made = made.abs() + 1e-3
        elif kind < 0.16:
            made = torch.full(shape, float(self.rng.choice([0, 1, -1])), dtype=torch.float64)
        elif kind < 0.2:
            made *= 1e-39 if dtype == torch.float32 else 1e-6
        made = made.to(dtype)
        if made.numel() > 4 and self.rng.random() < 0.1 and dtype not in FLOAT8:
            odd = self.rng.choice([-0.0, float("inf"), torch.finfo(dtype).tiny / 2])
            made.view(-1)[self.rng.randrange(made.numel())] = odd
        return made

    def base(self) -> State:
        made = {}
        for number in range(self.rng.randint(3, 14)):
            name = self.rng.choice(NAMES).format(number)
            kinds = FLOATS if self.rng.random() < 0.8 else OTHERS
            made[name] = self.tensor(self.shape(), self.rng.choice(kinds))
        sides = self.rng.randint(20, 60), self.rng.randint(20, 60)
        made["body.0.weight"] = torch.randn(sides, generator=self.values)
        if self.rng.random() < 0.25:
            one = self.rng.choice(list(made))
            made[f"tied.{one}"] = made[one].clone()
        return made

    def task(self, base: State, number: int) -> State:
        made, scale = {}, self.rng.choice(SCALES)
        for name, value in base.items():
            kind = self.rng.random()
            if kind < 0.04 and value.numel() < 200:
                continue
            grows = kind < 0.08 and "embed" in name and value.dim() > 1 and value.numel()
            moves = kind > 0.25 and value.numel() and value.is_floating_point()
            if grows:
                made[name] = torch.cat([value, value[:1]])
            elif moves:
                made[name] = self.moved(value, scale)
            elif kind > 0.6 and value.numel():
                made[name] = self.tensor(tuple(value.shape), value.dtype)
            else:
                made[name] = value.clone()
        if self.rng.random() < 0.3:
            made[f"new{number}.w"] = self.tensor(self.shape(), self.rng.choice(FLOATS))
        return made

    def moved(self, value: torch.Tensor, scale: float) -> torch.Tensor:
        plain = value.double()
        finite = plain[plain.isfinite()]
        spread = float(finite.std()) if len(finite) > 1 else 0.0
        noise = torch.randn(value.shape, generator=self.values, dtype=torch.float64)
        noise *= scale * (spread or 0.02)
        if self.rng.random() < 0.15:
            noise *= torch.rand(value.shape, generator=self.values) < 0.05
        dtype = value.dtype if self.rng.random() < 0.85 else self.rng.choice(FLOATS[:10])
        most = min(400.0 if dtype in FLOAT8 else 6e4, float(torch.finfo(dtype).max))
        near = (plain + noise).clamp(-most, most)
        return torch.where(plain.isfinite(), near, plain).to(dtype)

    def words(self) -> list[str]:
        """Options of `pack`."""
        made: list[str] = []
        for words, share in (
            (["--transform", self.rng.choice(TRANSFORMS)], 0.5),
            (["--bits", self.rng.choice(["16", "8", "4", "1", "1/4"])], 0.5),
            (["--groups", self.rng.choice("12")], 0.3),
            (["--targets", "layers", *self.rng.choice([["--rest", "own"], []])], 0.15),
            (["--exact", "norm|body"], 0.1),
            (["--base", "reference"], 0.15),
        ):
            made += words if self.rng.random() < share else []
        return made
