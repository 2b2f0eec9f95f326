"""Writes of compiled code, which asks no function of Python's, fail once, or from then on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
static int calls;
static int fails(void) {
    int at = atoi(getenv("FAIL_AT")), number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    FILE *count = fopen(getenv("COUNT"), "w");
    fprintf(count, "%d", number);
    fclose(count);
    return at && (number == at || (number > at && atoi(getenv("FOR_EVER"))));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    if (fails()) { errno = atoi(getenv("FAIL_WITH")); return -1; }
    struct iovec one = {(void *)data, size};
    return pwritev64(fd, &one, 1, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return pwrite64(fd, data, size, at);
}
"""
#: What fails, with the exit code that tells it.
ERRORS = {errno.ENOSPC: 8, errno.EIO: 74}
#: What a job writes, beside what was there.
_PACK = ("pack", "base.safetensors", "a.safetensors", "b.safetensors", "-o")
JOBS = {
    "pack": [*_PACK, "new.randes"],
    "cut": [*_PACK, "new.randes", "--bits", "2"],
    "add": ["add", "bank.randes", "c.safetensors"],
    "remove": ["remove", "bank.randes", "a"],
    "unpack": ["unpack", "bank.randes", "a", "-o", "out"],
}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(_SHIM)
    words = ["cc", "-shared", "-fPIC", "-O1", "-w", "-o", "shim.so", "shim.c", "-ldl"]
    subprocess.run(words, cwd=folder, check=True)
    return folder / "shim.so"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three fine-tunes of two matrices of several strips and many small ones."""
    folder, source = tmp_path_factory.mktemp("family"), np.random.default_rng(0)
    shapes = {"large": (400, 512), "wide": (256, 300), **{f"s{n}": (8, 16) for n in range(40)}}
    base = {n: source.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    save_file(base, folder / "base.safetensors")
    for name in "abc":
        task = {
            n: t + np.float32(0.01) * source.standard_normal(t.shape, np.float32)
            for n, t in base.items()
        }
        save_file(task, folder / f"{name}.safetensors")
    ended = subprocess.run(
        [sys.executable, "-m", "randes_cli", *_PACK, "bank.randes"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder


def _state(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("job", JOBS)
def test_a_write_that_fails_ends_the_job_and_leaves_what_was_there(
    job: str, family: Path, shim: Path, tmp_path: Path
) -> None:
    """The first, one in the middle and the last, once or from then on, with either error."""
    folder = tmp_path / "work"

    def run(at: int, number: int, *, for_ever: bool) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(family, folder)
        faults = {"FAIL_AT": str(at), "FAIL_WITH": str(number), "FOR_EVER": str(int(for_ever))}
        return subprocess.run(
            [sys.executable, "-m", "randes_cli", *JOBS[job], "--threads", "1"],
            cwd=folder,
            env={
                **os.environ,
                **faults,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "LD_PRELOAD": str(shim),
                "COUNT": str(tmp_path / "count"),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    before = _state(family)
    whole = run(0, 0, for_ever=False)
    assert whole.returncode == 0, whole.stderr
    assert _state(folder) != before
    calls = int((tmp_path / "count").read_text())
    assert calls > 2
    for turn, at in enumerate(sorted({1, calls // 2, calls})):
        number = [*ERRORS][(turn + [*JOBS].index(job)) % 2]
        ended = run(at, number, for_ever=turn == 1)
        assert ended.returncode == ERRORS[number], (at, calls, ended.stderr)
        assert os.strerror(number) in ended.stderr and ended.stderr.count("\n") == 1
        assert _state(folder) == before
