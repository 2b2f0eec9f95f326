"""What a cluster makes is what one machine makes, byte for byte, whatever the options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from randes_cli import convert, unpack, verify
from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.read.places import UnpackOptions
from randes_cli.specs import BaseStorage, EditOptions, PackOptions, RunOptions, TaskInput
from tests.cluster.conftest import RAY, in_shards
from tests.independent.judge import judge
from tests.life.models import NAMES, ONE, source
from tests.shards.conftest import everything


def packed(folder: Path, run: RunOptions, chosen: PackOptions, out: str, *names: str) -> Path:
    tasks = [TaskInput(name, source(folder, name)) for name in names or NAMES]
    pack(source(folder, "base"), tasks, folder / out, chosen, run, force=True)
    return folder / out


@pytest.mark.parametrize(
    "chosen",
    [
        in_shards(),
        in_shards(None),
        in_shards(bits=8, groups=2),
        in_shards(base_storage=BaseStorage.reference),
        in_shards(bits=2, share=2),
        in_shards(None, bits=3),
    ],
    ids=["shards", "one file", "8 bits", "base outside", "sealed share", "sealed, one file"],
)
def test_packing_gives_the_bytes_of_one_machine(
    cluster: Any, folder: Path, chosen: PackOptions
) -> None:
    one = packed(folder, ONE, chosen, "one.randes")
    many = packed(folder, RAY, chosen, "many.randes")
    assert everything(many) == everything(one)
    assert sorted(path.name for path in folder.glob(".*")) == []
    judge(many, Path(source(folder, "base")))


def test_a_tensor_that_no_task_has_is_read_of_a_base_that_stays_outside(
    cluster: Any, folder: Path
) -> None:
    chosen = in_shards(base_storage=BaseStorage.reference)
    one = packed(folder, ONE, chosen, "one.randes", "shrunk")
    many = packed(folder, RAY, chosen, "many.randes", "shrunk")
    assert everything(many) == everything(one) and verify(many).sound


def test_samples_that_are_read_ahead_are_the_same(cluster: Any, folder: Path) -> None:
    run = replace(RAY, address=cluster.address)
    assert run.networked and not RAY.networked and not ONE.networked
    many = packed(folder, run, in_shards(), "many.randes")
    assert everything(many) == everything(packed(folder, ONE, in_shards(), "one.randes"))


def test_edits_of_one_file_give_the_bytes_of_one_machine(cluster: Any, folder: Path) -> None:
    banks = {}
    for run, out in ((ONE, "one.randes"), (RAY, "many.randes")):
        bank = packed(folder, ONE, in_shards(None), out, "whole", "single")
        before = everything(bank)
        tasks = [TaskInput(name, source(folder, name)) for name in ("half", "sparse")]
        add(bank, tasks, EditOptions(), run)
        remove(bank, ["whole"], EditOptions(), run)
        put = [TaskInput("single", source(folder, "shrunk"))]
        add(bank, put, EditOptions(), run, replace=True)
        banks[out] = everything(bank)
        assert banks[out] != before
    assert banks["one.randes"] == banks["many.randes"]


def test_tasks_are_compared_alike_with_older_ones_that_are_found_and_that_are_gone(
    cluster: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By workers, who are not in the folder that the bank's sources are told from."""
    monkeypatch.chdir(folder)
    banks, told = {}, list[str]()

    def progress(phase: str, done: int, total: int) -> None:
        told.append(phase)

    packed(folder, ONE, in_shards(bits=8, groups=2), "old.randes", "whole", "single", "sparse")
    Path(source(folder, "single")).rename("elsewhere.safetensors")
    for run, out in ((ONE, "one.randes"), (RAY, "many.randes")):
        convert("old.randes", out, max_shard_size=20_000)
        tasks = [TaskInput("half", "half.safetensors"), TaskInput("shrunk", "shrunk.safetensors")]
        report = add(out, tasks, EditOptions(), run, progress=progress)
        banks[out] = everything(Path(out)), report.estimated, report.after
    Path("elsewhere.safetensors").rename(source(folder, "single"))
    assert banks["one.randes"] == banks["many.randes"] and banks["one.randes"][1]
    assert any(phase.startswith("comparing on ") for phase in told)


def test_a_verified_bank_is_reported_alike_and_its_damage_too(cluster: Any, folder: Path) -> None:
    for size in (20_000, None):
        bank = packed(folder, ONE, in_shards(size), "bank.randes")
        assert verify(bank, run=RAY) == verify(bank, run=ONE)
        victim = bank if size is None else max((folder / "bank.randes.d").iterdir())
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
        report = verify(bank, run=RAY)
        assert report == verify(bank, run=ONE) and not report.sound


def test_all_tasks_are_unpacked_alike(
    cluster: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = packed(folder, ONE, in_shards(), "bank.randes")
    monkeypatch.chdir(folder)
    options = UnpackOptions(shard_bytes=100_000)
    for run, out in ((ONE, "one"), (RAY, "many")):
        told = unpack("bank.randes", None, out, options, run)
        assert [report.task for report in told] == list(NAMES)
        assert all((folder / file).is_file() for report in told for file in report.files)
    files = {path.name: path.read_bytes() for path in (folder / "one").rglob("*")}
    assert {path.name: path.read_bytes() for path in (folder / "many").rglob("*")} == files
    assert bank.exists() and len(files) > len(NAMES)


def test_progress_tells_workers_and_all_bytes(cluster: Any, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(phase: str, done: int, total: int) -> None:
        told.append((phase, done, total))

    tasks = [TaskInput(name, source(folder, name)) for name in NAMES]
    out = folder / "told.randes"
    pack(source(folder, "base"), tasks, out, in_shards(), RAY, progress=progress)
    found = [(done, total) for phase, done, total in told if phase == "packing on 2 workers"]
    assert found and sum(done for done, _ in found) == found[0][1] > 10**6


def test_relative_paths_are_those_of_the_driver(
    cluster: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for run, out in ((ONE, "one.randes"), (RAY, "many.randes")):
        tasks = [TaskInput("half", "half.safetensors"), TaskInput("whole", "whole.safetensors")]
        pack("base.safetensors", tasks, out, in_shards(), run)
    assert everything(folder / "many.randes") == everything(folder / "one.randes")
