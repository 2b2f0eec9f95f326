"""Tensors that are one in the base and parted in its tasks are superposed, each on its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, add, pack, verify
from randes_cli.files.bank.file import BankFile
from tests.independent.judge import judge

Arrays = dict[str, np.ndarray]
ONE = RunOptions(threads=1)


def one(source: np.random.Generator) -> np.ndarray:
    return source.standard_normal((60, 80)).astype(np.float32)


def copies(*stems: str) -> Arrays:
    """A base of two layers, a bias and an embedding with its head, once under each stem."""
    source, made = np.random.default_rng(0), Arrays()
    values = {"0.w": one(source), "1.w": one(source), "embed.w": one(source)}
    for stem in stems:
        made |= {f"{stem}.{name}": value for name, value in values.items()}
        made[f"{stem}.head.w"] = values["embed.w"]
    return {**made, "rest.w": one(source)}


def trained(base: Arrays, seed: int, *, together: tuple[str, ...] = ()) -> Arrays:
    """Each stem trained by itself, those that are `together` as one; heads stay tied."""
    source, made = np.random.default_rng(seed), Arrays()
    for name, value in base.items():
        stem, _, rest = name.partition(".")
        twin = f"{together[0]}.{rest}" if stem in together else name
        twin = twin.replace("head.w", "embed.w")
        made[name] = made.get(twin, (value + 0.01 * one(source)).astype(np.float32))
    return made


def packed(folder: Path, base: Arrays, tasks: dict[str, Arrays], bits: int | None = None) -> Path:
    save_file(base, folder / "base.safetensors")
    for name, arrays in tasks.items():
        save_file(arrays, folder / f"{name}.safetensors")
    bank = folder / "bank.randes"
    inputs = [TaskInput(name, folder / f"{name}.safetensors") for name in tasks]
    pack(folder / "base.safetensors", inputs, bank, PackOptions(bits=bits), ONE)
    return bank


@pytest.mark.parametrize("bits", [16, 2])
def test_what_all_tasks_part_is_no_copy_in_the_bank(bits: int, tmp_path: Path) -> None:
    base = copies("ctrl", "ema", "unet")
    tasks = {f"t{n}": trained(base, n) for n in range(3)}
    bank = packed(tmp_path, base, tasks, bits)
    with BankFile(bank) as file:
        record, sums = file.manifest.base, {k for k in file.header.tensors if k[:4] == "sum/"}
        assert not any(task.own for task in file.manifest.tasks)
    assert record.ties == {f"{stem}.head.w": f"{stem}.embed.w" for stem in ("ctrl", "ema", "unet")}
    assert sums == {f"sum/0/{name}" for name in base if "head" not in name}
    with Bank.open(bank) as opened:
        for name, task in tasks.items():
            back = {key: value.numpy() for key, value in opened.retrieve(name).items()}
            for stem in ("ctrl", "ema", "unet"):
                assert np.array_equal(back[f"{stem}.head.w"], back[f"{stem}.embed.w"])
            worst = max(float(np.abs(back[key] - task[key]).max()) for key in task)
            assert 0 < worst < 0.2
    found = verify(bank, against={"t1": tmp_path / "t1.safetensors"}, run=ONE)
    assert found.sound and found.against[0].cosine > 0.4
    judge(bank)


@pytest.mark.parametrize("few", [1, 2])
def test_names_that_few_tasks_part_are_kept_exactly_by_them(few: int, tmp_path: Path) -> None:
    base = copies("ema", "unet")
    tied = {f"t{n}": trained(base, n, together=("ema", "unet")) for n in range(2)}
    apart = {f"apart{n}": trained(base, 7 + n) for n in range(few)}
    bank = packed(tmp_path, base, {**tied, **apart})
    with BankFile(bank) as file:
        own = {task.name: set(task.own) for task in file.manifest.tasks}
        names = {name for name in base if name.startswith("unet")}
        assert set(file.manifest.base.ties) == {*names, "ema.head.w"}
    kept = names - {"unet.head.w"}
    assert own == {"t0": set(), "t1": set(), **dict.fromkeys(apart, kept)}
    judge(bank)


def test_a_task_that_keeps_the_copies_together_joins_those_that_part_them(tmp_path: Path) -> None:
    base = copies("ema", "unet")
    tasks = {f"t{n}": trained(base, n) for n in range(3)}
    tasks["tied"] = trained(base, 5, together=("ema", "unet"))
    bank = packed(tmp_path, base, tasks, 16)
    more = {"more": trained(base, 8), "both": trained(base, 9, together=("ema", "unet"))}
    for name, arrays in more.items():
        save_file(arrays, tmp_path / f"{name}.safetensors")
    add(bank, [tmp_path / f"{name}.safetensors" for name in more], run=ONE)
    with BankFile(bank) as file:
        assert not any(task.own for task in file.manifest.tasks)
    with Bank.open(bank) as opened:
        for name, arrays in {**tasks, **more}.items():
            back = {key: value.numpy() for key, value in opened.retrieve(name).items()}
            for rest in ("0.w", "1.w", "embed.w", "head.w"):
                same = [np.array_equal(x[f"ema.{rest}"], x[f"unet.{rest}"]) for x in (back, arrays)]
                assert same[0] == same[1], (name, rest)
    judge(bank)


def test_a_task_whose_copies_are_one_matches_a_base_that_keeps_them_apart(tmp_path: Path) -> None:
    base = copies("ctrl", "ema", "unet")
    bank = packed(tmp_path, base, {f"t{n}": trained(base, n) for n in range(3)})
    one = trained(base, 5, together=("ctrl", "ema", "unet"))
    save_file({**one, "own.w": one["rest.w"] * 2}, tmp_path / "one.safetensors")
    add(bank, [tmp_path / "one.safetensors"], run=ONE)
    with BankFile(bank) as file:
        assert set(file.manifest.tasks[-1].own) == {"own.w"}
    judge(bank)
