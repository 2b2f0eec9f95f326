"""Folders among the temporary files: gone with their process, whatever ended it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from randes_cli.files.passing import passing_folder

_LIVES = """
import sys, time
from randes_cli.files.passing import passing_folder
with passing_folder() as folder:
    (folder / "spool").write_bytes(b"1")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_folder_of_a_killed_process_goes_with_the_next_and_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "randes-mine").mkdir()  # of somebody else, and so is what lies in it
    (tmp_path / "randes-mine" / "lock").touch()
    (tmp_path / "other" / "files").mkdir(parents=True)
    (tmp_path / "other" / "lock").touch()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _LIVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    folders = [Path(one.stdout.readline().strip()) for one in running if one.stdout]
    assert all((folder / "spool").is_file() for folder in folders)
    running[0].kill()
    running[0].wait()
    with passing_folder() as ours:
        assert not folders[0].exists() and (folders[1] / "spool").is_file()
        with passing_folder():
            assert ours.is_dir()
    running[1].communicate("")
    assert {path.name for path in tmp_path.iterdir()} == {"other", "randes-mine"}
    assert (tmp_path / "randes-mine" / "lock").is_file()
