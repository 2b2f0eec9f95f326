"""Systems that lack what Linux has: the same bytes without locks, positioned calls and the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.life.models import write_family

#: Takes names away before anything is imported, as another system lacks them.
_WITHOUT = """
import os, signal, sys
for module in ("fcntl", "resource"):
    sys.modules[module] = None
for name in %r:
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGALRM", "setitimer", "ITIMER_REAL", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
real_open, real_sync = os.open, os.fsync
def opened(path, flags, mode=0o777, **more):
    if not isinstance(path, int) and os.path.isdir(path):
        raise PermissionError(13, "a folder cannot be opened", str(path))
    return real_open(path, flags, mode, **more)
os.open = opened
"""
_NAMES = (
    *("pread", "preadv", "pwrite", "pwritev", "copy_file_range", "posix_fallocate", "statvfs"),
    *("fchmod", "sched_getaffinity", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"),
)
_RUN = """
import sys
from randes_cli.files.local import disk
if sys.argv[1] == "without":
    disk._linux = lambda name, arguments: None
from randes_cli.cli.main import run
for words in (
    ["pack", "base.safetensors", "single.safetensors", "half.safetensors", "-o", "b.randes"],
    ["add", "b.randes", "whole.safetensors", "sparse.safetensors"],
    ["remove", "b.randes", "-t", "single"],
    ["pack", "base.safetensors", "whole.safetensors", "-o", "c.randes", "--bits", "2"],
    ["unpack", "b.randes", "-t", "half", "-t", "whole", "-o", "out"],
    ["verify", "b.randes"],
    ["verify", "c.randes", "--against", "whole=whole.safetensors"],
    ["seal", "b.randes", "--bits", "4", "-o", "s.randes"],
    ["report", "b.randes", "-o", "r.html"],
):
    if run(words):
        sys.exit(words)
"""


def _run(folder: Path, before: str, how: str) -> dict[str, bytes]:
    write_family(folder)
    done = subprocess.run(
        [sys.executable, "-c", before + _RUN, how],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_system_without_these_calls_writes_the_same_bytes(tmp_path: Path) -> None:
    """And leaves nothing behind: no lock, no temporary file."""
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    expected = _run(tmp_path / "with", "", "with")
    found = _run(tmp_path / "without", _WITHOUT % (_NAMES,), "without")
    assert set(found) == set(expected)
    assert found == expected
