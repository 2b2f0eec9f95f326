"""Parts of `make torture` that disturb: failing calls, flipped bytes, signals."""

from __future__ import annotations

import argparse
import errno
import random
import signal
from collections.abc import Callable
from pathlib import Path

from tests.faults.conftest import make_scene
from tests.faults.failing import CALLS, CODES, fail_every_call
from tests.faults.stopping import Fresh, count_events, job, stop_at, words_of_jobs
from tests.hostile.flips import flip_bytes
from tests.hostile.small import make_small_bank
from tests.life import models
from tests.torture.parts import Outcome, require

#: Those that are not ignored, as `nohup` has it.
SIGNALS = [
    number
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if signal.getsignal(number) != signal.SIG_IGN
]


def calls(folder: Path, words: argparse.Namespace) -> Outcome:
    """Each system call of pack, add and remove fails, in every way, once and for ever."""
    tried = refused = 0
    for name in ("pack", "add", "remove"):
        here = folder / name
        here.mkdir()
        scene = make_scene(name, models.write_family(here))
        for number in CODES:
            for for_ever in (False, True):
                found = fail_every_call(scene, number, for_ever=for_ever, step=words.step)
                tried, refused = tried + found[0], refused + found[1]
    ways = ", ".join(errno.errorcode[number] for number in CODES)
    return Outcome(
        f"one of {', '.join(f'`{call}`' for call in CALLS)} of `pack`, `add` and `remove` fails "
        f"({ways}), once or from then on",
        tried,
        f"the old bank or the new one, one line, and the code of the error ({refused} refused)",
    )


def flips(folder: Path, words: argparse.Namespace) -> Outcome:
    """Each byte of a bank changes, in a bit and in all of them."""
    small = make_small_bank(folder)
    ways: list[Callable[[int], int]] = [lambda at: 1 << (at % 8), lambda at: 0xFF]
    times = sum(flip_bytes(small, folder, flip, words.step) for flip in ways)
    return Outcome(
        "a byte of a bank changes", times, "found by `verify`; what is still retrieved is right"
    )


def signals(folder: Path, words: argparse.Namespace) -> Outcome:
    """Signals at moments of every command, as Python's profiler counts them."""
    pick, times, names = random.Random(3), 0, [*words_of_jobs(folder)][: words.commands]
    for name in names:
        here = folder / name
        here.mkdir()
        made = job(here, name)
        events = count_events(made)
        for _ in range(words.signals):
            at, number = pick.randrange(100, int(0.99 * events)), pick.choice(SIGNALS)
            code, wrong = stop_at(made, at, number), made.faults()
            sound = code == 128 + number and not wrong
            require(sound, f"{name}, event {at} of {events}: {code}, {wrong}, {made.said()}")
            made.reset()
            times += 1
    sent = ", ".join(number.name for number in SIGNALS)
    return Outcome(
        f"{sent} at a random moment of {len(names)} commands",
        times,
        "128 + number, one line, the old files or the new ones, nothing temporary",
    )


def fresh(folder: Path, words: argparse.Namespace) -> Outcome:
    """Signals while sources without bytecode are compiled and run."""
    clone, pick = Fresh(folder), random.Random(4)
    for _ in range(words.fresh):
        wrong = clone.stop(pick.uniform(0, 1.0), pick.choice(SIGNALS))
        require(not wrong, f"a fresh clone: {wrong}")
    return Outcome(
        "a signal within the first second of `add` from sources without bytecode",
        words.fresh,
        "128 + number, or done before it came",
    )
