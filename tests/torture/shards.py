"""Parts of `make torture` on banks in shards: kills, failing calls, flipped bytes."""

from __future__ import annotations

import argparse
import errno
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from randes_cli.build.edit import add, remove
from randes_cli.build.pack import pack
from randes_cli.build.seal.seal import seal
from randes_cli.errors import RandesError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.shards import shard_file
from randes_cli.ops.verify import verify
from randes_cli.specs import PackOptions, TaskInput
from tests.faults.failing import CALLS, CODES
from tests.faults.shim import count_calls, fail_with, faulty
from tests.hostile.flips import is_found, retrievals
from tests.hostile.small import retrieved, write_small_family
from tests.life import models
from tests.shards.conftest import everything, sharded
from tests.shards.stage import Stage
from tests.torture.parts import ALL, Outcome, killed_after, large_family, require


def _sound(bank: Path) -> tuple[bytes, set[str]]:
    """The index of a bank, which is sound with its shards, and their files."""
    with BankFile(bank) as opened:
        require(verify(opened, ALL).sound, "a bank in shards after a kill is not sound")
        return bank.read_bytes(), set(map(shard_file, opened.store.shards))


def _restore(old: Path, bank: Path) -> None:
    folder = bank.with_name(f"{bank.name}.d")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(old.with_name(f"{old.name}.d"), folder)
    shutil.copyfile(old, bank)


def kills(folder: Path, words: argparse.Namespace) -> Outcome:
    """kill -9 of add, remove and seal at random times: one of two banks, with all its shards."""
    large_family(folder, words.megabytes)
    bank, one = folder / "bank.randes", TaskInput("one", str(folder / "one.safetensors"))
    two = TaskInput("two", str(folder / "two.safetensors"))
    chosen = PackOptions(max_shard_size=max(20_000, words.megabytes * 10**6 // 40))
    pack(str(folder / "base.safetensors"), [one], bank, chosen, ALL)
    jobs: dict[str, Callable[[], object]] = {
        "add": lambda: add(bank, [two], run=ALL),
        "remove": lambda: remove(bank, ["two"], run=ALL),
        "seal": lambda: seal(bank, None, 2, ALL),
    }
    seconds, states, olds = {}, {}, {}
    for name, job in jobs.items():
        olds[name] = folder / f"{name}-old.randes"
        _restore(bank, olds[name])
        before, started = bank.read_bytes(), time.perf_counter()
        job()
        seconds[name] = time.perf_counter() - started
        states[name] = {before: "old", bank.read_bytes(): "new"}
    pick, met = random.Random(5), Counter[str]()
    for number in range(words.kills):
        name = list(jobs)[number % len(jobs)]
        _restore(olds[name], bank)
        killed_after(pick.uniform(0, 1.1 * seconds[name]), jobs[name])
        index, _ = _sound(bank)
        require(index in states[name], f"kill {number} of {name}: neither the old nor the new")
        met[f"{name}: {states[name][index]}"] += 1
    _restore(olds["add"], bank)
    jobs["add"]()
    there = {path.name for path in bank.with_name(f"{bank.name}.d").iterdir()}
    litter = [p.name for p in folder.iterdir() if p.name.startswith(".")]
    require(there == _sound(bank)[1] and not litter, f"left behind: {there} {litter}")
    said = ", ".join(f"{count} {state}" for state, count in sorted(met.items()))
    return Outcome(
        "`kill -9` of `add`, `remove` and `seal --in-place` at random times, on a bank of "
        f"{len(there)} shards",
        words.kills,
        f"the old index or the new one, and every shard that it names, sound ({said}); no other "
        "file after the next write",
    )


def calls(folder: Path, words: argparse.Namespace) -> Outcome:
    """Each system call of add, remove and seal fails, in every way, once and for ever."""
    tried = refused = 0
    for name in ("add", "remove", "seal"):
        here = folder / name
        here.mkdir()
        bank = sharded(models.write_family(here), "whole", "single")
        stage = Stage(bank, _job(name, bank))
        for number in CODES:
            for for_ever in (False, True):
                found = _fail_every_call(stage, number, for_ever=for_ever, step=words.step)
                tried, refused = tried + found[0], refused + found[1]
    ways = ", ".join(errno.errorcode[number] for number in CODES)
    return Outcome(
        f"a call of `add`, `remove` and `seal --in-place` on a bank in shards fails ({ways}), once "
        "or from then on",
        tried,
        f"the old index or the new one with all its shards, one line ({refused} refused); with one "
        "failure no other file",
    )


def _job(name: str, bank: Path) -> Callable[[], object]:
    jobs: dict[str, Callable[[], object]] = {
        "add": lambda: models.put(bank, "half"),
        "remove": lambda: models.take(bank, "whole"),
        "seal": lambda: seal(bank, None, 2, models.ONE),
    }
    return jobs[name]


def _fail_every_call(stage: Stage, number: int, *, for_ever: bool, step: int) -> tuple[int, int]:
    """Calls that failed, and how many of them ended the job."""
    stage.reset()
    every = range(1, count_calls(stage.job, CALLS) + 1, step)
    refused = 0
    for at in every:
        stage.reset()
        error: RandesError | None = None
        with faulty(fail_with(number), at, names=CALLS, for_ever=for_ever):
            try:
                stage.job()
            except RandesError as caught:
                error = caught
        new = stage.is_old_or_new()
        if error is None:
            require(new, f"call {at}: done, and not there")
            continue
        refused += 1
        require("\n" not in str(error), f"call {at}: {error}")
        require(new == ("in place" in str(error)), f"call {at}: {error}, and new is {new}")
        clean = everything(stage.bank) in (stage.before, stage.after)
        require(for_ever or clean, f"call {at}: {error}, and there is more than the bank")
    return len(every), refused


def flips(folder: Path, words: argparse.Namespace) -> Outcome:
    """Each byte of an index and of its shards changes."""
    write_small_family(folder)
    bank, tasks = folder / "small.randes", "ab"
    pack(
        str(folder / "base.safetensors"),
        [TaskInput(name, str(folder / f"{name}.safetensors")) for name in tasks],
        bank,
        PackOptions(max_shard_size=1000),
        models.ONE,
    )
    with BankFile(bank) as opened:
        right = {name: retrieved(opened, name) for name in tasks}
    files, times = [bank, *sorted(bank.with_name(f"{bank.name}.d").iterdir())], 0
    for path in files:
        whole = path.read_bytes()
        for at in range(times % words.step, len(whole), words.step):
            changed = bytearray(whole)
            changed[at] ^= 0xFF if at % 2 else 1 << (at % 8)
            path.write_bytes(changed)
            require(is_found(bank), f"{path.name}, byte {at}")
            for name, tensors in retrievals(bank).items():
                require(tensors == right[name], f"{path.name}, byte {at}, task {name}")
            times += 1
        path.write_bytes(whole)
    require(not is_found(bank), "the whole bank is not sound")
    return Outcome(
        f"a byte of an index or of its {len(files) - 1} shards changes",
        times,
        "found by `verify`; what is still retrieved is right",
    )
