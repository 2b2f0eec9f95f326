"""Random headers and manifests, from mutations of real ones. `make torture` runs 100,000.

A case is fine when the reader either accepts it or raises a RandesError, soon and in little
memory. `python -m tests.hostile.fuzz --cases 100000` prints what it met.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from randes_cli.errors import RandesError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.ops.verify import verify
from randes_cli.plan import tensor_bytes
from randes_cli.specs import RunOptions
from tests.hostile.small import contents, forge, make_small_bank, retrieved

#: Values that readers stumble over, in place of any value.
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**32, 2**53, 2**62, 2**63, 2**64, 10**30,
    0.5, -0.0, 1e300, "", "a", "b", "h.0.w", "left", "../x", "\x1b[2J", "\ud800", "a\0b", "F32",
    "I8", "BF16", "x" * 300, [], [[]], {}, {"": ""}, [0], [0, 0], [0, 2**40], ["F32", [4]],
    ["F32", [2**40, 2**40]], ["F32", [0]], ["BOOL", [40]], {"left": 8}, {"left": [50]},
    {"wte.weight": [2**40, 3]}, {"wte.weight": [0, 3]}, {"x": ["U8", [0]]}, [["x", ["left"]]],
    "all", "attn", "hankel", "shift", "random", "none", "own", "reference", "zero",
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value inside a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return found
    for key, item in items:
        found += _places(item, (*path, key))
    return found


def mutated(value: Any, pick: random.Random) -> Any:
    """A JSON value with one to three odd changes."""
    value = json.loads(json.dumps(value))
    for _ in range(pick.choice((1, 1, 1, 2, 3))):
        places = _places(value)
        if not places:
            return value
        *path, last = pick.choice(places)
        holder = value
        for key in path:
            holder = holder[key]
        kind = pick.random()
        if kind < 0.15:
            del holder[last]
        elif kind < 0.25 and isinstance(holder, dict):
            holder[pick.choice(["", "x", "a/b", "\x1b", "__metadata__", "left"])] = holder.pop(last)
        elif kind < 0.35 and isinstance(holder[last], int):
            holder[last] = holder[last] + pick.choice((-1, 1, 8, 2**20))
        elif kind < 0.45 and isinstance(holder, list):
            holder.append(holder[last])
        else:
            holder[last] = json.loads(json.dumps(pick.choice(ODD)))
    return value


def _scrambled(text: bytes, pick: random.Random) -> bytes:
    """JSON text with bytes changed, cut out or doubled."""
    made = bytearray(text)
    for _ in range(pick.choice((1, 1, 2, 5))):
        at, size = pick.randrange(len(made) + 1), pick.choice((1, 1, 4, 40))
        kind = pick.random()
        if kind < 0.5 and at < len(made):
            made[at] = pick.randrange(256)
        elif kind < 0.75:
            del made[at : at + size]
        else:
            made[at:at] = made[at : at + size]
    return bytes(made)


class Fuzzer:
    """Makes a case from a number, and reads it in every way that there is."""

    def __init__(self, folder: Path) -> None:
        self.bank = make_small_bank(folder)
        self.whole = self.bank.read_bytes()
        self.length = int.from_bytes(self.whole[:8], "little")
        self.header = json.loads(self.whole[8 : 8 + self.length])
        self.tensors, self.data, self.manifest = contents(self.bank)
        self.path = folder / "case.randes"
        self.met: Counter[str] = Counter()
        self.slowest = 0.0

    def write(self, number: int) -> None:
        """Write the case of this number."""
        pick = random.Random(number)
        kind = number % 4
        if kind < 2:
            text = json.dumps(mutated(self.manifest, pick)).encode()
            text = text if kind else _scrambled(text, pick)
            forge(self.path, self.tensors, self.data, text)
            return
        head = json.dumps(mutated(self.header, pick)).encode()
        head = head if kind == 2 else _scrambled(head, pick)
        length = pick.choice((len(head),) * 8 + (0, 1, 7, len(head) + 1, 2**31, 2**63, 2**64 - 1))
        self.path.write_bytes(length.to_bytes(8, "little") + head + self.whole[8 + self.length :])

    def read(self) -> None:
        """Open the case, inspect it, verify it, and retrieve every task of moderate size."""
        try:
            with BankFile(self.path) as bank:
                describe(bank)
                verify(bank, RunOptions(threads=1))
                tensors = bank.manifest.base.tensors
                for task in bank.manifest.tasks:
                    grown = sum(3 * 4 * shape[0] for shape in task.shapes.values())
                    if tensor_bytes(tensors.values()) + grown < 2**20:
                        self._retrieve(bank, task.name)
            self.met["accepted"] += 1
        except RandesError as error:
            self.met[type(error).__name__] += 1
            if "\n" in str(error):
                raise AssertionError(f"an error of several lines: {error!a}") from error

    def _retrieve(self, bank: BankFile, task: str) -> None:
        try:
            retrieved(bank, task)
        except RandesError as error:
            self.met[f"retrieval: {type(error).__name__}"] += 1

    def run(self, numbers: range) -> None:
        """Cases by number; an escaped error says which."""
        for number in numbers:
            self.write(number)
            started = time.process_time()
            try:
                self.read()
            except BaseException as error:
                raise AssertionError(f"case {number}: {type(error).__name__}: {error}") from error
            taken = time.process_time() - started
            self.slowest = max(self.slowest, taken)
            if taken > 1:
                raise AssertionError(f"case {number} took {taken:.1f} s")


def main() -> None:
    """Run cases and print what was met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fuzzer.run(range(words.first, words.first + words.cases))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > 200:
        sys.exit(f"memory grew by {grown:.0f} MB")
    print(
        f"{words.cases} cases, the slowest {fuzzer.slowest * 1000:.0f} ms, memory grew by "
        f"{grown:.1f} MB; {dict(fuzzer.met.most_common())}"
    )


if __name__ == "__main__":
    main()
