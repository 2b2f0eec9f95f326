"""A dry run says no where the run says no: with the same words, as far as its sample tells."""

from __future__ import annotations

import re

import pytest
import torch

from randes_cli import PackOptions, RunOptions, add, pack
from randes_cli.errors import CheckpointError, MismatchError, RandesError
from randes_cli.specs import EditOptions
from tests.checkpoints import Packer, State, perturbed, random_state

ONE = RunOptions(threads=1)
SHAPES = {"w": [48, 32], "head": [20, 32]}


def words(error: RandesError) -> str:
    """A message without its figures, which a sample may have smaller."""
    return re.sub(r"\(\d+ steps", "(steps", str(error))


@pytest.mark.parametrize("size", [1e37, 3e38])
def test_a_delta_beyond_every_grid(packer: Packer, size: float) -> None:
    base = random_state(SHAPES, seed=1)
    task = perturbed(base, seed=1)
    task["head"] = torch.where(base["head"] > 0, size, base["head"])
    said = []
    for dry in (True, False):
        packer.pack(base, {"a": perturbed(base, seed=2)})
        put = packer.inputs({"a": task})
        with pytest.raises(CheckpointError, match="'head': a task differs by more") as error:
            path = packer.folder / "base.safetensors"
            pack(path, put, packer.folder / "other.randes", run=ONE, dry_run=dry)
        said.append(words(error.value))
    assert said[0] == said[1] and "--exact" in said[0]


@pytest.mark.parametrize(("bits", "scale"), [(16, 20.0), (8, 1.0)])
def test_an_added_delta_beyond_the_range_of_its_sum(
    packer: Packer, bits: int, scale: float
) -> None:
    base = random_state(SHAPES, seed=1)
    bank = packer.pack(base, {"a": perturbed(base, seed=1)}, PackOptions(bits=bits))
    far: State = perturbed(base, seed=2, scale=scale)
    before, said = bank.read_bytes(), []
    for dry in (True, False):
        with pytest.raises(MismatchError, match=f"would overflow its {bits}-bit") as error:
            add(bank, packer.inputs({"b": far}), EditOptions(dry_run=dry), ONE)
        said.append(words(error.value))
    assert said[0] == said[1] and bank.read_bytes() == before
