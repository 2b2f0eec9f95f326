"""Every verb that has workers makes the bytes of one machine, with any number, killed or not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from randes_cli import add, pack, remove, seal, unpack, verify
from randes_cli.cluster import Cluster
from randes_cli.read.places import UnpackOptions
from randes_cli.specs import EditOptions, PackOptions, RunOptions, TaskInput
from tests.cluster.conftest import in_shards
from tests.cluster.deaths import killing
from tests.life.models import ONE

#: The phases of all of it in which workers do something.
PHASES = {
    "looking through",
    *("sampling", "packing", "joining", "comparing", "adding", "removing"),
    *("measuring", "sealing", "unpacking", "verifying"),
}


def go(folder: Path, run: RunOptions) -> dict[str, object]:
    """What all verbs come to, one after the other: every file, and what `verify` says."""

    def tasks(*names: str) -> list[TaskInput]:
        return [TaskInput(name, str(folder / f"{name}.safetensors")) for name in names]

    def packed(name: str, chosen: PackOptions, *names: str) -> Path:
        bank = folder / name
        pack(folder / "base.safetensors", tasks(*names), bank, chosen, run)
        return bank

    bank = packed("x.randes", in_shards(60_000, groups=2), "whole", "sparse", "half")
    add(bank, tasks("single"), EditOptions(), run)
    remove(bank, ["half"], EditOptions(), run)
    seal(bank, folder / "s.randes", 3, run)
    cut = packed("cut.randes", in_shards(None, bits=2, share=2), "whole", "shrunk")
    unpack(bank, None, folder / "out", UnpackOptions(), run)
    told = {found.name: replace(verify(found, run=run), bank="") for found in (bank, cut)}
    files = (path for path in folder.rglob("*") if path.is_file())
    return {**{path.relative_to(folder).as_posix(): path.read_bytes() for path in files}, **told}


@pytest.fixture(scope="module")
def alone(family_files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What one machine makes."""
    return go(shutil.copytree(family_files, tmp_path_factory.mktemp("one") / "x"), ONE)


@pytest.fixture
def check(
    cluster: Any,
    family_files: Path,
    tmp_path: Path,
    alone: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[int, int], None]:
    """Has so many workers, of so many threads each, do it all, and compares."""
    monkeypatch.setattr(Cluster, "share", lambda *_: 5_000)

    def compared(workers: int, threads: int) -> None:
        run = RunOptions(threads=threads, engine="ray", strip_elements=64)
        with Cluster(run) as found:
            assert found.workers == workers
            assert go(shutil.copytree(family_files, tmp_path / f"{workers}"), run) == alone

    return compared


def test_one_worker_of_two_threads_leaves_no_trace(
    large_node: Any, check: Callable[[int, int], None]
) -> None:
    check(1, 2)


def test_four_workers_that_are_killed_in_every_phase_leave_no_trace(
    large_node: Any,
    check: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    died = killing(monkeypatch, tmp_path / "marks")
    check(4, 1)
    assert died() == PHASES
