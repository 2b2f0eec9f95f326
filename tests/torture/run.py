"""`make torture`: what takes longer than a test may. Every part ends the run at its first fault.

python -m tests.torture.run [--only PART ...] [--folder DIR] [--megabytes 500] [--kills 200]
                            [--adds 50] [--cases 100000] [--sequences 200] [--tensors 100000]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xxhash
from safetensors.numpy import save_file

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.files.bank import BankFile
from randes_cli.ops.verify import verify
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import PackOptions, RunOptions, TaskInput, Transform
from tests.faults.writers import two_writers
from tests.life import models

ALL = RunOptions()


def _require(sound: bool, what: str) -> None:
    if not sound:
        raise SystemExit(f"FAILED: {what}")


def _digest(path: Path) -> str:
    running = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while block := file.read(2**24):
            running.update(block)
    return running.hexdigest()


def _large_family(folder: Path, megabytes: int) -> None:
    """Files whose bank of one task has about so many megabytes: two parts base, one part sum."""
    source = np.random.default_rng(0)
    rows = max(1, megabytes * 10**6 // 6 // 1024 // 16)
    base = {f"h.{n}.w": source.standard_normal((rows, 1024), np.float32) for n in range(16)}
    save_file(base, folder / "base.safetensors")
    for name in ("one", "two"):
        moved = {k: v + 0.01 * source.standard_normal(v.shape, np.float32) for k, v in base.items()}
        save_file(moved, folder / f"{name}.safetensors")


def _killed_after(seconds: float, job: Callable[[], object]) -> bool:
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
    _require(os.WIFSIGNALED(status) or status == 0, "a job failed by itself")
    return status == 0


def kills(folder: Path, words: argparse.Namespace) -> str:
    """kill -9 of add and remove at random times: the old bank or the new one, and sound."""
    _large_family(folder, words.megabytes)
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
        _killed_after(pick.uniform(0, 1.1 * seconds[name]), jobs[name])
        found = _digest(bank)
        _require(found in states[name], f"kill {number} of {name}: neither the old nor the new")
        met[f"{name}: {'old' if found == states[name][0] else 'new'}"] += 1
        if number % 20 < 2:
            with BankFile(bank) as opened:
                _require(verify(opened, ALL).sound, "a bank after a kill is not sound")
    shutil.copyfile(folder / "add.old", bank)
    jobs["add"]()
    litter = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    _require(not litter, f"left behind: {litter}")
    return f"{words.kills} kills on a bank of {size / 1e6:.0f} MB: {dict(sorted(met.items()))}"


def writers(folder: Path, words: argparse.Namespace) -> str:
    """Two writers and a reader."""
    bank = models.make_bank(models.write_family(folder), ("single", "whole"))
    two_writers(bank, words.adds)
    return f"2 × {words.adds} adds beside a reader: none lost, every retrieval right"


def sequences(folder: Path, words: argparse.Namespace) -> str:
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
        _require(models.sums(bank) == fresh, f"{chosen}: {here} is not what packing afresh gives")
    return f"{words.sequences} sequences of {edits} edits: each equal to packing afresh"


def fuzz(folder: Path, words: argparse.Namespace) -> str:
    """The fuzzer, in a process of its own, whose memory it watches."""
    command = [sys.executable, "-m", "tests.hostile.fuzz", "--cases", str(words.cases)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    _require(done.returncode == 0, f"{done.stdout}{done.stderr}")
    return done.stdout.strip()


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


def tensors(folder: Path, words: argparse.Namespace) -> str:
    """No verb takes more than its share when tensors multiply by ten."""
    few, many = _tensors(folder, words.tensors // 10), _tensors(folder, words.tensors)
    for name in many:
        _require(many[name] < 20 * few[name] + 1, f"{name}: {few[name]:.1f} s, {many[name]:.1f} s")
    said = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in many.items())
    return f"{words.tensors} tensors: {said} (a tenth: {sum(few.values()):.1f} s in all)"


def speed(folder: Path, words: argparse.Namespace) -> str:
    """How fast `verify` reads a bank that is in the page cache."""
    _large_family(folder, words.megabytes)
    bank = folder / "bank.randes"
    one = TaskInput("one", str(folder / "one.safetensors"))
    pack(str(folder / "base.safetensors"), [one], bank, run=ALL)
    best = 0.0
    with BankFile(bank) as opened:
        for _ in range(5):
            started = time.perf_counter()
            report = verify(opened, ALL)
            best = max(best, report.bytes_checked / (time.perf_counter() - started) / 1e9)
    return f"verify: {best:.2f} GB/s on {len(os.sched_getaffinity(0))} cores"


PARTS = {
    "kills": kills,
    "writers": writers,
    "sequences": sequences,
    "fuzz": fuzz,
    "tensors": tensors,
    "speed": speed,
}


def main() -> None:
    """Run the parts that were asked for, each in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, default=None)
    for name, default in (
        ("megabytes", 500),
        ("kills", 200),
        ("adds", 50),
        ("cases", 100_000),
        ("sequences", 200),
        ("tensors", 100_000),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    words = parser.parse_args()
    for name in words.only:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=words.folder) as folder:
            said = PARTS[name](Path(folder), words)
        print(f"{name} ({time.perf_counter() - started:.0f} s): {said}", flush=True)


if __name__ == "__main__":
    main()
