"""Samples that are read in one call are those that are read task by task."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from randes_cli.build.inputs.inputs import open_inputs
from randes_cli.build.samples import looks
from randes_cli.build.samples.looks import deltas_of
from randes_cli.core.arrays import F32
from randes_cli.errors import CheckpointError
from randes_cli.files.source import Sample
from randes_cli.plan import sample_runs
from randes_cli.specs import PackOptions, TaskInput
from tests.checkpoints import perturbed, random_state, save

SHAPES = {
    "embed.weight": [700, 33],
    "b.weight": [5, 4000],
    "c.weight": [300, 64],
    "d.bias": [900],
    "e.weight": [999, 90],
}
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def inputs(folder: Path, dtype: torch.dtype, spoilt: float | None = None) -> list[TaskInput]:
    """A base and tasks of every dtype, one of them with more rows and one with fewer."""
    base = random_state(SHAPES, dtype=dtype)
    states = [perturbed(base, seed=seed) for seed in range(len(DTYPES))]
    for state, kind in zip(states, DTYPES, strict=True):
        state.update({name: value.to(kind) for name, value in state.items()})
    states[0]["embed.weight"] = torch.cat(
        [states[0]["embed.weight"], states[0]["embed.weight"][:9]]
    )
    states[1]["embed.weight"] = states[1]["embed.weight"][:600].clone()
    states[2]["c.weight"] = base["c.weight"].to(DTYPES[2])
    if spoilt is not None:
        states[3]["c.weight"][0, 3] = spoilt
    paths = [save(state, folder / f"m{n}.safetensors") for n, state in enumerate([base, *states])]
    return [TaskInput(f"m{n}", str(path)) for n, path in enumerate(paths)]


@pytest.mark.parametrize("together", [2**20, 2**14])
@pytest.mark.parametrize("dtype", DTYPES)
def test_deltas_of_all_tasks_are_those_of_each(
    dtype: torch.dtype, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_TOGETHER", together)
    base, *tasks = inputs(tmp_path, dtype)
    with ExitStack() as stack:
        opened = open_inputs(
            stack, base.source, tasks, PackOptions(bits=16), keep_going=False, fetch=True
        )
        source, rows = opened.base.source, list[tuple[str, F32 | None, F32 | None]]()
        for unit in opened.units:
            for size in ((2**16, 16), (2**12, 4)):
                sample = Sample(source, sample_runs(unit.rows, unit.cols, size))
                for name in unit.names:
                    made = deltas_of(sample, opened.participants, name)
                    each = [one.delta(sample, name) for one in opened.participants]
                    rows += [(name, *both) for both in zip(made, each, strict=True)]
    assert {name for name, _, slow in rows if slow is not None and slow.any()} == set(SHAPES)
    for name, fast, slow in rows:
        assert (fast is None) == (slow is None), name
        if fast is not None and slow is not None:
            assert fast.tobytes() == slow.tobytes(), name


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), 1e300])
def test_a_value_that_is_not_finite_is_told_as_ever(spoilt: float, tmp_path: Path) -> None:
    base, *tasks = inputs(tmp_path, torch.bfloat16, spoilt)
    with ExitStack() as stack:
        opened = open_inputs(
            stack, base.source, tasks, PackOptions(bits=16), keep_going=False, fetch=True
        )
        sample = Sample(opened.base.source, sample_runs(300, 64, (2**16, 16)))
        with pytest.raises(CheckpointError, match=r"m4.safetensors: tensor 'c.weight' has"):
            list(deltas_of(sample, opened.participants, "c.weight"))
