"""SIGINT and SIGTERM at every call: codes 130 and 143, and nothing left behind."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from randes_cli import interrupts
from randes_cli.cli import main as command
from tests.faults.conftest import Scene
from tests.faults.shim import Real, count_calls, faulty
from tests.faults.stopping import SAID, handles_signals
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
            atexit._clear()
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
        assert log.read_text() == SAID
        assert scene.litter() == [], f"call {at} of {calls}"
        assert scene.state() in (scene.before, after), f"call {at} of {calls}"


def test_a_process_that_is_told_to_stop_says_so_and_stops(tmp_path: Path) -> None:
    """Once with a real process and a real signal, while another holds the lock."""
    from randes_cli.files.local.lock import bank_lock

    bank = make_bank(write_family(tmp_path), ("single",))
    before = bank.read_bytes()
    words = ["add", str(bank), source(tmp_path, "half"), "--wait", "3600"]
    with bank_lock(bank, wait=0):
        process = subprocess.Popen(
            [sys.executable, "-m", "randes_cli", *words],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        while not handles_signals(process.pid):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]  # it waits no longer
    assert process.returncode == 143
    assert b"interrupted" in said
    assert bank.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_no_signal_comes_between_a_with_and_its_generator() -> None:
    """Else what the generator did were nobody's; in it, and in what it is about, one may come."""
    found: set[tuple[str, bool]] = set()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event.startswith("c_"):  # before and after what is built in
            found.add((frame.f_code.co_name, interrupts._can_travel(sys._getframe())))

    @contextmanager
    def made() -> Iterator[None]:
        len("before the block")
        yield
        len("after it")

    @made()
    def decorated() -> None:
        len("in what it decorates")

    def run() -> None:
        sys.setprofile(look)
        with made():
            len("in the block")
        decorated()
        sys.setprofile(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    places = ("__init__", "made", "run", "decorated")  # the first: nothing has begun
    assert found == {("__enter__", False), ("__exit__", False), *((p, True) for p in places)}


def test_no_signal_comes_between_a_with_and_the_lock_of_a_condition() -> None:
    """Else the lock stayed taken: a command that was stopped waited for its threads for ever."""
    found: set[tuple[str, str, bool]] = set()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event.startswith("c_"):
            name = (frame.f_code.co_name, argument.__name__)
            found.add((*name, interrupts._can_travel(sys._getframe())))

    def run() -> None:
        sys.setprofile(look)
        threading.Event().wait(0.001)
        sys.setprofile(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ("__enter__", "__enter__", False) in found
    assert ("wait", "acquire", True) in found
