"""A signal at any moment: 128 + number, one line, the old files or the new ones.

`make torture` does the same a thousand times.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import pytest

from tests.faults.stopping import (
    SAID,
    Fresh,
    contents,
    count_events,
    job,
    stop_at,
    words_of_jobs,
)

#: Signals that a command is met by, and one that draws pictures, of millions of events.
SEVERAL, FEW = 6, 3


@pytest.mark.parametrize("name", words_of_jobs(Path()))
def test_a_signal_at_a_profile_event_ends_every_command_cleanly(name: str, tmp_path: Path) -> None:
    made = job(tmp_path, name)
    events = count_events(made)
    apart = events // (SEVERAL if events < 10**6 else FEW)
    # the first is before `main`; how many there are differs by a few from run to run
    for turn, at in enumerate(range(100 + len(name), int(0.99 * events), apart)):
        number = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[turn % 3]
        assert stop_at(made, at, number) == 128 + number, f"event {at} of {events}"
        assert made.said().endswith(SAID), f"event {at} of {events}"
        assert made.faults() == [], f"event {at} of {events}"
        if at < events / 2 and made.before != made.after:
            assert contents(made.folder) != made.after, f"event {at} of {events} stopped nothing"
        made.reset()


def test_a_signal_while_python_compiles_the_sources_is_not_lost(tmp_path: Path) -> None:
    fresh = Fresh(tmp_path)
    for turn in range(8):
        assert fresh.stop(seconds=0.06 * turn, number=signal.SIGTERM) == []


#: What a process does when the signal comes: places where Python loses exceptions.
_PLACES = {
    "a finaliser": """
class Finalised:
    def __del__(self):
        send()
        time.sleep(0.05)
one = Finalised()
del one
time.sleep(30)
""",
    "the compiler": """
signal.signal(signal.SIGVTALRM, lambda number, frame: send())
signal.setitimer(signal.ITIMER_VIRTUAL, 0.005)
compile("x = 1\\n" * 400_000 + "y = 2**63\\n" * 9, "large", "exec")
time.sleep(30)
""",
    "a descriptor's naming": """
class Named:
    def __set_name__(self, owner, name):
        send()
        time.sleep(0.05)
try:
    class Owner:
        one = Named()
except RuntimeError:
    pass
time.sleep(30)
""",
    "code that catches all": """
try:
    send()
    time.sleep(30)
except BaseException:
    pass
time.sleep(30)
""",
    "a wait for a thread": """
threading.Timer(0.02, send).start()
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()
time.sleep(30)
""",
    "putting files away": """
from randes_cli.files.passing import passing_folder
with passing_folder() as folder:
    (folder / "one").touch()
    for _ in range(3):
        send()
time.sleep(30)
""",
    "a lock that is taken": """
import fcntl
from pathlib import Path
from randes_cli.files.local.lock import bank_lock
real = fcntl.flock
def flock(*words):
    real(*words)
    send()
fcntl.flock = flock
with bank_lock(Path(os.environ["TMPDIR"]) / "bank", wait=0, edits=False):
    time.sleep(30)
""",
    "an error that is explained": """
send()
raise RuntimeError("what the signal was made into")
""",
}
_PLACE = """
import os, signal, sys, threading, time
from randes_cli.cli import main as command

def send():
    os.kill(os.getpid(), signal.{name})

def run(arguments):
{body}
    return 0

command.run = run
command.main()
"""


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)}


@pytest.mark.parametrize(
    ("place", "name"),
    # each place and each signal: what is done with one does not ask which it is
    [*zip(_PLACES, cycle(["SIGINT", "SIGTERM", "SIGHUP"]), strict=False)],
)
def test_a_signal_where_python_loses_exceptions_still_ends_the_command(
    place: str, name: str, tmp_path: Path
) -> None:
    body = "\n".join(f"    {line}" for line in _PLACES[place].splitlines())
    process = subprocess.run(
        [sys.executable, "-c", _PLACE.format(name=name, body=body)],
        capture_output=True,
        text=True,
        env=_environment(tmp_path),
        check=False,
    )
    assert process.returncode == 128 + getattr(signal, name), process.stderr
    assert process.stderr == SAID
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_was_ignored_before_goes_on_to_be(tmp_path: Path) -> None:
    """As `nohup` has it, and shells in the background."""
    ignored = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    body = "    send()\n    print('done')"
    process = subprocess.run(
        [sys.executable, "-c", ignored + _PLACE.format(name="SIGHUP", body=body)],
        capture_output=True,
        text=True,
        env=_environment(tmp_path),
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "done\n", "")


def _full_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer


def _waits_for(process: int) -> str:
    return Path(f"/proc/{process}/wchan").read_text()


@pytest.mark.parametrize(
    ("stream", "words"),
    [("stderr", ["verify", "no-such-bank.randes"]), ("stdout", ["--help"])],
    ids=["an error", "what it prints"],
)
def test_a_signal_while_nobody_reads_what_is_said_ends_the_command(
    stream: str, words: list[str]
) -> None:
    reader, writer = _full_pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "randes_cli", *words],
        env=_environment(Path("/tmp")),
        stdout=writer if stream == "stdout" else subprocess.DEVNULL,
        stderr=writer if stream == "stderr" else subprocess.DEVNULL,
    )
    while "pipe" not in _waits_for(process.pid):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert not select.select([], [writer], [], 0)[1]
    os.close(reader)
    os.close(writer)
