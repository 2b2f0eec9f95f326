"""Statistics that no models have, under true digests: `verify` names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from randes_cli import PackOptions, remove, verify
from randes_cli.core.arrays import F64
from randes_cli.files.bank.file import BankFile
from randes_cli.stats.plausible import impossible
from randes_cli.stats.stored import stored_statistics
from tests.checkpoints import Packer, perturbed, random_state
from tests.independent.bad import joined, parts
from tests.life.models import ONE

SHAPES = {"w": [40, 32], "h.0.v": [32, 32], "h.1.v": [32, 32], "norm": [32]}


def bank_of(packer: Packer, bits: int) -> Path:
    base = random_state(SHAPES, seed=1)
    tasks = {f"t{n}": perturbed(base, seed=n, scale=10.0**-n) for n in range(1, 4)}
    return packer.pack(base, tasks, PackOptions(bits=bits, groups=2))


def _longer(values: F64) -> None:
    values[0, 0, 0, 2] = values[0, 0, 2, 0] = 2 * np.sqrt(values[0, 0, 0, 0] * values[0, 0, 2, 2])


def _lopsided(values: F64) -> None:
    values[0, 1, 0, 2] *= 0.5


def _negative(values: F64) -> None:
    values[0, 0, 1, 1] *= -1


def _all_kept(values: F64) -> None:
    values[0, 1, 0] *= 1.001  # ⟨Δ, q⟩ beyond ‖Δ‖ ‖q‖


def _long_sum(values: F64) -> None:
    values[:, 0] *= 100  # beyond the lengths of its deltas together


def _more_than_there_is(values: F64) -> None:
    values[1, 1] *= 2  # ⟨S, Q⟩ beyond ‖S‖ ‖Q‖


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("stats/gram", _longer),
        ("stats/gram", _lopsided),
        ("stats/gram", _negative),
        ("stats/rounded", _all_kept),
        ("stats/sealed/0", _long_sum),
        ("stats/sealed/0", _more_than_there_is),
    ],
)
def test_forged_statistics_are_named(
    packer: Packer, key: str, change: Callable[[F64], None]
) -> None:
    bank = bank_of(packer, 2)
    tensors = parts(bank.read_bytes())
    dtype, shape, data = tensors[key]
    values = np.frombuffer(data, "<f8").reshape(shape).copy()
    bank.write_bytes(joined(tensors, "2"))
    assert verify(bank, run=ONE).damaged == ()
    change(values)
    bank.write_bytes(joined({**tensors, key: (dtype, shape, values.tobytes())}, "2"))
    for quick in (False, True):
        assert verify(bank, run=ONE, quick=quick).damaged == (key,)


@pytest.mark.parametrize("bits", [16, 8, 3])
def test_nothing_is_impossible_of_what_was_packed(packer: Packer, bits: int) -> None:
    path = bank_of(packer, bits)
    for _ in ("packed", "the longest delta forgotten"):
        with BankFile(path) as bank:
            assert not list(impossible(bank.manifest, stored_statistics(bank)))
            longest = bank.manifest.tasks[0].name
        remove(path, longest, run=ONE, forget=True)
