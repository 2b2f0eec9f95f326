"""Commands in children that a signal meets at a chosen moment, and what they leave."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import randes_cli
from randes_cli.cli import main as command
from tests.life.models import make_bank, source, write_family

SAID = "randes: interrupted; nothing half-written was left\n"


@dataclass(frozen=True)
class Job:
    """A command in a folder of its own, and every file there before it and after it."""

    folder: Path
    words: list[str]
    before: dict[str, bytes]
    after: dict[str, bytes]

    def reset(self) -> None:
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir():
                if path.name != "tmp":
                    path.rmdir()
            elif str(path.relative_to(self.folder)) not in self.before:
                path.unlink()
        for name, data in self.before.items():
            if not (self.folder / name).exists() or (self.folder / name).read_bytes() != data:
                (self.folder / name).write_bytes(data)

    def said(self) -> str:
        """What the last child said."""
        return (self.folder.parent / "said").read_text()

    def faults(self) -> list[str]:
        """Files that are neither the old nor the new ones."""
        found = contents(self.folder)
        wrong = {
            name
            for name, data in found.items()
            if data not in (self.before.get(name), self.after.get(name))
        }
        # what `tune` measures it keeps as it goes, to continue there
        wrong = {name for name in wrong if not name.endswith(".tuning.json")}
        return sorted(wrong | (self.before.keys() & self.after.keys() - found.keys()))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def words_of_jobs(folder: Path) -> dict[str, list[str]]:
    """Every command that writes, and two that read, on ``bank.randes`` of a folder."""
    bank, one = str(folder / "bank.randes"), source(folder, "whole")
    score = "echo 0.5 # {checkpoint}"
    return {
        "pack": ["pack", source(folder, "base"), one, "-o", str(folder / "new.randes")],
        "replace": ["pack", source(folder, "base"), one, "-o", bank, "--force", "--bits", "2"],
        "add": ["add", bank, source(folder, "half")],
        "remove": ["remove", bank, "--task", "whole"],
        "forget": ["remove", bank, "--task", "whole", "--forget"],
        "seal": ["seal", bank, "--bits", "2", "--in-place"],
        "unpack": ["unpack", bank, "--all", "-o", str(folder / "out")],
        "shards": [
            "unpack",
            bank,
            "-t",
            "whole",
            "-o",
            str(folder / "o"),
            "--max-shard-size",
            "9KB",
        ],
        "tune": ["tune", bank, "--evaluate", score, "--grid", "1", "-t", "single"],
        "evaluate": ["evaluate", bank, "--evaluate", score, "--csv", str(folder / "e.csv")],
        "report": ["report", bank, "-o", str(folder / "report.html")],
        "diff": ["diff", bank, f"whole={one}"],
        "verify": ["verify", bank],
        "inspect": ["inspect", bank, "--json"],
    }


def job(folder: Path, name: str) -> Job:
    """A job, with what it does when nothing disturbs it."""
    folder = folder / "work"
    folder.mkdir()
    make_bank(write_family(folder), ("whole", "single"))
    (folder / "tmp").mkdir()
    words, before = words_of_jobs(folder)[name], contents(folder)
    command.run([*words, "--quiet"])  # so that children need not import what it needs
    Job(folder, words, before, {}).reset()
    code = run_child(folder, words, lambda: None)
    if code not in (0, 1):
        raise AssertionError(f"{name} ends with {code}: {(folder.parent / 'said').read_text()}")
    made = Job(folder, words, before, contents(folder))
    made.reset()
    return made


def run_child(folder: Path, words: list[str], disturb: Callable[[], object]) -> int:
    """The exit code of a command in a forked child; its stderr goes to ``said`` beside it."""
    child = os.fork()
    if child == 0:
        try:
            atexit._clear()  # what the parent will put away is not this process's
            log = os.open(folder.parent / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            sys.argv = ["randes", *words, "--threads", "1"]
            if words[0] in ("inspect", "report"):
                del sys.argv[-2:]
            os.environ["TMPDIR"] = str(folder / "tmp")
            disturb()
            command.main()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Watch:
    """Counts what Python's profiler reports, and sends a signal at the `at`-th event."""

    def __init__(self, at: int, number: int, count_to: Path | None = None) -> None:
        self.seen, self.at, self.number, self.count_to = 0, at, number, count_to

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), self.number)


def count_events(made: Job) -> int:
    """How many events a job has."""
    place = made.folder.parent / "count"

    def disturb() -> None:
        watch = Watch(0, 0)
        leave = os._exit

        def note(code: int) -> None:
            sys.setprofile(None)
            place.write_text(str(watch.seen))
            leave(code)

        os._exit = note  # type: ignore[assignment]
        sys.setprofile(watch)

    run_child(made.folder, made.words, disturb)
    made.reset()
    return int(place.read_text())


def stop_at(made: Job, at: int, number: int = signal.SIGTERM) -> int:
    """The exit code of a job that a signal meets at an event."""
    return run_child(made.folder, made.words, lambda: sys.setprofile(Watch(at, number)))


class Fresh:
    """A copy of the sources without bytecode, as on a fresh clone, which runs `add`."""

    def __init__(self, folder: Path) -> None:
        self.sources, self.work = folder / "src", folder / "work"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(
            Path(randes_cli.__file__).parent, self.sources / "randes_cli", ignore=ignored
        )
        self.work.mkdir()
        bank = make_bank(write_family(self.work), ("single",))
        self.words = ["add", str(bank), source(self.work, "half")]
        self.old = contents(self.work)
        self._start().wait()
        self.new = contents(self.work)

    def _start(self) -> subprocess.Popen[bytes]:
        paths = [str(self.sources), *(path for path in sys.path if "site-packages" in path)]
        return subprocess.Popen(
            [sys.executable, "-m", "randes_cli", *self.words],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def stop(self, seconds: float, number: int) -> list[str]:
        """What is wrong after a signal so long after the handler is there."""
        (self.work / "bank.randes").write_bytes(self.old["bank.randes"])
        process = self._start()
        while not handles_signals(process.pid) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(number)
        said = process.communicate()[1].decode()
        found = contents(self.work)
        if process.returncode == 0 and found == self.new:
            return []  # it had ended
        wrong = [] if found in (self.old, self.new) else [f"files: {sorted(found)}"]
        if process.returncode != 128 + number or not said.endswith(SAID):
            wrong.append(f"code {process.returncode}: {said}")
        return wrong


def handles_signals(process: int) -> bool:
    """Whether a process has a handler of SIGTERM by now."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False
