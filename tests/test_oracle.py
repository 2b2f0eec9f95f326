"""Whole banks against the oracle: what is stored, and what comes back, element by element."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from randes_cli import PackOptions, Transform
from randes_cli.files.bank.file import BankFile
from randes_cli.specs import Rest
from tests.checkpoints import (
    PRESET_NAMES,
    Packer,
    State,
    layered_shapes,
    perturbed,
    random_state,
    retrieve,
    same_bits,
    stored_sums,
)
from tests.oracle import OracleUnit, oracle_units, retrieval, superposition

SEED = 42
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "every-2nd": {"every": 2},
    "attn, rest summed": {"targets": "attn"},
    "mlp, rest own": {"targets": "mlp", "rest": Rest.own},
    "a regular expression, every 3rd, rest own": {
        "targets": r"(attn|norm)\.weight$",
        "every": 3,
        "rest": Rest.own,
    },
}
SHAPES = layered_shapes(layers=4, width=3, hidden=5) | {"conv.weight": [4, 2, 3, 2]}


def on_grid(state: State, bits: int = 18) -> State:
    """Values as multiples of 2^-bits, so that float32 differences and sums of them are exact."""
    return {name: torch.round(value * 2**bits) / 2**bits for name, value in state.items()}


def arrays(state: State) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in state.items()}


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_transform_is_orthogonal(preset: str, variant: str) -> None:
    transform = Transform.from_preset(preset, **VARIANTS[variant])
    for unit in oracle_units(SHAPES, transform):
        for index in range(3):
            made = unit.matrix(SEED + index, index)
            assert np.array_equal(made @ made.T, np.eye(len(made)))


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bits", [16, 8])
def test_a_bank_stores_and_returns_what_the_matrices_say(
    packer: Packer, preset: str, variant: str, bits: int
) -> None:
    transform = Transform.from_preset(preset, **VARIANTS[variant])
    base = random_state(SHAPES, seed=1)
    tasks = {f"t{k}": perturbed(base, seed=k, scale=0.01 * (k + 1)) for k in range(3)}
    bank = packer.pack(base, tasks, PackOptions(transform=transform, bits=bits))
    sums, units = stored_sums(bank), oracle_units(SHAPES, transform)
    with BankFile(bank) as opened:
        steps = dict(opened.manifest.steps)
    assert set(sums) == {name for unit in units for name in unit.names} == set(steps)
    stored = [check_stored(unit, base, tasks, sums, steps) for unit in units]
    for coefficient, (index, task) in product((1.0, 0.7), enumerate(tasks)):
        found = retrieve(bank, task, coefficient=coefficient)
        for unit, held in zip(units, stored, strict=True):
            scale = coefficient * 2.0 ** steps[unit.names[0]]
            expected = retrieval(unit, arrays(base), held, SEED + index, index, scale)
            assert np.array_equal(unit.joined(arrays(found)), expected)
        for name in set(SHAPES) - set(sums):
            assert same_bits(found[name], tasks[task][name])


def check_stored(
    unit: OracleUnit,
    base: State,
    tasks: dict[str, State],
    sums: State,
    steps: dict[str, int],
) -> np.ndarray:
    """Compare a unit's stored integers with the oracle's; return them."""
    stored = unit.joined(arrays(sums)).astype(np.float64)
    seeds = [SEED + index for index in range(len(tasks))]
    states = [arrays(state) for state in tasks.values()]
    assert len({steps[name] for name in unit.names}) == 1
    exponent = steps[unit.names[0]]
    assert np.array_equal(stored, superposition(unit, arrays(base), states, seeds, exponent))
    return stored


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("bits", [16, 8])
def test_a_bank_of_one_task_returns_it_to_within_half_a_step(
    packer: Packer, preset: str, bits: int
) -> None:
    base = on_grid(random_state(SHAPES, seed=1))
    task = on_grid(perturbed(base, seed=2))
    options = PackOptions(transform=Transform.from_preset(preset), bits=bits)
    bank = packer.pack(base, {"only": task}, options)
    found = retrieve(bank, "only")
    with BankFile(bank) as opened:
        steps = opened.manifest.steps
    for name, value in task.items():
        assert float((found[name] - value).abs().max()) <= 2.0 ** steps[name] / 2


def test_the_paper_s_shift_moves_the_second_task_one_layer_deeper(packer: Packer) -> None:
    base = {f"layers.{k}.w": torch.zeros(2, 2) for k in range(3)}
    first = dict(base)
    second = {f"layers.{k}.w": torch.full((2, 2), float(k + 1)) for k in range(3)}
    bank = packer.pack(base, {"a": first, "b": second}, "shift")
    sums = stored_sums(bank)
    unit = sums["layers.1.w"][0, 0]
    assert [int(sums[f"layers.{k}.w"][0, 0] / unit) for k in range(3)] == [3, 1, 2]
