"""A task's factors put together again are what it retrieves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli import PackOptions, RunOptions, Transform
from randes_cli.files.bank.file import BankFile
from randes_cli.files.base import open_base
from randes_cli.read.factors import Factors, Pattern, factors_of, superposition
from randes_cli.read.retrieve import Retrieval
from tests.checkpoints import Packer, State, perturbed, random_state, retrieve

SHAPES = {
    "layers.0.weight": [40, 64],
    "layers.1.weight": [40, 64],
    "layers.2.weight": [40, 64],
    "conv.weight": [16, 8, 3, 3],
    "norm.weight": [40],
}


def packed(packer: Packer, options: PackOptions) -> tuple[Path, State]:
    base = random_state(SHAPES)
    tasks = {name: perturbed(base, seed=seed) for seed, name in enumerate("abc")}
    tasks["b"]["norm.weight"] = base["norm.weight"].clone()
    return packer.pack(base, tasks, options, run=RunOptions(threads=1)), base


def factors(bank: BankFile, task: str, name: str) -> Factors | Pattern | None:
    return factors_of(Retrieval(bank, None, bank.task(task)), name)


def product(bank: BankFile, task: str, name: str) -> np.ndarray:
    """λ · 2^e · diag(a · scales) S diag(b · scales), in float64."""
    retrieval = Retrieval(bank, open_base(bank, None), bank.task(task))
    found = factors_of(retrieval, name)
    assert isinstance(found, Factors)
    down, across = found.a.astype(float), found.b.astype(float)
    if found.scales is not None:
        down, across = down * found.scales[0], across * found.scales[1]
    stored = np.asarray(superposition(retrieval, name), np.float64)
    assert stored.shape == found.view
    return np.asarray(retrieval.coefficient * 2.0**found.step * down[:, None] * stored * across)


@pytest.mark.parametrize("preset", ["two-sided", "srsf", "s", "shift", "ta"])
@pytest.mark.parametrize("bits", [16, 8, 2])
def test_base_plus_the_product_of_the_factors_is_the_retrieval(
    packer: Packer, preset: str, bits: int
) -> None:
    options = PackOptions(transform=Transform.from_preset(preset), bits=bits, groups=2)
    path, base = packed(packer, options)
    names = [name for name in SHAPES if preset != "srsf" or name != "conv.weight"]
    with BankFile(path) as bank:
        for task in "abc":
            found = Retrieval(bank, None, bank.task(task))
            for name in names:
                if found.superposed(name):
                    made = product(bank, task, name).reshape(SHAPES[name])
                    expected = retrieve(path, task)[name].double() - base[name].double()
                    assert np.allclose(made, expected, atol=1e-6)


def test_signs_are_plus_and_minus_one_in_both_directions(packer: Packer) -> None:
    path, _ = packed(packer, PackOptions(transform=Transform.from_preset("two-sided")))
    with BankFile(path) as bank:
        found = factors(bank, "a", "conv.weight")
    assert isinstance(found, Factors)
    assert found.view == (16, 72)
    assert (found.a.shape, found.b.shape) == ((16,), (72,))
    assert set(found.a.tolist()) == set(found.b.tolist()) == {-1, 1}
    assert (found.group, found.held, found.scales) == (0, "conv.weight", None)


def test_an_unchanged_tensor_has_no_factors(packer: Packer) -> None:
    path, _ = packed(packer, PackOptions(transform=Transform.from_preset("two-sided")))
    with BankFile(path) as bank:
        assert factors(bank, "b", "norm.weight") is None
        assert factors(bank, "a", "norm.weight") is not None


def test_signs_that_do_not_factor_are_a_pattern(packer: Packer) -> None:
    path, _ = packed(packer, PackOptions(transform=Transform.from_preset("hankel")))
    with BankFile(path) as bank:
        found = factors(bank, "a", "layers.0.weight")
    assert isinstance(found, Pattern)
    assert found.hankel and found.signs.shape == (40 + 64 - 1,)


def test_a_batch_of_two_tasks_takes_one_product_with_the_superposition(packer: Packer) -> None:
    path, base = packed(packer, PackOptions(transform=Transform.from_preset("two-sided"), bits=2))
    name, inputs = "layers.1.weight", torch.randn(2, 64, dtype=torch.float64)
    with BankFile(path) as bank:
        retrievals = [Retrieval(bank, None, bank.task(task)) for task in "ab"]
        found = [factors_of(one, name) for one in retrievals]
        shared = torch.from_numpy(superposition(retrievals[0], name)).double()
    sides = []
    for factor in found:
        assert isinstance(factor, Factors)
        assert factor.scales is not None
        rows, columns = factor.scales
        sides.append((2.0**factor.step * factor.a * rows, factor.b * columns))
    down, across = (torch.from_numpy(np.stack(side)) for side in zip(*sides, strict=True))
    mixed = inputs @ base[name].double().T + down * ((inputs * across) @ shared.T)
    for row, task in enumerate("ab"):
        expected = inputs[row] @ retrieve(path, task)[name].double().T
        assert torch.allclose(mixed[row], expected, atol=1e-5)
