"""What a retrieval is worth: predicted from statistics, and measured."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from tests.checkpoints import Packer, State, cosine, delta, generator, random_state, retrieve

SHAPES = {f"layers.{k}.w": [48, 64] for k in range(8)}
ELEMENTS = 8 * 48 * 64


def family(correlation: float, count: int = 4) -> tuple[State, dict[str, State]]:
    """A base and tasks whose deltas have this pairwise cosine and different norms."""
    base = random_state(SHAPES)
    common = random_state(SHAPES, seed=1)
    tasks = {}
    for k in range(count):
        own = random_state(SHAPES, seed=10 + k)
        mix = {
            name: sqrt(correlation) * common[name] + sqrt(1 - correlation) * own[name]
            for name in base
        }
        tasks[f"t{k}"] = {name: base[name] + 0.01 * (k + 1) * mix[name] for name in base}
    return base, tasks


def measured_and_predicted(
    packer: Packer, preset: str, correlation: float
) -> list[tuple[float, float]]:
    base, tasks = family(correlation)
    bank = packer.pack(base, tasks, preset)
    return [
        (
            cosine(delta(tasks[s.name], base), delta(retrieve(bank, s.name), base)),
            s.predicted_cosine,
        )
        for s in packer.reports[-1].tasks
    ]


@pytest.mark.parametrize("preset", ["srsf", "hankel", "two-sided"])
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_decorrelating_transforms_retrieve_what_the_norms_predict(
    packer: Packer, preset: str, correlation: float
) -> None:
    norms = [k + 1 for k in range(4)]
    free = sqrt(sum(norm**2 for norm in norms))
    found = measured_and_predicted(packer, preset, correlation)
    for norm, (measured, predicted) in zip(norms, found, strict=True):
        error = 1 / sqrt(ELEMENTS / 48 if preset == "srsf" else ELEMENTS)
        assert abs(measured - norm / free) < 5 * error
        assert abs(measured - predicted) < 5 * error


def test_task_arithmetic_meets_the_correlation_of_the_deltas(packer: Packer) -> None:
    correlation, norms = 0.6, [k + 1 for k in range(4)]
    whole = sqrt(sum(a * b * (1 if a == b else correlation) for a in norms for b in norms))
    found = measured_and_predicted(packer, "ta", correlation)
    for norm, (measured, predicted) in zip(norms, found, strict=True):
        met = norm + correlation * (sum(norms) - norm)
        assert abs(measured - met / whole) < 5 / sqrt(ELEMENTS)
        assert abs(measured - predicted) < 0.01


def test_interference_of_correlated_deltas_points_one_way_only_without_transform(
    packer: Packer,
) -> None:
    """What the other tasks leave in a retrieval lies along the task's own delta under `ta`."""
    base, tasks = family(0.6)
    lean = {}
    for preset in ("ta", "srsf", "hankel", "two-sided"):
        found = retrieve(packer.pack(base, tasks, preset), "t0")
        own = delta(tasks["t0"], base)
        left = {name: value - own[name] for name, value in delta(found, base).items()}
        lean[preset] = cosine(own, left)
    assert lean["ta"] > 0.6
    assert abs(lean["srsf"]) < 5 / sqrt(ELEMENTS / 48)
    assert abs(lean["hankel"]) < 5 / sqrt(ELEMENTS / 8)
    assert abs(lean["two-sided"]) < 5 / sqrt(ELEMENTS / 8)


def test_rounding_lies_47_decibels_below_the_delta(packer: Packer) -> None:
    base, tasks = family(0.0, count=1)
    found = retrieve(packer.pack(base, tasks), "t0")
    own = delta(tasks["t0"], base)
    noise = sum(float((found[n] - tasks["t0"][n]).square().sum()) for n in base)
    signal = sum(float(own[n].square().sum()) for n in base)
    assert 44 < 10 * torch.log10(torch.tensor(signal / noise)) < 50.1


def test_the_coefficient_scales_the_retrieved_delta(packer: Packer) -> None:
    base = {"a.weight": torch.zeros(30, 30)}
    tasks = {"t": {"a.weight": torch.randn(30, 30, generator=generator(1))}}
    bank = packer.pack(base, tasks)
    whole = retrieve(bank, "t")["a.weight"]
    assert torch.equal(retrieve(bank, "t", coefficient=0.5)["a.weight"], whole * 0.5)
    assert not retrieve(bank, "t", coefficient=0.0)["a.weight"].any()
