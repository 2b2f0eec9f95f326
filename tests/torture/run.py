"""`make torture`: what takes longer than a test may. Every part ends the run at its first fault.

python -m tests.torture.run [--short] [--only PART ...] [--folder DIR] [--document FILE]
                            [--kills 200] [--megabytes 500] …

`--document` writes what was tried, how often, and what came of it into a page, between its
marks; the parts that did not run keep their lines.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.torture import faults, parts, shards
from tests.torture.parts import Outcome

Part = Callable[[Path, argparse.Namespace], Outcome]

#: By name; the first ones are those of the document.
TABLE: dict[str, Part] = {
    "kills": parts.kills,
    "calls": faults.calls,
    "flips": faults.flips,
    "manifests": parts.fuzz,
    "races": parts.writers,
    "sequences": parts.sequences,
    "signals": faults.signals,
    "fresh": faults.fresh,
    "shard_kills": shards.kills,
    "shard_calls": shards.calls,
    "shard_flips": shards.flips,
}
PARTS: dict[str, Part] = {**TABLE, "tensors": parts.tensors, "speed": parts.speed}
#: How much of each: in full, and in the short form.
SIZES = {
    "megabytes": (500, 3),
    "kills": (200, 4),
    "adds": (50, 2),
    "cases": (100_000, 100),
    "sequences": (200, 1),
    "step": (1, 60),
    "signals": (100, 1),
    "commands": (1000, 2),
    "fresh": (1000, 1),
    "tensors": (100_000, 100),
}
_MARKS = "<!-- torture -->\n", "<!-- end of torture -->\n"
_LINE = re.compile(r"\| `(\w+)` \|.*\n")


def table(page: str, found: Mapping[str, Outcome]) -> str:
    """A page with the lines of what was found in place of those that it has of these parts."""
    before, rest = page.split(_MARKS[0])
    old, after = rest.split(_MARKS[1])
    lines = {match[1]: match[0] for match in _LINE.finditer(old)}
    lines |= {
        name: f"| `{name}` | {one.tried} | {one.times:,} | {one.found} |\n"
        for name, one in found.items()
    }
    head = "| part | tried | times | each time |\n|---|---|---|---|\n"
    body = "".join(lines[name] for name in TABLE if name in lines)
    return f"{before}{_MARKS[0]}{head}{body}{_MARKS[1]}{after}"


def main(arguments: list[str] | None = None) -> dict[str, Outcome]:
    """Run the parts that were asked for, each in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--document", type=Path, default=None)
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int, default=None)
    words = parser.parse_args(arguments)
    for name, sizes in SIZES.items():
        if getattr(words, name) is None:
            setattr(words, name, sizes[words.short])
    found = {}
    for name in words.only:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=words.folder) as folder:
            one = found[name] = PARTS[name](Path(folder), words)
        took = time.perf_counter() - started
        print(f"{name} ({took:.0f} s): {one.tried}, {one.times} times: {one.found}", flush=True)
        if words.document is not None and name in TABLE:
            page = words.document.read_text("utf-8")
            words.document.write_text(table(page, {name: one}), "utf-8")
    return found


if __name__ == "__main__":
    main()
