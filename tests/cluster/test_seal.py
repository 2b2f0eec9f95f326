"""Sealing by a cluster gives the bytes of one machine; workers and drivers that die change none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from randes_cli import seal, verify
from randes_cli.build.pack import pack
from randes_cli.errors import BankDamaged
from randes_cli.files.bank.file import BankFile
from randes_cli.specs import PackOptions, TaskInput
from tests.cluster.conftest import RAY, in_shards
from tests.cluster.driver import run_until
from tests.cluster.test_faults import large as family
from tests.independent.judge import judge
from tests.life.models import NAMES, ONE, source
from tests.shards.conftest import everything


def packed(folder: Path, chosen: PackOptions, out: str) -> Path:
    tasks = [TaskInput(name, source(folder, name)) for name in NAMES]
    pack(source(folder, "base"), tasks, folder / out, chosen, ONE, force=True)
    return folder / out


@pytest.mark.parametrize(
    ("chosen", "most"),
    [(in_shards(), None), (in_shards(None), None), (in_shards(None), 5_000), (in_shards(), 0)],
    ids=["shards", "one file", "into shards", "into one file"],
)
def test_a_sealed_bank_is_that_of_one_machine(
    cluster: Any, folder: Path, chosen: PackOptions, most: int | None
) -> None:
    live = packed(folder, chosen, "live.randes")
    found = {}
    for run, out in ((ONE, "one.randes"), (RAY, "many.randes")):
        report = seal(live, folder / out, 2, run, max_shard_size=most or None)
        found[out] = everything(folder / out), report.bytes_after, report.after
    assert found["one.randes"] == found["many.randes"]
    judge(folder / "many.randes", Path(source(folder, "base")))
    assert sorted(path.name for path in folder.glob(".*")) == []


@pytest.mark.parametrize("size", [20_000, None], ids=["shards", "one file"])
def test_sealing_in_place_writes_what_changed_and_groups_one_by_one(
    cluster: Any, folder: Path, size: int | None
) -> None:
    made = {}
    for run, out in ((ONE, "one.randes"), (RAY, "many.randes")):
        bank = packed(folder, in_shards(size, groups=2, share=2), out)
        before = everything(bank)[1]
        seal(bank, None, 3, run)
        made[out] = everything(bank)
        stay = before.keys() & made[out][1].keys()
        assert bool(stay) == (size is not None)
    assert made["one.randes"] == made["many.randes"]


def large(folder: Path) -> Path:
    """A bank of 32 MB of live sums, in shards of a megabyte."""
    tasks = family(folder)[:1]
    chosen = PackOptions(max_shard_size=1_000_000)
    pack(folder / "base.safetensors", tasks, folder / "live.randes", chosen, ONE)
    return folder / "live.randes"


def test_a_driver_that_is_killed_leaves_the_live_bank(cluster: Any, tmp_path: Path) -> None:
    live = large(tmp_path)
    before = everything(live)
    shutil.copytree(tmp_path / "live.randes.d", tmp_path / "copy.randes.d")
    shutil.copy(live, tmp_path / "copy.randes")
    words = ["seal", str(live), "--in-place", "--bits", "4", "-q"]
    words += ["--engine", "ray", "--address", cluster.address]
    run_until("sealing", tmp_path / "lock", words)
    index, files = everything(live)
    assert index == before[0] and before[1].items() < files.items()
    with BankFile(live) as bank:
        assert not bank.manifest.sealed
    assert verify(live, run=ONE, prune=True).sound
    seal(live, None, 4, RAY)
    seal(tmp_path / "copy.randes", None, 4, ONE)
    assert everything(live) == everything(tmp_path / "copy.randes")


def test_damage_that_a_worker_meets_is_named_and_nothing_is_sealed(
    cluster: Any, folder: Path
) -> None:
    live = packed(folder, in_shards(), "live.randes")
    with BankFile(live) as bank:
        shard = folder / "live.randes.d" / str(bank.store.shard_of("sum/0/table"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    for run in (ONE, RAY):
        with pytest.raises(BankDamaged, match=r"tensor 'sum/0/.*is damaged"):
            seal(live, folder / "sealed.randes", 2, run)
    assert not list(folder.glob("sealed*")) and not list(folder.glob(".*"))
