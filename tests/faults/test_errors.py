"""Disks that fill up or fail, at every call, once and for ever; inputs that cannot be read."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from randes_cli import TuneOptions, tune
from randes_cli.build.seal.seal import seal
from randes_cli.errors import BankLocked, InputOutputError, NoSpace, UsageError
from randes_cli.files import atomic
from randes_cli.files.bank.file import BankFile
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.local.lock import bank_lock
from randes_cli.ops.verify import verify
from randes_cli.specs import RunOptions
from tests.faults.conftest import Scene
from tests.faults.failing import CODES, fail_every_call
from tests.faults.shim import count_calls, fail_with, faulty
from tests.life.models import make_bank, put, take, write_family


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("number", list(CODES), ids=lambda number: errno.errorcode[number])
def test_an_error_at_any_call_leaves_the_old_bank_or_the_new_one(
    scene: Scene, number: int, for_ever: bool
) -> None:
    _, refused = fail_every_call(scene, number, for_ever=for_ever)
    assert refused > 10


def test_writes_that_do_less_than_asked_are_continued(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, copy = os.pwrite, os.copy_file_range
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, bytes(data[:1000]), at))
    monkeypatch.setattr(
        os, "copy_file_range", lambda a, b, count, s, t: copy(a, b, min(count, 999), s, t)
    )
    scene.job()
    assert scene.state() == scene.after


def test_reads_that_give_less_than_asked_are_continued(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: read(fd, [views[0][:1000]], at))
    scene.job()
    assert scene.state() == scene.after


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE], ids=["EIO", "ESTALE"])
def test_an_input_that_cannot_be_read_changes_nothing(scene: Scene, number: int) -> None:
    names = ("preadv", "pread")
    calls = count_calls(scene.job, names)
    for at in range(1, calls + 1):
        scene.reset()
        try:
            with faulty(fail_with(number), at, names=names):
                scene.job()
        except InputOutputError as error:
            assert os.strerror(number) in str(error)
            assert scene.state() == scene.before
        else:  # a quick read made again, or an older task's: cosines are estimated then
            assert scene.is_new()
        assert scene.litter() == []


def test_untouched_parts_are_written_once_and_not_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = make_bank(write_family(tmp_path), ("whole", "half"))
    written, back = list[tuple[int, int, int]](), list[tuple[int, int]]()
    write, read = os.pwrite, os.preadv

    def count(fd: int, data: Any, at: int) -> int:
        written.append((fd, at, write(fd, data, at)))
        return written[-1][2]

    def look(fd: int, views: list[Any], at: int) -> int:
        back.extend((fd, at) for other, start, size in written if other == fd and at < start + size)
        return read(fd, views, at)

    monkeypatch.setattr(os, "pwrite", count)
    monkeypatch.setattr(os, "preadv", look)
    put(bank, "single")
    with BankFile(bank) as opened:
        untouched = sum(
            info.nbytes
            for key, info in opened.header.tensors.items()
            if key.startswith(("base/", "own/"))
        )
        whole = opened.size
    assert untouched <= sum(done for _, _, done in written) <= whole
    assert back == []


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP])
def test_without_copy_file_range_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refused = []

    def refuse(*arguments: Any) -> int:
        refused.append(arguments)
        raise OSError(number, os.strerror(number))

    source, target, data = tmp_path / "source", tmp_path / "target", os.urandom(2**21 + 7)
    source.write_bytes(data)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    with source.open("rb") as old, target.open("w+b") as new:
        OutputFile(new.fileno(), target).copy_from(old.fileno(), 3, len(data) - 3, 5)
    assert refused
    assert target.read_bytes() == bytes(5) + data[3:]


def test_too_little_free_space_is_refused_before_a_file_is_made(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.statvfs(scene.folder)
    need = len(scene.before or scene.after) // 2
    free = need // found.f_frsize
    small = SimpleNamespace(f_bavail=free, f_frsize=found.f_frsize, f_blocks=found.f_blocks)
    monkeypatch.setattr("os.statvfs", lambda path: small)
    names = ("pwrite", "ftruncate", "copy_file_range", "replace")
    with (
        faulty(fail_with(errno.EIO), 0, names=names) as counter,
        pytest.raises(NoSpace, match="bytes needed"),
    ):
        scene.job()
    assert counter.calls == 0
    assert scene.state() == scene.before


def test_a_disk_that_gives_no_figures_is_asked_by_writing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=0)  # as ramfs has it
    monkeypatch.setattr("os.statvfs", lambda path: none)
    scene.job()
    assert scene.state() == scene.after


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB; where none can be mounted, a folder with a limit on file sizes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(command, check=False).returncode == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (350_000, limits[1]))
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_real_disk_that_fills_up_keeps_the_old_bank(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_family(tmp_path)
    bank = small_disk / "bank.randes"
    bank.write_bytes(make_bank(tmp_path, ("single",)).read_bytes())
    before = bank.read_bytes()
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    with (small_disk / "ballast").open("wb") as ballast:
        for _ in range(max(0, free - 200_000) // 100_000 if free < 2**26 else 0):
            ballast.write(bytes(100_000))
    monkeypatch.setattr(atomic, "check_space", lambda folder, need: None)
    monkeypatch.setattr("randes_cli.build.build.check_space", lambda folder, need: None)
    with pytest.raises(NoSpace):
        put(bank, "whole", folder=tmp_path)
    assert bank.read_bytes() == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "bank.randes"]
    (small_disk / "ballast").unlink()
    with BankFile(bank) as opened:
        assert verify(opened, RunOptions(threads=1)).sound


def test_room_that_is_not_there_is_refused_before_a_byte_is_written(small_disk: Path) -> None:
    with (
        pytest.raises(NoSpace, match="making room"),
        atomic.atomic_file(small_disk / "bank.randes", force=False) as file,
    ):
        file.reserve(2**40)
    assert list(small_disk.iterdir()) == []


def test_an_edit_keeps_the_permissions_of_the_bank(tmp_path: Path) -> None:
    bank = make_bank(write_family(tmp_path), ("single",))
    bank.chmod(0o640)
    put(bank, "half")
    assert bank.stat().st_mode & 0o777 == 0o640


def test_an_edit_through_a_link_edits_the_bank_that_it_points_to(tmp_path: Path) -> None:
    store, here = tmp_path / "store", tmp_path / "here"
    store.mkdir()
    here.mkdir()
    write_family(store)
    stored = make_bank(store, ("single", "half"))
    link = here / "bank.randes"
    link.symlink_to(stored)
    with bank_lock(stored, wait=0), pytest.raises(BankLocked):
        put(link, "whole", folder=store)
    put(link, "whole", folder=store)
    tune(link, lambda path, task: 1.0, TuneOptions((0.5,)))
    take(link, "single")
    assert link.is_symlink() and link.resolve() == stored
    assert [path.name for path in here.iterdir()] == ["bank.randes"]
    with BankFile(stored) as opened:
        assert [task.name for task in opened.manifest.tasks] == ["half", "whole"]


def test_a_bank_in_the_cache_of_the_hub_is_not_edited_through_its_link(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    write_family(tmp_path)
    stored = make_bank(tmp_path, ("single", "half")).rename(blobs / "0123")
    link = snapshot / "bank.randes"
    link.symlink_to(stored)
    before = stored.read_bytes()
    for edit in (
        lambda: put(link, "whole", folder=tmp_path),
        lambda: take(link, "single"),
        lambda: seal(link, None, 4),
        lambda: tune(link, lambda path, task: 1.0, TuneOptions((0.5,))),
    ):
        with pytest.raises(UsageError, match="the Hub's cache"):
            edit()
    assert stored.read_bytes() == before and link.is_symlink()
    seal(link, tmp_path / "sealed.randes", 4)
