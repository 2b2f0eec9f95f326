"""Names that share one tensor come back bit-equal, are superposed once and cost once."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.build.seal.seal import seal
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.measure import measure
from randes_cli.ops.verify import verify
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import (
    BaseStorage,
    PackOptions,
    RunOptions,
    TaskInput,
    Transform,
)
from tests.independent.judge import judge

Arrays = dict[str, np.ndarray]
NAMES = [f"w.{n}.weight" for n in range(5)]
SHAPE, REST = (40, 48), (2000, 200)


def classes(arrays: Arrays) -> set[frozenset[str]]:
    """Names by content."""
    found: dict[bytes, set[str]] = {}
    for name, array in arrays.items():
        found.setdefault(array.tobytes(), set()).add(name)
    return {frozenset(names) for names in found.values()}


def draw(rng: random.Random, base: Arrays | None, scale: float) -> Arrays:
    """A checkpoint of some names, each of some class: a class is one tensor."""
    noise = np.random.default_rng(rng.randrange(2**32))
    names = [name for name in NAMES if rng.random() < 0.8] or NAMES[:1]
    made: Arrays = {}
    values: dict[int, np.ndarray] = {}
    for name in names:
        kind = rng.randrange(3)
        if kind not in values:
            start = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
            if base:
                start = base.get(name, start)
            values[kind] = (start + scale * noise.standard_normal(SHAPE)).astype(np.float32)
        made[name] = values[kind]
    made["bias"] = np.zeros(SHAPE[1], np.float32)
    made["other.bias"] = np.zeros(SHAPE[1], np.float32)
    rest = (base or {}).get("rest", np.zeros(REST, np.float32))
    made["rest"] = (rest + scale * noise.standard_normal(REST)).astype(np.float32)
    return made


def family(rng: random.Random, folder: Path) -> tuple[Arrays, dict[str, Arrays]]:
    base = draw(rng, None, 0.02)
    tasks = {name: draw(rng, base, 0.01) for name in ("a", "b", "c")}
    for name, arrays in {"base": base, **tasks}.items():
        save_file(arrays, folder / f"{name}.safetensors")
    return base, tasks


def inputs(folder: Path, *names: str) -> list[TaskInput]:
    return [TaskInput(name, str(folder / f"{name}.safetensors")) for name in names]


def retrieved(bank: Path, name: str, out: Path) -> Arrays:
    unpack(bank, [name], out, UnpackOptions(force=True), RunOptions(strip_elements=1000))
    return load_file(out)


def assert_back(bank: Path, name: str, original: Arrays, out: Path, close: float) -> None:
    back = retrieved(bank, name, out)
    assert set(back) == set(original)
    found = classes(back)
    assert all(any(names <= other for other in found) for names in classes(original))
    for array_name, array in original.items():
        assert np.abs(back[array_name] - array).max() <= close, (name, array_name)


@pytest.mark.parametrize("seed", range(25))
def test_ties_of_random_checkpoints_survive_everything(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    _, tasks = family(rng, tmp_path)
    bank, out = tmp_path / "x.randes", tmp_path / "out.safetensors"
    kinds = rng.choice(["hankel", "srsf", "two-sided"])
    options = PackOptions(Transform.from_preset(kinds))
    base = str(tmp_path / "base.safetensors")
    pack(base, inputs(tmp_path, "a"), bank, options)
    assert_back(bank, "a", tasks["a"], out, 0.1)
    before = bank.read_bytes()
    add(bank, inputs(tmp_path, "b", "c"))
    with BankFile(bank) as file:
        assert verify(file, RunOptions()).sound
        for check in measure(file, {"b": str(tmp_path / "b.safetensors")}, RunOptions()):
            assert 0 < check.cosine <= 1
    for name in tasks:
        assert_back(bank, name, tasks[name], out, 20)
    packed = tmp_path / "packed.randes"
    pack(base, inputs(tmp_path, "a", "b", "c"), packed, replace(options, bits=rng.choice([16, 8])))
    for name in tasks:
        assert_back(packed, name, tasks[name], out, 20)
    judge(bank)
    sealed = tmp_path / "sealed.randes"
    seal(packed, sealed, 4, RunOptions())
    for name in tasks:
        assert_back(sealed, name, tasks[name], out, 20)
    judge(sealed)
    remove(bank, ["b", "c"])
    with BankFile(bank) as file:
        kept = {k: file.read_whole(k).tobytes() for k in file.header.tensors if k != "checks"}
    bank.write_bytes(before)
    with BankFile(bank) as file:
        for key in file.header.tensors:
            if key.startswith(("sum/", "own/", "base/")):
                assert kept[key] == file.read_whole(key).tobytes(), key


def test_four_names_of_one_tensor_cost_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((300, 100)).astype(np.float32)
    names = ["a.weight", "b.weight", "c.weight", "d.weight"]
    save_file(dict.fromkeys(names, one), tmp_path / "base.safetensors")
    for task in "xyz":
        moved = one + 0.01 * rng.standard_normal(one.shape).astype(np.float32)
        save_file(dict.fromkeys(names, moved), tmp_path / f"{task}.safetensors")
    bank = tmp_path / "x.randes"
    pack(str(tmp_path / "base.safetensors"), inputs(tmp_path, *"xyz"), bank)
    with BankFile(bank) as file:
        stored = [key for key in file.header.tensors if key.startswith(("base/", "sum/", "own/"))]
        assert stored == ["base/a.weight", "sum/0/a.weight"]
        assert file.manifest.features == ("superposition", "ties")
        assert file.manifest.base.ties == dict.fromkeys(names[1:], "a.weight")
    back = retrieved(bank, "y", tmp_path / "y.out.safetensors")
    assert classes(back) == {frozenset(names)}


def test_a_bank_without_ties_says_nothing_of_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("base", "a"):
        arrays = {n: rng.standard_normal(SHAPE).astype(np.float32) for n in NAMES}
        arrays |= {"one.bias": np.ones(8, np.float32), "two.bias": np.ones(8, np.float32)}
        save_file(arrays, tmp_path / f"{name}.safetensors")
    bank = tmp_path / "x.randes"
    pack(str(tmp_path / "base.safetensors"), inputs(tmp_path, "a"), bank)
    with BankFile(bank) as file:
        assert b'"ties"' not in file.read_whole("manifest").tobytes()


@pytest.mark.parametrize("both", ["base", "task"])
def test_a_tensor_saved_once_or_twice_is_superposed_all_the_same(both: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((300, 100)).astype(np.float32)
    moved = embedding + 0.01 * rng.standard_normal(embedding.shape).astype(np.float32)
    for name, array in (("base", embedding), ("task", moved)):
        names = ["model.embed.weight"] + ["lm_head.weight"] * (name == both)
        save_file(dict.fromkeys(names, array), tmp_path / f"{name}.safetensors")
    bank = tmp_path / "x.randes"
    pack(str(tmp_path / "base.safetensors"), inputs(tmp_path, "task"), bank)
    with BankFile(bank) as file:
        assert not file.manifest.tasks[0].own
    back = retrieved(bank, "task", tmp_path / "out.safetensors")
    wanted = {"model.embed.weight"} | ({"lm_head.weight"} if both == "task" else set())
    assert set(back) == wanted
    assert classes(back) == {frozenset(wanted)}
    assert np.abs(back["model.embed.weight"] - moved).max() < 0.002


def test_a_task_with_a_prefix_gets_its_tied_names_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["lm_head.weight", "model.embed.weight", "model.layers.0.w.weight"]
    values = [rng.standard_normal((100, 60)).astype(np.float32) for _ in range(2)]
    base = dict(zip(names, [values[0], values[0], values[1]], strict=True))
    moved = [v + 0.01 * rng.standard_normal(v.shape).astype(np.float32) for v in values]
    tied = dict(zip(names, [moved[0], moved[0], moved[1]], strict=True))
    untied = {**tied, "lm_head.weight": moved[0] + np.float32(0.01)}
    save_file(base, tmp_path / "base.safetensors")
    for name, arrays in (("tied", tied), ("untied", untied)):
        prefixed = {f"module.{key}": array for key, array in arrays.items()}
        save_file(prefixed, tmp_path / f"{name}.safetensors")
    bank = tmp_path / "x.randes"
    pack(str(tmp_path / "base.safetensors"), inputs(tmp_path, "tied", "untied"), bank)
    for name, arrays in (("tied", tied), ("untied", untied)):
        back = retrieved(bank, name, tmp_path / "out.safetensors")
        assert set(back) == {f"module.{key}" for key in arrays}
        assert len(classes(back)) == len(classes(arrays))


def test_a_base_outside_is_known_under_all_its_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((100, 60)).astype(np.float32)
    save_file({"a.weight": one, "b.weight": one}, tmp_path / "base.safetensors")
    moved = one + np.float32(0.01)
    save_file({"a.weight": moved, "b.weight": moved}, tmp_path / "t.safetensors")
    bank = tmp_path / "x.randes"
    options = PackOptions(base_storage=BaseStorage.reference)
    pack(str(tmp_path / "base.safetensors"), inputs(tmp_path, "t"), bank, options)
    back = retrieved(bank, "t", tmp_path / "out.safetensors")
    assert classes(back) == {frozenset({"a.weight", "b.weight"})}
    assert np.abs(back["a.weight"] - moved).max() < 0.001
