"""Workers without memory or disk, in every verb that has some: one sentence, and what was there."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from randes_cli import NoSpace, OutOfResources, add, pack, remove, seal, unpack, verify
from randes_cli.read.places import UnpackOptions
from randes_cli.specs import EditOptions, PackOptions, RunOptions, TaskInput
from tests.cluster.conftest import RAY
from tests.cluster.deaths import Starves, instead
from tests.cluster.test_faults import large
from tests.life.models import ONE

SHARDS = PackOptions(max_shard_size=4_000_000)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two fine-tunes, and a bank of them."""
    folder = tmp_path_factory.mktemp("starved")
    pack(folder / "base.safetensors", large(folder), folder / "x.randes", SHARDS, ONE)
    return folder


def packing(folder: Path, run: RunOptions) -> None:
    pack(folder / "base.safetensors", [folder / "a.safetensors"], folder / "y.randes", SHARDS, run)


def packing_bits(folder: Path, run: RunOptions) -> None:
    chosen = PackOptions(bits=2)
    pack(folder / "base.safetensors", [folder / "a.safetensors"], folder / "y.randes", chosen, run)


def adding(folder: Path, run: RunOptions) -> None:
    add(folder / "x.randes", [TaskInput("c", str(folder / "a.safetensors"))], EditOptions(), run)


def removing(folder: Path, run: RunOptions) -> None:
    remove(folder / "x.randes", ["a"], EditOptions(), run)


def sealing(folder: Path, run: RunOptions) -> None:
    seal(folder / "x.randes", None, 4, run)


def unpacking(folder: Path, run: RunOptions) -> None:
    unpack(folder / "x.randes", None, folder / "out", UnpackOptions(), run)


def verifying(folder: Path, run: RunOptions) -> None:
    verify(folder / "x.randes", run=run)


def files(folder: Path) -> dict[str, bytes]:
    """All but locks: a worker that is ended beside the one that failed may leave a free one."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


WRITERS = [packing, packing_bits, adding, removing, sealing, unpacking]


@pytest.mark.parametrize("verb", [*WRITERS, verifying])
def test_a_worker_without_memory_ends_in_one_sentence_and_what_was_there(
    cluster: Any,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: Callable[[Path, RunOptions], None],
) -> None:
    folder = shutil.copytree(made, tmp_path / "x")
    before = files(folder)
    instead(monkeypatch, lambda work, _: Starves(work, resource.RLIMIT_AS))
    with pytest.raises(OutOfResources, match="a worker has not enough memory; say --max-memory"):
        verb(folder, RAY)
    assert files(folder) == before


@pytest.mark.parametrize("verb", WRITERS)
def test_a_worker_without_disk_ends_in_one_sentence_and_what_was_there(
    cluster: Any,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: Callable[[Path, RunOptions], None],
) -> None:
    folder = shutil.copytree(made, tmp_path / "x")
    before = files(folder)
    instead(monkeypatch, lambda work, _: Starves(work, resource.RLIMIT_FSIZE))
    with pytest.raises(NoSpace, match="no space left") as error:
        verb(folder, RAY)
    assert files(folder) == before and "\n" not in str(error.value)
