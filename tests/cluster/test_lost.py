"""Drivers lost in the jobs other than `pack` and `seal`: what was there stays.

(Those two are in `test_faults` and `test_seal`; workers that die are in `test_workers`.)
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from randes_cli import HubError, add, pack, unpack, verify
from randes_cli.read.places import UnpackOptions
from randes_cli.specs import EditOptions, PackOptions, RunOptions, TaskInput
from randes_cli.workers import Progress, no_progress
from tests.cluster.conftest import RAY
from tests.cluster.deaths import Work, instead
from tests.cluster.driver import run_until
from tests.cluster.test_faults import large
from tests.life.models import ONE
from tests.shards.conftest import everything

SHARDS = PackOptions(max_shard_size=1_000_000)
#: What a job comes to, to be compared.
Job = Callable[[Path, RunOptions, Progress], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and a bank in shards of two tasks, with a third beside it."""
    folder = tmp_path_factory.mktemp("lost")
    tasks = large(folder)
    pack(folder / "base.safetensors", tasks, folder / "x.randes", SHARDS, ONE)
    return folder


@pytest.fixture
def twice(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two copies of the folder."""
    return tuple(shutil.copytree(made, tmp_path / name) for name in ("one", "many"))  # type: ignore[return-value]


def adding(folder: Path, run: RunOptions, progress: Progress) -> object:
    task = TaskInput("more", str(folder / "a.safetensors"))
    add(folder / "x.randes", [task], EditOptions(), run, progress=progress)
    return everything(folder / "x.randes")


def unpacking(folder: Path, run: RunOptions, progress: Progress) -> object:
    options = UnpackOptions(force=True)
    unpack(folder / "x.randes", None, folder / "out", options, run, progress=progress)
    return files(folder / "out")


def files(folder: Path) -> dict[str, bytes]:
    """What a folder has, but for locks and what is on its way."""
    found = (path for path in folder.rglob("[!.]*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("words", "job", "phase"),
    [
        ("add {0}/x.randes more={0}/a.safetensors", adding, "adding"),
        ("unpack {0}/x.randes --all -o {0}/out", unpacking, "unpacking"),
    ],
    ids=["add", "unpack"],
)
def test_a_driver_that_is_killed_leaves_what_was_there(
    cluster: Any, twice: tuple[Path, Path], words: str, job: Job, phase: str
) -> None:
    one, many = twice
    before = everything(many / "x.randes")
    told = ["-q", "--engine", "ray", "--address", cluster.address]
    run_until(phase, many / "lock", [*words.format(many).split(), *told])
    index, shards = everything(many / "x.randes")
    assert index == before[0] and before[1].items() <= shards.items()
    assert (job is unpacking) == (before[1] == shards)
    done = job(one, ONE, no_progress)
    if job is unpacking:
        assert files(many / "out")
        assert files(many / "out").items() <= files(one / "out").items()
    assert verify(many / "x.randes", run=ONE, prune=True).sound
    assert job(many, RAY, no_progress) == done


@dataclass(frozen=True)
class LeavesThings:
    """Work that a worker does not come to, for it is ended as it begins to write a task."""

    work: Work
    out: Path

    def __call__(self, state: Any, task: Any, progress: Progress) -> Any:
        for name in (".a.safetensors.lock", ".a.safetensors.x.randes-tmp", ".b.safetensors.lock"):
            (self.out / name).touch()
        raise HubError("as the test wants it")


def test_what_workers_of_unpack_leave_that_are_ended_goes_with_the_job(
    cluster: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not the lock of one who is at work."""
    out = tmp_path / "out"
    out.mkdir()
    instead(monkeypatch, lambda work, _: LeavesThings(work, out))
    with (
        pytest.raises(HubError, match="as the test wants it"),
        (out / ".b.safetensors.lock").open("w") as held,
    ):
        fcntl.flock(held, fcntl.LOCK_EX)
        unpack(made / "x.randes", None, out, UnpackOptions(), RAY)
    assert [path.name for path in out.iterdir()] == [".b.safetensors.lock"]
