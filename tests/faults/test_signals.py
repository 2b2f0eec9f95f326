"""SIGINT and SIGTERM at every call: codes 130 and 143, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from randes_cli.cli import main as command
from tests.faults.conftest import Scene
from tests.faults.shim import Real, count_calls, faulty
from tests.life.models import make_bank, source, write_family


def _signalling(number: int) -> Callable[[str, Real, tuple[Any, ...]], Any]:
    """The call is made, and the signal arrives before it."""

    def fault(name: str, real: Real, arguments: tuple[Any, ...]) -> Any:
        os.kill(os.getpid(), number)
        return real(*arguments)

    return fault


def _words(scene: Scene, job: str) -> list[str]:
    folder, bank = scene.folder, str(scene.bank)
    return {
        "pack": ["pack", source(folder, "base"), source(folder, "whole"), "-o", bank],
        "add": ["add", bank, source(folder, "half")],
        "remove": ["remove", bank, "--task", "whole"],
    }[job]


def _code_of_child(words: list[str], number: int, at: int, log: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
            sys.argv = ["randes", *words, "--threads", "1", "--quiet"]
            with faulty(_signalling(number), at):
                command.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 98
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_at_any_call_leaves_nothing_behind(
    scene: Scene, number: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    job = request.node.callspec.params["scene"]
    words, log = _words(scene, job), tmp_path / "stderr.txt"
    calls = count_calls(lambda: command.run([*words, "--threads", "1", "--quiet"]))
    after = scene.state()
    for at in range(1, calls + 1):
        scene.reset()
        assert _code_of_child(words, number, at, log) == 128 + number, f"call {at} of {calls}"
        assert log.read_text() == "randes: interrupted; nothing half-written was left\n"
        assert scene.litter() == [], f"call {at} of {calls}"
        assert scene.state() in (scene.before, after), f"call {at} of {calls}"


def test_a_process_that_is_told_to_stop_says_so_and_stops(tmp_path: Path) -> None:
    """Once with a real process and a real signal, while another holds the lock."""
    from randes_cli.files.lock import bank_lock

    bank = make_bank(write_family(tmp_path), ("single",))
    before = bank.read_bytes()
    words = ["add", str(bank), source(tmp_path, "half"), "--wait", "60"]
    with bank_lock(bank, wait=0):
        process = subprocess.Popen(
            [sys.executable, "-m", "randes_cli", *words],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        while not _is_ready(process.pid):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
    assert process.returncode == 143
    assert b"interrupted" in said
    assert bank.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


_LOSING = """
import os, signal, sys, time
from randes_cli.cli import main as command

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.05)

def run(arguments):
    try:
        one = Finalised()
        del one
        time.sleep(30)
    except command.Stopped as stop:
        return 128 + stop.number
    return 0

command.run = run
command.main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_arrives_where_python_drops_exceptions_still_stops(name: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", _LOSING.format(name=name)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert process.returncode == 128 + getattr(signal, name), process.stderr


def _is_ready(process: int) -> bool:
    """Whether a process has a handler of SIGTERM by now."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False
