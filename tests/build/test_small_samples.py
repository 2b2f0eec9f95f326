"""Samples of many small tensors at a time have the numbers of one after the other, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from randes_cli import pack
from randes_cli.build.inputs.inputs import Inputs, open_inputs
from randes_cli.build.relate import Echo
from randes_cli.build.samples import sample
from randes_cli.build.samples.grams import Grams, gram
from randes_cli.build.samples.sample import gather_spreads
from randes_cli.build.samples.small import small_grams, small_lists
from randes_cli.files.bank.file import BankFile
from randes_cli.files.source import Sample
from randes_cli.plan import GRAM_SAMPLE, STEP_SAMPLE, Rect, Unit
from randes_cli.specs import PackOptions, TaskInput, Transform
from randes_cli.workers import no_progress
from tests.checkpoints import PRESET_NAMES, random_state, save

_SHAPES = {"a": (16, 16), "b": (33,), "c": (8, 24), "d": (2, 3, 5), "e": (1, 2), "big": (150, 120)}
_KINDS = {"f": torch.float16, "g": torch.bfloat16, "h": torch.float64}


def _model(seed: int) -> dict[str, torch.Tensor]:
    layers = range(7)
    made = random_state(
        {f"layers.{n}.{name}.weight": shape for n in layers for name, shape in _SHAPES.items()},
        seed=seed,
    )
    for name, kind in _KINDS.items():
        shapes = {f"layers.{n}.{name}.weight": (4, 9) for n in layers}
        made |= random_state(shapes, seed=seed, dtype=kind)
    return made


@pytest.fixture(params=PRESET_NAMES)
def inputs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inputs]:
    """Three tasks: one whole, one that lacks tensors, one with equal and with other dtypes."""
    models = [_model(seed) for seed in range(4)]
    for layer in (1, 4):
        del models[2][f"layers.{layer}.a.weight"]
    models[3]["layers.2.c.weight"] = models[0]["layers.2.c.weight"]
    models[3]["layers.3.f.weight"] = models[3]["layers.3.f.weight"].float()
    paths = [save(model, tmp_path / f"m{n}.safetensors") for n, model in enumerate(models)]
    tasks = [TaskInput(path.stem, str(path)) for path in paths[1:]]
    options = PackOptions(transform=Transform.from_preset(request.param))
    with ExitStack() as stack:
        yield open_inputs(stack, str(paths[0]), tasks, options, keep_going=False, fetch=True)


@pytest.mark.parametrize("first", [0, 2])
def test_gram_matrices_and_tails_are_those_of_each_tensor_by_itself(
    inputs: Inputs, first: int
) -> None:
    base, tasks, seen = inputs.base.source, inputs.participants, 0
    slow = {unit: gram(base, tasks, unit, first) for unit in inputs.units}
    for spots in small_lists(inputs.units, len(tasks), GRAM_SAMPLE[0], far=False):
        if isinstance(spots, Unit):
            assert spots.rows * spots.cols > GRAM_SAMPLE[0]
            continue
        plain, met, tails = small_grams(base, tasks, spots, first)
        for at, (unit, position) in enumerate(spots):
            seen += 1
            assert np.array_equal(plain[at], slow[unit][0][position])
            assert np.array_equal(met[at], slow[unit][1][position])
            assert np.array_equal(tails[:, at], slow[unit][2][:, position])
    assert seen == 8 * 7


@pytest.mark.parametrize("steps", [0, 1, 4, 100])
def test_matrices_of_a_cell_are_added_in_the_order_of_its_tensors(
    inputs: Inputs, steps: int
) -> None:
    base, tasks = inputs.base.source, inputs.participants
    names = [name for unit in inputs.units for name in unit.names]
    cells = [("all", tuple(names))]
    grams = Grams(base, tasks, inputs.units, cells, names)
    for step in islice(grams.beside(), steps):  # while a pass is under way
        step()
    found, _ = grams.gather(no_progress)
    types: dict[str, list[Unit]] = {}
    for unit in inputs.units:
        types.setdefault(unit.names[0].split(".")[2], []).append(unit)
    wanted = np.zeros((2, 3, 3))
    for kind in types.values():
        for unit in sorted(kind, key=lambda unit: unit.names):
            plain, met, _ = gram(base, tasks, unit)
            for position in range(unit.layers):
                wanted[0] += plain[position]
                wanted[1] += met[position]
    assert np.array_equal(found[0], wanted)


@pytest.mark.parametrize(("threads", "few"), [(1, 1), (1, 16), (8, 1)])
def test_spreads_are_those_of_each_unit_by_itself(
    inputs: Inputs, threads: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_FEW", few)
    base, tasks = inputs.base.source, inputs.participants
    done = list[tuple[str, int, int]]()
    found = gather_spreads(
        base, tasks, inputs.units, lambda *told: done.append(told), threads=threads
    )
    assert sum(count for _, count, _ in done) == done[0][2]
    rows = zip(inputs.units, found.rms.tolist(), found.peaks.tolist(), strict=True)
    for unit, rms, largest in rows:
        assert unit.rows * unit.cols <= STEP_SAMPLE[0]
        squares, sizes, peak = [0.0] * 3, [0] * 3, 0.0
        for name in unit.names:
            for n, task in enumerate(tasks):
                if name in task.fit.superposed:
                    delta = _values(task.source, name) - _values(base, name)
                    squares[n] += float(np.square(delta, dtype=np.float64).sum())
                    sizes[n] += delta.size
                    peak = max(peak, float(np.abs(delta).max()))
        means = [a / n if n else 0.0 for a, n in zip(squares, sizes, strict=True)]
        assert (rms, largest) == (max(means) ** 0.5, peak)


def _values(source: Any, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A tensor as one read gives it."""
    tensor = source.tensors[name]
    raw = np.empty(tensor.nbytes, np.uint8)
    source.read(name, 0, raw)
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    values = torch.frombuffer(raw, dtype=kinds.get(tensor.dtype, torch.float64))
    return values.float().numpy()


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("bits", [8, 16])
def test_stored_deltas_are_read_together_as_one_after_the_other(
    preset: str, bits: int, tmp_path: Path
) -> None:
    paths = [save(_model(seed), tmp_path / f"m{seed}.safetensors") for seed in range(3)]
    options = PackOptions(transform=Transform.from_preset(preset), bits=bits, groups=2)
    pack(paths[0], paths[1:], tmp_path / "bank.randes", options)
    seen = 0
    with BankFile(tmp_path / "bank.randes") as bank:
        for task in bank.manifest.tasks:
            one = Echo(bank, task)
            for unit in dict.fromkeys(bank.units.values()):
                found = one.many(None, unit.names, unit)
                sample = Sample(None, [Rect(0, unit.rows, 0, unit.cols, unit.cols)])
                slow = [one.delta(sample, name) for name in unit.names]
                assert found is not None
                assert (
                    found.tobytes() == np.stack([row for row in slow if row is not None]).tobytes()
                )
                seen += len(unit.names)
    assert seen == 2 * 7 * 9
