"""Lost nodes, workers and drivers, and a full disk: the old bank or the new one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli import cluster as module
from randes_cli import verify
from randes_cli.build.pack import pack
from randes_cli.cluster import Cluster
from randes_cli.errors import CheckpointError, HubError, NoSpace, OutOfResources, UsageError
from randes_cli.specs import PackOptions, RunOptions, TaskInput
from randes_cli.workers import Progress
from tests.checkpoints import save_family
from tests.cluster.conftest import RAY, in_shards
from tests.cluster.driver import run_until
from tests.life.models import ONE, source
from tests.shards.conftest import everything

SIZE = 1_000_000


def large(folder: Path) -> list[TaskInput]:
    """A base of 16 MB and two tasks, in a folder."""
    paths = save_family(folder, {f"h.{n}.w": (512, 512) for n in range(16)}, ["a", "b"])
    return [TaskInput(path.stem, str(path)) for path in paths]


def test_a_node_that_goes_midway_changes_nothing(cluster: Any, node: Any, tmp_path: Path) -> None:
    tasks = large(tmp_path)
    killed: list[str] = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase.startswith("packing on") and not killed:
            killed.append(phase)
            cluster.remove_node(node, allow_graceful=False)

    base, chosen = tmp_path / "base.safetensors", PackOptions(max_shard_size=SIZE)
    pack(base, tasks, tmp_path / "many.randes", chosen, RAY, progress=progress)
    assert killed == ["packing on 3 workers"]
    pack(base, tasks, tmp_path / "one.randes", chosen, ONE)
    assert everything(tmp_path / "many.randes") == everything(tmp_path / "one.randes")


def test_a_driver_that_is_killed_leaves_the_old_bank(cluster: Any, tmp_path: Path) -> None:
    tasks = large(tmp_path)
    base, bank = tmp_path / "base.safetensors", tmp_path / "bank.randes"
    pack(base, tasks[:1], bank, PackOptions(max_shard_size=SIZE), ONE)
    before = everything(bank)
    words = ["pack", str(base), *(task.source for task in tasks), "-o", str(bank), "--force", "-q"]
    words += ["--engine", "ray", "--address", cluster.address, "--max-shard-size", str(SIZE)]
    run_until("packing", tmp_path / "lock", words)
    index, files = everything(bank)
    assert index == before[0] and before[1].items() < files.items()
    assert verify(bank, run=ONE, prune=True).sound
    pack(base, tasks, bank, PackOptions(max_shard_size=SIZE), RAY, force=True)
    pack(base, tasks, tmp_path / "one.randes", PackOptions(max_shard_size=SIZE), ONE)
    assert everything(bank) == everything(tmp_path / "one.randes")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 400 kB; None where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    mounted = shutil.which("mount") and subprocess.run(command, check=False).returncode == 0
    yield place if mounted else None
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full_ends_in_one_sentence(
    cluster: Any, folder: Path, small_disk: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_disk is None:
        return
    monkeypatch.setattr("randes_cli.build.build.check_space", lambda *_: None)
    tasks = [TaskInput(name, source(folder, name)) for name in ("whole", "half")]
    with pytest.raises(NoSpace, match="no space left"):
        pack(source(folder, "base"), tasks, small_disk / "bank.randes", in_shards(), RAY)
    assert list(small_disk.rglob("*.*")) == []


def test_what_a_worker_refuses_is_what_one_machine_refuses(cluster: Any, folder: Path) -> None:
    values = np.ones((1100, 64), np.float32)
    values[70, 3] = np.nan
    save_file({"table": values}, folder / "bad.safetensors")
    tasks = [TaskInput("bad", source(folder, "bad"))]
    said = []
    for run in (ONE, RAY):
        with pytest.raises(CheckpointError) as caught:
            pack(source(folder, "base"), tasks, folder / "bank.randes", in_shards(), run)
        said.append(str(caught.value))
    assert said[0] == said[1] and "NaN" in said[0]
    assert not (folder / "bank.randes.d").exists()


@dataclass(frozen=True)
class Place:
    """What the tasks below share."""

    folder: Path

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """The folder."""
        yield self.folder


def dies(folder: Path, task: int, progress: Progress) -> int:
    """A task that no worker survives."""
    os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_workers_that_are_lost_again_and_again_end_in_one_sentence(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRIES", 1)
    with Cluster(RAY) as found, pytest.raises(OutOfResources, match="lost 2 times"):
        list(found.map(dies, found.hold(Place(tmp_path)), [1], phase="x", total=1))


class Unknown(Place):
    """What a worker of another version does not know."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (module, "what a newer version has")


def test_a_worker_of_another_version_is_told(cluster: Any, tmp_path: Path) -> None:
    with Cluster(RAY) as found, pytest.raises(UsageError, match="every machine needs randes of"):
        list(found.map(dies, found.hold(Unknown(tmp_path)), [1], phase="x", total=1))


def test_a_cluster_that_is_not_there_or_too_small_is_said(cluster: Any) -> None:
    with pytest.raises(UsageError, match="no machine of the cluster has so many"):
        Cluster(RunOptions(threads=64, engine="ray"))
    with pytest.raises(UsageError, match="say --engine ray"):
        RunOptions(address="auto")
    with pytest.raises(UsageError, match="must be one of threads, ray"):
        RunOptions(engine="spark")


def test_an_address_without_a_cluster_is_told(tmp_path: Path) -> None:
    code = (
        "from randes_cli.cluster import Cluster; from randes_cli.specs import RunOptions; "
        "Cluster(RunOptions(engine='ray', address='127.0.0.1:1'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert HubError.__name__ in done.stderr and "no Ray cluster answers there" in done.stderr
