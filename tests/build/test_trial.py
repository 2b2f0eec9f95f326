"""A dry run of few bits tries the cut on a sample: what it says is what packing measures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from randes_cli import PackOptions, RunOptions, Transform, pack
from tests.checkpoints import Packer, save

ONE = RunOptions(threads=1)
#: Beyond the sample of 2^16 elements: of long rows, of many short ones, and of a higher rank.
SHAPES = {"long.weight": (48, 3000), "short.weight": (2000, 80), "conv.weight": (96, 160, 3, 3)}


def models(sparse: float) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """A base, and a dense delta and one of few elements from it."""
    chance = torch.Generator().manual_seed(5)
    base = {name: torch.randn(shape, generator=chance) for name, shape in SHAPES.items()}
    made: dict[str, dict[str, torch.Tensor]] = {"dense": {}, "sparse": {}}
    for name, shape in SHAPES.items():
        rows = 1 + torch.rand((shape[0], *[1] * (len(shape) - 1)), generator=chance)
        delta = 0.01 * rows * torch.randn(shape, generator=chance)
        few = torch.rand(shape, generator=chance) < sparse
        made["dense"][name] = base[name] + delta
        made["sparse"][name] = base[name] + 0.05 * torch.randn(shape, generator=chance) * few
    return base, made


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize(("share", "preset"), [(1, "hankel"), (2, "two-sided"), (1, "srsf")])
def test_a_dry_run_on_samples_says_what_packing_measures(
    tmp_path: Path, bits: int, share: int, preset: str
) -> None:
    base, tasks = models(0.03)
    source, inputs = save(base, tmp_path / "base.safetensors"), Packer(tmp_path).inputs(tasks)
    options = PackOptions(Transform.from_preset(preset), bits=bits, share=share)
    out = tmp_path / "bank.randes"
    dry = pack(str(source), inputs, out, options, ONE, dry_run=True)
    done = pack(str(source), inputs, out, options, ONE)
    for said, found in zip(dry.tasks, done.tasks, strict=True):
        assert said.predicted_cosine == pytest.approx(found.predicted_cosine, abs=0.02)


def test_a_dry_run_raises_the_step_of_a_sum_that_passes_its_range(tmp_path: Path) -> None:
    chance, spike = torch.Generator().manual_seed(6), torch.zeros(64, 64)
    spike[5, 7] = 3.0
    deltas = (0.01 * torch.randn(64, 64, generator=chance) + spike for _ in range(16))
    inputs = Packer(tmp_path).inputs({f"t{n}": {"w": delta} for n, delta in enumerate(deltas)})
    source = str(save({"w": torch.zeros(64, 64)}, tmp_path / "base.safetensors"))
    out, options = tmp_path / "bank.randes", PackOptions(Transform.from_preset("ta"), bits=2)
    dry = pack(source, inputs, out, options, ONE, dry_run=True)
    done = pack(source, inputs, out, options, ONE)
    for said, found in zip(dry.tasks, done.tasks, strict=True):
        assert said.predicted_cosine == pytest.approx(found.predicted_cosine, abs=1e-4)
