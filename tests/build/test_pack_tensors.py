"""What becomes of each kind of tensor, through whole banks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from randes_cli import PackOptions, TaskInput, Transform, pack
from randes_cli.errors import CheckpointError, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.specs import ITEM_SIZE, BaseStorage, Rest
from tests.checkpoints import (
    PRESET_NAMES,
    Packer,
    perturbed,
    random_state,
    retrieve,
    same_bits,
    save,
    small_model,
    stored_sums,
)


def step_of(bank: Path, name: str) -> float:
    with BankFile(bank) as opened:
        return 2.0 ** opened.manifest.steps[name]


def test_own_tensors_come_back_exactly(packer: Packer) -> None:
    base = small_model() | {
        "steps": torch.tensor(7),
        "scale": torch.tensor(0.5),
        "head": torch.ones(3, 8),
    }
    task = perturbed(base, seed=1) | {
        "steps": torch.tensor(2**62 + 1),
        "scale": torch.tensor(0.1234567),
        "head": torch.randn(5, 8),
        "mask": torch.tensor([True, False, True]),
        "ids": torch.arange(-5, 5, dtype=torch.int16).reshape(2, 5),
        "bytes": torch.arange(250, dtype=torch.uint8),
        "wide": torch.randn(3, dtype=torch.float64),
        "waves": torch.randn(3, dtype=torch.complex64),
        "none": torch.empty(0, 4, dtype=torch.bfloat16),
    }
    found = retrieve(packer.pack(base, {"t": task}), "t")
    assert set(found) == set(task)
    for name in set(task) - {"embed.weight", "a.weight", "b.weight"}:
        assert same_bits(found[name], task[name]), name


def test_names_that_a_task_lacks_are_missing_from_its_retrieval(packer: Packer) -> None:
    base = small_model() | {"pooler": torch.ones(4)}
    task = perturbed(small_model(), seed=1)
    found = retrieve(packer.pack(base, {"t": task}), "t")
    assert set(found) == set(task)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_unchanged_tensors_come_back_bit_identical_and_cost_nothing(
    packer: Packer, preset: str
) -> None:
    base = small_model() | {"layers.0.w": torch.randn(4, 4), "layers.1.w": torch.randn(4, 4)}
    base |= {"empty.weight": torch.empty(0, 3), "count": torch.tensor(3)}
    base["a.weight"][0, 0] = -0.0
    task = {name: value.clone() for name, value in base.items()}
    task["b.weight"] = task["b.weight"] + 0.1 * torch.randn(16)
    other = perturbed(base, seed=4) | {"embed.weight": base["embed.weight"].clone()}
    bank = packer.pack(base, {"t": task, "other": other}, preset)
    found = retrieve(bank, "t")
    assert all(same_bits(found[name], base[name]) for name in base if name != "b.weight")
    assert set(stored_sums(bank)) == {"a.weight", "b.weight", "layers.0.w", "layers.1.w"}
    with BankFile(bank) as opened:
        assert opened.manifest.tasks[0].unchanged == set(base) - {"b.weight"}
        assert [key for key in opened.header.tensors if key.startswith("own/")] == []


def test_a_bank_of_copies_of_the_base_has_no_superposition(packer: Packer) -> None:
    base = small_model()
    bank = packer.pack(base, {"t": dict(base)})
    assert stored_sums(bank) == {}
    assert all(same_bits(value, base[name]) for name, value in retrieve(bank, "t").items())


def test_a_longer_embedding_is_superposed_where_common_and_exact_beyond(packer: Packer) -> None:
    base, extra = small_model(), torch.randn(3, 8)
    task = perturbed(base, seed=1)
    task["embed.weight"] = torch.cat([task["embed.weight"], extra])
    bank = packer.pack(base, {"t": task})
    found = retrieve(bank, "t")["embed.weight"]
    assert same_bits(found[40:], extra)
    close = (found[:40] - task["embed.weight"][:40]).abs().max()
    assert 0 < float(close) <= step_of(bank, "embed.weight") * 0.51
    assert stored_sums(bank)["embed.weight"].shape == (40, 8)


def test_a_shorter_embedding_is_superposed_in_the_rows_that_it_has(packer: Packer) -> None:
    base = small_model()
    task = perturbed(base, seed=1)
    task["embed.weight"] = task["embed.weight"][:25].clone()
    bank = packer.pack(base, {"t": task})
    found = retrieve(bank, "t")["embed.weight"]
    assert found.shape == (25, 8)
    close = (found - task["embed.weight"]).abs().max()
    assert float(close) <= step_of(bank, "embed.weight") * 0.51
    assert not stored_sums(bank)["embed.weight"][25:].any()


@pytest.mark.parametrize("rows", [25, 43])
def test_a_resized_embedding_that_did_not_change_comes_back_exactly(
    packer: Packer, rows: int
) -> None:
    base = small_model()
    task = perturbed(base, seed=1)
    whole = torch.cat([base["embed.weight"], torch.randn(3, 8)])
    task["embed.weight"] = whole[:rows].clone()
    bank = packer.pack(base, {"t": task})
    assert same_bits(retrieve(bank, "t")["embed.weight"], task["embed.weight"])
    assert "embed.weight" not in stored_sums(bank)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


@pytest.mark.parametrize("base_dtype", DTYPES)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e5m2])
def test_base_and_task_may_differ_in_dtype(
    packer: Packer, base_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    base = {name: value.to(base_dtype) for name, value in small_model().items()}
    noise = perturbed({name: torch.zeros(t.shape) for name, t in base.items()}, seed=1, scale=0.4)
    task = {name: (value.float() + noise[name]).to(dtype) for name, value in base.items()}
    bank = packer.pack(base, {"t": task})
    found = retrieve(bank, "t")
    for name, value in task.items():
        assert found[name].dtype == dtype
        step = step_of(bank, name)
        ulp = value.float().abs() * torch.finfo(dtype).eps + torch.finfo(dtype).smallest_normal
        assert bool(((found[name].float() - value.float()).abs() <= step + ulp).all())


def test_tensors_of_one_three_and_four_dimensions_are_superposed(packer: Packer) -> None:
    base = random_state({"one": [50], "three": [3, 4, 5], "four": [2, 3, 2, 4], "lone": [1]})
    task = perturbed(base, seed=1)
    bank = packer.pack(base, {"t": task})
    found = retrieve(bank, "t")
    assert set(stored_sums(bank)) == {"one", "three", "four"}
    assert same_bits(found["lone"], task["lone"])
    for name in ("one", "three", "four"):
        assert float((found[name] - task[name]).abs().max()) <= step_of(bank, name) * 0.51


def test_a_change_of_one_row_is_found_though_the_sample_misses_it(packer: Packer) -> None:
    base = small_model() | {"big.weight": torch.randn(3000, 64)}
    task = perturbed(base, seed=1) | {"big.weight": base["big.weight"].clone()}
    task["big.weight"][2417] += 0.01 * torch.randn(64)
    bank = packer.pack(base, {"t": task})
    found = retrieve(bank, "t")["big.weight"]
    error = (found - task["big.weight"]).abs().amax(1)
    assert float(error[2417]) <= step_of(bank, "big.weight") * 0.51
    assert step_of(bank, "big.weight") < 0.001
    error[2417] = 0
    assert float(error.max()) == 0.0


def test_an_outlier_beyond_16_bits_coarsens_the_step_and_stays_correct(packer: Packer) -> None:
    base = small_model() | {"big.weight": torch.zeros(3000, 64)}
    task = perturbed(base, seed=1)
    task["big.weight"][1900, 60] = 500.0
    other = perturbed(base, seed=2)
    alone = packer.pack(base, {"other": other}, out="fine.randes")
    bank = packer.pack(base, {"t": task, "other": other})
    assert step_of(bank, "big.weight") > 8 * step_of(alone, "big.weight")
    found = retrieve(bank, "t")["big.weight"]
    assert float(found[1900, 60]) == pytest.approx(500.0, abs=0.2)
    assert stored_sums(bank)["big.weight"].abs().max() <= 32767


def test_differences_beyond_every_grid_are_refused(packer: Packer) -> None:
    base = small_model()
    task = perturbed(base, seed=1) | {"a.weight": base["a.weight"] * 1e37}
    with pytest.raises(CheckpointError, match=r"tensor 'a\.weight': a task differs by more than"):
        packer.pack(base, {"t": task})
    assert not (packer.folder / "bank.randes").exists()


def test_8_bits_keep_heavy_tails_at_16(packer: Packer) -> None:
    base = random_state({"embed.weight": [300, 40], "a.weight": [300, 40]})
    tasks = {f"t{k}": perturbed(base, seed=k) for k in range(3)}
    tasks["t1"]["embed.weight"][5, 5] += 3.0
    bank = packer.pack(base, tasks, PackOptions(bits=8))
    with BankFile(bank) as opened:
        assert opened.info("sum/0/embed.weight").dtype == "I16"
        assert opened.info("sum/0/a.weight").dtype == "I8"
        assert dict(opened.manifest.widths) == {"embed.weight": 16}


def test_8_bits_keep_what_only_the_whole_tensor_shows_at_16_too(packer: Packer) -> None:
    base = random_state({"embed.weight": [3000, 64], "a.weight": [30, 40]})
    task = perturbed(base, seed=1)
    task["embed.weight"][2417, 60] += 30.0
    bank = packer.pack(base, {"t": task}, PackOptions(bits=8))
    with BankFile(bank) as opened:
        assert opened.info("sum/0/embed.weight").dtype == "I16"
        assert opened.info("sum/0/a.weight").dtype == "I8"
    found = retrieve(bank, "t")["embed.weight"]
    assert float((found - task["embed.weight"]).abs().max()) <= step_of(bank, "embed.weight") * 0.51


def test_many_tensors_of_two_widths_and_odd_sizes_fit_the_reserved_header(
    packer: Packer,
) -> None:
    base = {f"l{k:03d}": torch.zeros(1, 3001) for k in range(200)}
    task = perturbed(base, seed=1)
    for k in range(0, 200, 2):
        task[f"l{k:03d}"] = task[f"l{k:03d}"] * 1e-6
        task[f"l{k:03d}"][0, 0] = 5.0
    options = PackOptions(bits=8, base_storage=BaseStorage.reference)
    bank = packer.pack(base, {"t": task}, options)
    with BankFile(bank) as opened:
        widths = [opened.info(f"sum/0/{name}").dtype for name in sorted(base)]
    assert widths == ["I16", "I8"] * 100


def test_rest_own_keeps_what_is_outside_the_targets_exactly(packer: Packer) -> None:
    base = random_state({"h.0.attn.weight": [6, 6], "h.0.mlp.weight": [6, 6], "norm": [6]})
    tasks = {f"t{k}": perturbed(base, seed=k) for k in range(2)}
    tasks["t0"]["norm"] = base["norm"].clone()
    transform = Transform(targets="attn", rest=Rest.own)
    bank = packer.pack(base, tasks, PackOptions(transform=transform))
    assert set(stored_sums(bank)) == {"h.0.attn.weight"}
    for name, task in tasks.items():
        found = retrieve(bank, name)
        assert same_bits(found["h.0.mlp.weight"], task["h.0.mlp.weight"])
        assert same_bits(found["norm"], task["norm"])
    with BankFile(bank) as opened:
        assert "own/t0/norm" not in opened
        assert "own/t1/norm" in opened


def test_a_nan_is_refused_with_its_file_and_tensor(packer: Packer) -> None:
    base, task = small_model(), perturbed(small_model(), seed=1)
    task["a.weight"][3, 3] = float("nan")
    with pytest.raises(CheckpointError, match=r"t\.safetensors: tensor 'a\.weight' has NaN"):
        packer.pack(base, {"t": task})
    with pytest.raises(CheckpointError, match=r"base\.safetensors: tensor 'a\.weight' has NaN"):
        packer.pack(task, {"t": base})


def test_two_tasks_of_one_name_or_of_names_that_differ_in_case_are_refused(
    packer: Packer,
) -> None:
    base = packer.folder / "b.st"
    save(small_model(), base)
    for names, said in ((("t", "t"), "twice"), (("t", "T"), "differ only in case")):
        inputs = [TaskInput(name, str(base)) for name in names]
        with pytest.raises(UsageError, match=said):
            pack(str(base), inputs, packer.folder / "x.randes")


@pytest.mark.parametrize("index", [-1, 2**31])
def test_an_index_that_no_bank_can_record_is_refused(packer: Packer, index: int) -> None:
    with pytest.raises(UsageError, match="index must be between"):
        packer.pack(small_model(), {"t": small_model()}, indices={"t": index})


# Stock readers


@pytest.mark.parametrize("bits", [16, 8])
def test_the_stock_library_opens_a_bank_and_every_tensor_is_aligned(
    packer: Packer, bits: int
) -> None:
    base = small_model() | {"odd": torch.ones(5, dtype=torch.uint8), "half": torch.ones(3).half()}
    tasks = {f"t{k}": perturbed(base, seed=k) | {"x": torch.ones(7).bool()} for k in range(3)}
    tasks["t1"] |= {"y": torch.randn(3).double(), "z": torch.tensor([1], dtype=torch.int64)}
    bank = packer.pack(base, tasks, PackOptions(bits=bits))
    for framework in ("pt", "np"):
        with safe_open(bank, framework) as opened:
            for name, value in base.items():
                assert np.array_equal(np.asarray(opened.get_tensor(f"base/{name}")), value.numpy())
            assert opened.metadata() == {"format": "randes", "version": "2"}
    with BankFile(bank) as opened:
        for name, info in opened.header.tensors.items():
            assert opened.header.starts[name] % ITEM_SIZE[info.dtype] == 0, name
