"""stdout is data, stderr is talk: JSON, notes, progress bars, measurements."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from textwrap import fill
from typing import TYPE_CHECKING, Any

from randes_cli.errors import printable
from randes_cli.views.text import human

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from randes_cli.workers import Progress

_WIDTH = 100


def console() -> Console:
    """A rich console on stdout: the terminal's width, or 100 columns in a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False, soft_wrap=False)


def _styled() -> bool:
    """Whether lines are for a terminal, or are to look so; else their text is all there is."""
    return sys.stdout.isatty() or bool({"FORCE_COLOR", "TTY_COMPATIBLE"} & os.environ.keys())


def print_lines(make: Callable[[int], Sequence[Text]], *, quiet: bool = False) -> None:
    """Print lines made for the width that there is; nothing is wrapped, cut or padded."""
    if quiet:
        return
    if not _styled():
        for line in map(_without_controls, make(_WIDTH)):
            print(line.plain)
        return
    out = console()
    for line in map(_without_controls, make(out.width)):
        out.print(line, no_wrap=True, crop=False, overflow="ignore", soft_wrap=True)


def _without_controls(line: Text) -> Text:
    """A line whose control characters are shown escaped, in their style."""
    if line.plain.isprintable():
        return line
    made = line.blank_copy()
    for part in line.divide(range(1, len(line.plain))):
        text = printable(part.plain)
        if text != part.plain:
            part.plain = text
            part.spans = [span._replace(end=len(text)) for span in part.spans]
        made.append_text(part)
    return made


def say(text: str, *, quiet: bool = False) -> None:
    if not quiet:
        print(printable(text))


def note(text: str, *, quiet: bool) -> None:
    """One line of talk; a terminal breaks it between words."""
    if not quiet:
        with contextlib.suppress(OSError):
            print(broken(printable(text)), file=sys.stderr)


def broken(text: str) -> str:
    """A text in lines of the terminal's width, where there is one; no word or 97 % is broken."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return text
    whole = re.sub(" (?=[%×])", "\xa0", text)
    made = fill(whole, max(20, width), break_long_words=False, break_on_hyphens=False)
    return made.replace("\xa0", " ")


#: What JSON has as it is.
_ATOMS = (str, int, float, bool, type(None))
#: Characters of the longest object that is laid out in lines: of a thousand tasks are millions.
_MOST_INDENTED = 2**20


def plain(value: Any) -> Any:
    """A report as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [item if type(item) in _ATOMS else plain(item) for item in value]
    return value


def print_json(report: Any, **more: Any) -> None:
    """Print a report as one JSON object: on lines of its own unless it is for programs alone."""
    found = plain(report)
    body = {**(found if isinstance(found, dict) else {"items": found}), **more}
    text = json.dumps(body)
    print(text if len(text) > _MOST_INDENTED else json.dumps(body, indent=2))


class Clock:
    """Seconds since it was made, and the process's peak memory.

    What the end of a command prints with is loaded here: after its commit it reads no file.
    """

    def __init__(self, *, json: bool) -> None:
        self._start = time.perf_counter()
        with contextlib.suppress(ImportError):
            import_module("resource")
        if not json:
            from rich.cells import cell_len

            if _styled():
                console().print(end="")
            cell_len("λ中")  # loads the widths of characters

    def facts(self, read: int, written: int) -> dict[str, Any]:
        """Measurements for --json: bytes, seconds, GB/s, peak resident bytes."""
        seconds = time.perf_counter() - self._start
        return {
            "read_bytes": read,
            "written_bytes": written,
            "seconds": round(seconds, 3),
            "gb_per_second": round((read + written) / 1e9 / max(seconds, 1e-9), 3),
            "peak_memory_bytes": _peak_memory(),
        }

    def sentence(self, read: int, written: int) -> str:
        """The same for people."""
        facts = self.facts(read, written)
        seconds, speed = facts["seconds"], facts["gb_per_second"]
        took = f"{seconds:.1f} s" if seconds >= 0.05 else "less than 0.1 s"
        fast = f"{speed:.2f} GB/s, " if seconds >= 0.05 and speed >= 0.005 else ""
        memory = human(facts["peak_memory_bytes"])
        moved = (("read", read), ("wrote", written))  # of what was not counted nothing is said
        did = ", ".join(f"{word} {human(size)}" for word, size in moved if size)
        return f"{did} in {took} ({fast}peak memory {memory})"


def _peak_memory() -> int:
    """Bytes that this process had at most, 0 where nobody counts them.

    What the system counts may be its parent's.
    """
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@contextlib.contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress]:
    """A progress callable; it draws on a terminal, after a second, and never fails the job."""
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield lambda phase, done, total: None
        return
    try:
        from tqdm import tqdm
    except ValueError:  # one of its variables is no number
        yield lambda phase, done, total: None
        return

    bar: tqdm[Any] | None = None
    current = ""

    def show(phase: str, done: int, total: int) -> None:
        nonlocal bar, current
        with contextlib.suppress(OSError):
            if bar is None or phase != current:
                if bar is not None:
                    bar.close()
                small = total < 10**6
                bar = tqdm(
                    total=total,
                    desc=phase,
                    unit="" if small else "B",
                    unit_scale=not small,
                    delay=1.0,
                    leave=False,
                    file=sys.stderr,
                )
                current = phase
            bar.update(done)

    try:
        yield show
    finally:
        if bar is not None:
            with contextlib.suppress(OSError):
                bar.close()
