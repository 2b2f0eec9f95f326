"""Parts of `make torture` that work with the library: kills, races, sequences, size, speed."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from safetensors.numpy import save_file

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.verify import verify
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import PackOptions, RunOptions, TaskInput, Transform
from tests.faults.writers import two_writers
from tests.life import models

ALL = RunOptions()


class Outcome(NamedTuple):
    """What was tried, how often, and what came of it each time."""

    tried: str
    times: int
    found: str


def require(sound: bool, what: str) -> None:
    if not sound:
        raise SystemExit(f"FAILED: {what}")


def _digest(path: Path) -> str:
    running = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while block := file.read(2**24):
            running.update(block)
    return running.hexdigest()


def large_family(folder: Path, megabytes: int) -> None:
    """Files whose bank of one task has about so many megabytes: two parts base, one part sum."""
    source = np.random.default_rng(0)
    rows = max(1, megabytes * 10**6 // 6 // 1024 // 16)
    base = {f"h.{n}.w": source.standard_normal((rows, 1024), np.float32) for n in range(16)}
    save_file(base, folder / "base.safetensors")
    for name in ("one", "two"):
        moved = {k: v + 0.01 * source.standard_normal(v.shape, np.float32) for k, v in base.items()}
        save_file(moved, folder / f"{name}.safetensors")


def killed_after(seconds: float, job: Callable[[], object]) -> bool:
    """Run a job in a child that is killed after so many seconds; whether it had ended before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    require(os.WIFSIGNALED(status) or status == 0, "a job failed by itself")
    return status == 0


def kills(folder: Path, words: argparse.Namespace) -> Outcome:
    """kill -9 of add and remove at random times: the old bank or the new one, and sound."""
    large_family(folder, words.megabytes)
    bank, states = folder / "bank.randes", {}
    one, two = (TaskInput(name, str(folder / f"{name}.safetensors")) for name in ("one", "two"))
    pack(str(folder / "base.safetensors"), [one], bank, run=ALL)
    jobs: dict[str, Callable[[], object]] = {
        "add": lambda: add(bank, [two], run=ALL),
        "remove": lambda: remove(bank, ["two"], run=ALL),
    }
    seconds, size = {}, bank.stat().st_size
    for name, job in jobs.items():
        shutil.copyfile(bank, folder / f"{name}.old")
        started, before = time.perf_counter(), _digest(bank)
        started = time.perf_counter()
        job()
        seconds[name] = time.perf_counter() - started
        states[name] = before, _digest(bank)
    pick, met = random.Random(1), Counter[str]()
    for number in range(words.kills):
        name = ("add", "remove")[number % 2]
        shutil.copyfile(folder / f"{name}.old", bank)
        killed_after(pick.uniform(0, 1.1 * seconds[name]), jobs[name])
        found = _digest(bank)
        require(found in states[name], f"kill {number} of {name}: neither the old nor the new")
        met[f"{name}: {'old' if found == states[name][0] else 'new'}"] += 1
        if number % 20 < 2:
            with BankFile(bank) as opened:
                require(verify(opened, ALL).sound, "a bank after a kill is not sound")
    shutil.copyfile(folder / "add.old", bank)
    jobs["add"]()
    litter = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    require(not litter, f"left behind: {litter}")
    said = ", ".join(f"{count} {state}" for state, count in sorted(met.items()))
    return Outcome(
        f"`kill -9` of `add` and `remove` at random times, on a bank of {size / 1e6:.0f} MB",
        words.kills,
        f"the old bank or the new one, sound ({said}); nothing beside it after the next write",
    )


def writers(folder: Path, words: argparse.Namespace) -> Outcome:
    """Two writers and a reader."""
    bank = models.make_bank(models.write_family(folder), ("single", "whole"))
    two_writers(bank, words.adds)
    return Outcome(
        "`add` by two processes at once, beside a reader",
        2 * words.adds,
        "none is lost, and every retrieval is right",
    )


def sequences(folder: Path, words: argparse.Namespace) -> Outcome:
    """Long random sequences of edits, each compared with packing afresh."""
    models.write_family(folder)
    pick, edits = random.Random(2), 0
    for _ in range(words.sequences):
        chosen = models.options(
            pick.choice(("two-sided", "hankel", "srsf", "rsf", "s", "shift", "ta")),
            pick.choice((16, 8)),
        )
        here = pick.sample(models.NAMES, pick.randint(1, 4))
        bank = models.make_bank(folder, tuple(here), chosen)
        for _ in range(pick.randint(3, 15)):
            name = pick.choice(models.NAMES)
            (models.take if name in here else models.put)(bank, name)
            here.remove(name) if name in here else here.append(name)
            edits += 1
        fresh = models.sums(models.packed_afresh(bank, folder)) if here else {}
        require(models.sums(bank) == fresh, f"{chosen}: {here} is not what packing afresh gives")
    return Outcome(
        f"edits in {words.sequences} random sequences", edits, "each ends equal to packing afresh"
    )


def fuzz(folder: Path, words: argparse.Namespace) -> Outcome:
    """The fuzzer, in a process of its own, whose memory it watches."""
    command = [sys.executable, "-m", "tests.hostile.fuzz", "--cases", str(words.cases)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"{done.stdout}{done.stderr}")
    return Outcome(
        "forged headers and manifests, opened, described, verified and retrieved",
        words.cases,
        f"one line, or a bank that can be read ({done.stdout.strip().split(', ', 1)[1]})",
    )


def _tensors(folder: Path, count: int) -> dict[str, float]:
    """Seconds of each verb on a family of `count` layers of one type, shuffled."""
    value = np.ones((2, 2), np.float32)
    base = {f"h.{n}.w": value for n in range(count)}
    save_file(base, folder / "base.safetensors")
    save_file({k: v + np.float32(0.5) for k, v in base.items()}, folder / "one.safetensors")
    bank, one = folder / "bank.randes", str(folder / "one.safetensors")
    options = PackOptions(transform=Transform.from_preset("srsf"))
    verbs: dict[str, Callable[[], object]] = {
        "pack": lambda: pack(
            str(folder / "base.safetensors"),
            [TaskInput("one", one)],
            bank,
            options,
            models.ONE,
            force=True,
        ),
        "verify": lambda: verify(BankFile(bank), models.ONE),
        "unpack": lambda: unpack(
            bank, ["one"], folder / "out.st", UnpackOptions(force=True), models.ONE
        ),
        "add": lambda: add(bank, [TaskInput("two", one)], run=models.ONE),
        "remove": lambda: remove(bank, ["one"], run=models.ONE),
    }
    seconds = {}
    for name, verb in verbs.items():
        started = time.process_time()
        verb()
        seconds[name] = time.process_time() - started
    return seconds


def tensors(folder: Path, words: argparse.Namespace) -> Outcome:
    """No verb takes more than its share when tensors multiply by ten."""
    few, many = _tensors(folder, words.tensors // 10), _tensors(folder, words.tensors)
    for name in many:
        require(many[name] < 20 * few[name] + 1, f"{name}: {few[name]:.1f} s, {many[name]:.1f} s")
    said = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in many.items())
    return Outcome(
        "tensors in one bank, of one type, shuffled",
        words.tensors,
        f"{said} (of a tenth as many: {sum(few.values()):.1f} s in all)",
    )


def speed(folder: Path, words: argparse.Namespace) -> Outcome:
    """How fast `verify` reads a bank that is in the page cache."""
    large_family(folder, words.megabytes)
    bank = folder / "bank.randes"
    one = TaskInput("one", str(folder / "one.safetensors"))
    pack(str(folder / "base.safetensors"), [one], bank, run=ALL)
    best = 0.0
    with BankFile(bank) as opened:
        for _ in range(5):
            started = time.perf_counter()
            report = verify(opened, ALL)
            best = max(best, report.bytes_checked / (time.perf_counter() - started) / 1e9)
    cores = len(os.sched_getaffinity(0))
    return Outcome("`verify` of a bank in memory", 5, f"{best:.2f} GB/s on {cores} cores")
