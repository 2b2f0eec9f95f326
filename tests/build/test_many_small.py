"""Small tensors that one call does together make the bank that one after the other makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from randes_cli import EditOptions, PackOptions, RunOptions, Transform, pack
from randes_cli.build.draft import Draft
from randes_cli.build.edit import add, remove
from randes_cli.build.jobs import many, together, work
from randes_cli.build.jobs.jobs import Part
from randes_cli.core.energy import Energy, many_lengths
from randes_cli.errors import CheckpointError
from randes_cli.files.bank.file import BankFile
from randes_cli.specs import Shuffle
from tests.checkpoints import PRESET_NAMES, Packer, State, random_state, save, stored_sums

_SHAPES = {"a": (16, 16), "b": (33,), "c": (8, 24), "tiny": (2,), "spiked": (128, 128)}
_KINDS = {"f": torch.float16, "g": torch.bfloat16, "h": torch.float64, "i": torch.bfloat16}
#: Presets, and layers up to which a shuffled unit is one job.
_LAYERS = [(name, 2**7) for name in PRESET_NAMES]
_LAYERS += [(n, 1) for n in PRESET_NAMES if Transform.from_preset(n).shuffle is not Shuffle.none]


def _model(seed: int) -> State:
    made: State = {}
    for number, layer in enumerate(f"layers.{n}." for n in range(3)):
        made |= random_state({layer + n: s for n, s in _SHAPES.items()}, seed=10 * seed + number)
        for name, kind in _KINDS.items():
            made |= random_state({layer + name: (3, 7)}, seed=20 * seed + number, dtype=kind)
    return made | random_state({"embed.weight": (9 + seed % 2, 6)}, seed=seed)


def _models(folder: Path) -> list[Path]:
    """A base and five tasks: equal tensors, absent ones, and spikes that pass a sum's range."""
    base = _model(0)
    models = [base]
    for seed in range(1, 6):
        new = {
            name: (base[name] + 0.01 * value if value.shape == base[name].shape else value)
            for name, value in _model(seed).items()
        }
        new["layers.1.spiked"] = base["layers.1.spiked"].clone()
        new["layers.1.spiked"][5, 5] += 3.0
        models.append(new)
    models[2]["layers.0.c"] = base["layers.0.c"]
    del models[3]["layers.2.b"]
    models[4]["layers.2.i"] = -base["layers.2.i"]
    return [save(model, folder / f"m{n}.safetensors") for n, model in enumerate(models)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many units calls did together."""
    found: list[int] = []
    plain: Callable[..., int] = many.run_many

    def run_many(files: object, kernel: object, strip: int, some: together.Many) -> int:
        found.append(len(some.units))
        return plain(files, kernel, strip, some)

    monkeypatch.setattr(work, "run_many", run_many)
    return found


def _banks(paths: list[Path], out: Path, options: PackOptions) -> list[bytes]:
    """A bank, then with a task more, and then with one less."""
    pack(paths[0], [str(path) for path in paths[1:5]], out, options, RunOptions(threads=2))
    made = [out.read_bytes()]
    edits = EditOptions(base=str(paths[0]))
    add(out, [str(paths[5])], edits)
    made.append(out.read_bytes())
    remove(out, ["m2"], edits)
    return [*made, out.read_bytes()]


@pytest.mark.parametrize(("name", "layers"), _LAYERS)
@pytest.mark.parametrize(
    "more", [{}, {"groups": 2, "bits": 8}, {"base_storage": "reference", "max_shard_size": 10**5}]
)
def test_together_and_one_after_the_other_make_the_same_bytes(
    name: str,
    more: dict[str, object],
    layers: int,
    tmp_path: Path,
    counted: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = _models(tmp_path)
    transform = Transform.from_preset(name)
    options = PackOptions(transform=transform, **more)  # type: ignore[arg-type]
    monkeypatch.setattr(together, "_LAYERS", layers)
    found = _banks(paths, tmp_path / "bank.randes", options)
    least = 20 if transform.shuffle is Shuffle.none else 3 if layers == 1 else 1
    assert max(counted) >= least
    (tmp_path / "bank.randes").unlink()
    monkeypatch.setattr(work, "is_small", lambda unit, parts, shuffled: False)
    assert _banks(paths, tmp_path / "bank.randes", options) == found


@pytest.mark.parametrize("bits", [16, 8, 2])
def test_tasks_with_the_same_tensors_are_planned_together_with_the_same_bytes(
    bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = _model(0)
    tasks = [{n: v + 0.01 * _model(s)[n].view_as(v) for n, v in base.items()} for s in (2, 4, 6)]
    tasks[1]["layers.0.a"] = base["layers.0.a"]
    paths = [str(save(one, tmp_path / f"t{n}.safetensors")) for n, one in enumerate([base, *tasks])]
    options = PackOptions(bits=bits, groups=2)
    found: list[object] = []
    made = Draft._new_parts

    def new_parts(self: Draft, *rest: Any) -> tuple[Part, ...]:
        found.append(made(self, *rest))
        return made(self, *rest)

    monkeypatch.setattr(Draft, "_new_parts", new_parts)
    pack(paths[0], paths[1:], tmp_path / "together.randes", options)
    assert len(found) > len({id(parts) for parts in found}) > 1
    monkeypatch.setattr(Draft, "_alike", None)
    pack(paths[0], paths[1:], tmp_path / "each.randes", options)
    both = [tmp_path / f"{name}.randes" for name in ("together", "each")]
    assert both[0].read_bytes() == both[1].read_bytes()


def test_a_value_that_is_not_finite_is_named_among_many(tmp_path: Path) -> None:
    paths = _models(tmp_path)
    broken = _model(0)
    broken["layers.2.c"][7, 23] = torch.inf
    bad, bank = save(broken, tmp_path / "bad.safetensors"), tmp_path / "bank.randes"
    pack(paths[0], [str(paths[1])], bank)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors: tensor 'layers\.2\.c' has NaN"):
        add(bank, [str(bad)])  # a tensor that is superposed already is not sampled


def test_a_small_tensor_alone_whose_sum_passes_its_range_gets_a_coarser_step(
    tmp_path: Path,
) -> None:
    spike = torch.zeros(128, 128)
    spike[5, 5] = 3.0
    tasks = {f"t{n}": {"w": spike * (1 + 0.1 * n)} for n in range(5)}
    bank = Packer(tmp_path).pack({"w": torch.zeros(128, 128)}, tasks, "ta")
    total = stored_sums(bank)["w"]
    with BankFile(bank) as opened:
        step = 2.0 ** opened.manifest.steps["w"]
    assert total[5, 5] == total.sum() == sum(round((3 + 0.3 * n) / step) for n in range(5))


def test_lengths_of_many_sums_are_those_of_one() -> None:
    random = np.random.default_rng(0)
    shifts = random.integers(0, 62, 400).astype(np.uint64)
    squares = random.integers(0, 2**63, 400).astype(np.uint64) >> shifts
    crossed = random.integers(-(2**62), 2**62, 400) >> shifts.astype(np.int64)
    rests = random.integers(0, 2**63, 400).astype(np.uint64) >> shifts
    exponents = random.integers(-120, 90, 400)
    found = many_lengths(squares, crossed, rests, exponents)
    columns = zip(
        squares.tolist(), crossed.tolist(), rests.tolist(), exponents.tolist(), strict=True
    )
    for at, (a, b, c, e) in enumerate(columns):
        one = Energy(a, b, c)
        assert found[:, at].tolist() == [one.whole(e), one.kept(e), one.rounded(e)]
