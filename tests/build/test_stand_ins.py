"""Dry runs of large banks sample some tensors of each kind; those stand for the others."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from randes_cli import PackOptions, Transform, pack
from randes_cli.build import build
from randes_cli.build.inputs.inputs import open_inputs
from randes_cli.build.samples import stand_ins
from randes_cli.plan import Unit
from randes_cli.specs import TaskInput
from randes_cli.stats import stored
from randes_cli.stats.stored import Cells
from tests.checkpoints import layered_shapes, perturbed, random_state, save


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    base = random_state(layered_shapes(layers=12, width=64, hidden=96))
    tasks = [perturbed(base, seed=seed) for seed in range(3)]
    for layer in (0, 7):
        tasks[1][f"layers.{layer}.mlp.weight"] = base[f"layers.{layer}.mlp.weight"]
    del tasks[2]["layers.3.norm.weight"]
    return [save(model, tmp_path / f"m{n}.safetensors") for n, model in enumerate([base, *tasks])]


@pytest.mark.parametrize("name", ["hankel", "two-sided", "srsf"])
@pytest.mark.parametrize("bits", [16, 2])
def test_a_part_of_the_tensors_predicts_what_all_do(
    models: list[Path], name: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PackOptions(transform=Transform.from_preset(name), bits=bits)
    out = models[0].with_name("bank.randes")
    tasks = [str(path) for path in models[1:]]
    whole = pack(models[0], tasks, out, options, dry_run=True)
    monkeypatch.setattr(stand_ins, "_MOST", 60_000)
    some = pack(models[0], tasks, out, options, dry_run=True)
    assert not any("were sampled" in note for note in whole.notes)
    assert any("were sampled" in note for note in some.notes) == (name != "srsf")
    for one, other in zip(whole.tasks, some.tasks, strict=True):
        assert other.predicted_cosine == pytest.approx(one.predicted_cosine, abs=0.02)
        assert other.missing == one.missing
    assert some.bank_bytes == pytest.approx(whole.bank_bytes, rel=0.02)


def test_gram_matrices_of_stand_ins_alone_predict_what_one_of_each_tensor_does(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_ins, "_MOST", 60_000)
    monkeypatch.setattr(stored, "GRAM_SHARE", 1.0)
    out, tasks = models[0].with_name("bank.randes"), [str(path) for path in models[1:]]
    kept = list[int]()

    def joined(cells: Cells, stands: Mapping[Unit, Unit]) -> Cells:
        made = stand_ins.joined_cells(cells, stands)
        kept.append(len(made))
        assert len(made) == len(cells) - sum(unit.layers for unit in stands)
        assert sorted(n for _, names in made for n in names) == sorted(n for n, _ in cells)
        return made

    monkeypatch.setattr(build, "joined_cells", joined)
    few = pack(models[0], tasks, out, dry_run=True)
    monkeypatch.setattr(build, "joined_cells", lambda cells, _: cells)
    every = pack(models[0], tasks, out, dry_run=True)
    assert kept
    assert few.bank_bytes == every.bank_bytes
    for one, other in zip(few.tasks, every.tasks, strict=True):
        assert one.predicted_cosine == pytest.approx(other.predicted_cosine, rel=1e-12)


def test_packing_itself_samples_all(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [str(path) for path in models[1:]]
    pack(models[0], tasks, models[0].with_name("whole.randes"))
    monkeypatch.setattr(stand_ins, "_MOST", 60_000)
    report = pack(models[0], tasks, models[0].with_name("some.randes"))
    assert not any("were sampled" in note for note in report.notes)
    made = [models[0].with_name(f"{name}.randes").read_bytes() for name in ("whole", "some")]
    assert made[0] == made[1]


def test_each_kind_has_stand_ins_of_the_same_shape_and_tasks(models: list[Path]) -> None:
    tasks = [TaskInput(path.stem, str(path)) for path in models[1:]]
    with ExitStack() as stack:
        found = open_inputs(
            stack, str(models[0]), tasks, PackOptions(), keep_going=False, fetch=True
        )
        assert stand_ins.stand_ins(found.units, found.participants) == {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stand_ins, "_MOST", 60_000)
            made = stand_ins.stand_ins(found.units, found.participants)
        left = [unit for unit in found.units if unit not in made]
        assert len(left) >= 3 * 3 and len(made) > len(found.units) // 2
        for unit, other in made.items():
            assert other in left and (unit.rows, unit.cols) == (other.rows, other.cols)
            assert [p.meets(unit) for p in found.participants] == [
                p.meets(other) for p in found.participants
            ]
