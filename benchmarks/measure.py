"""Runs a command in a process of its own and says what it took."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: As a user has it: modules are compiled once, and not by each command.
_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
_PRESSURE = Path("/proc/pressure/cpu")


@dataclass(frozen=True)
class Taken:
    """Wall seconds, CPU seconds (user and system), and the most anonymous memory in MB.

    `waited`: seconds in which some process, ours or another's, waited for a core (0 where the
    system does not tell).
    """

    seconds: float
    cpu: float
    anonymous: float
    waited: float


def measure(command: Sequence[str] | str, log: Path) -> Taken:
    """Run a command (a string: in a shell); its output goes to `log`.

    Anonymous memory is polled every 10 ms from the process itself (0 where the system does not
    tell), so a shell's children do not count. Raises RuntimeError when the command fails.
    """
    start, before, waited = time.perf_counter(), os.times(), _waited()
    with log.open("wb") as talk:
        process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            stdout=talk,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT,
        )
        most = 0
        while process.poll() is None:
            most = max(most, _anonymous(process.pid))
            time.sleep(0.01)
    seconds, after = time.perf_counter() - start, os.times()
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{log.read_text(errors='replace')[-2000:]}")
    cpu = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return Taken(seconds, cpu, most / 1e6, _waited() - waited)


def _waited() -> float:
    try:
        found = re.search(r"some .*total=(\d+)", _PRESSURE.read_text())
    except OSError:
        found = None
    return int(found[1]) / 1e6 if found else 0.0


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def median(runs: Sequence[Taken]) -> Taken:
    """The medians of several runs, each figure by itself; of the memory the most."""
    return Taken(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu for run in runs),
        max(run.anonymous for run in runs),
        statistics.median(run.waited for run in runs),
    )


def randes(*words: object) -> list[str]:
    """A `randes` command line of this interpreter."""
    return [sys.executable, "-m", "randes_cli", *map(str, words)]


def touch_memory(gigabytes: float) -> None:
    """Use and free memory, so that no job pays for pages that the system never handed out."""
    block = 2**26
    blocks = [bytearray(block) for _ in range(int(gigabytes * 2**30) // block)]
    for data in blocks:
        data[::4096] = b"\1" * len(data[::4096])
