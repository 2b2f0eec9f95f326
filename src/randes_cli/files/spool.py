"""Temporary files without a name: for numbers that are read again as soon as they are written.

They lie where the output goes, which has the room, and vanish with the process whatever ends it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from randes_cli.files.local.disk import OutputFile, system_errors
from randes_cli.files.location import Place, RemotePath
from randes_cli.files.upload import passing_place

#: Bytes of a file that is kept for the next user: pages that are written again cost less than new
#: ones. A larger one gives its room back.
_KEPT = 2**26


class SpoolFile(OutputFile):
    """One of them. Nobody waits for it to reach the disk."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file.fileno(), path)
        self._file = file  # closed with it

    def sent(self, count: int) -> None:
        """Nothing is sent to the disk."""

    def close(self) -> None:
        """Give the room back."""
        self._file.close()


class Spool:
    """Spool files of one output, used again and again. One object serves all threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._free: list[SpoolFile] = []

    def take(self) -> SpoolFile:
        """A file that nobody uses, with whatever it holds. Raises NoSpace, InputOutputError."""
        with self._lock:
            if self._free:
                return self._free.pop()
        import tempfile

        with system_errors(self.folder, "making a temporary file"):
            return SpoolFile(tempfile.TemporaryFile(dir=self.folder), self.folder)

    def give(self, file: SpoolFile, size: int) -> None:
        """Take a file back, which `size` bytes were written to."""
        if size > _KEPT:
            file.resize(0)
        with self._lock:
            self._free.append(file)

    def close(self) -> None:
        for file in self._free:
            file.close()
        self._free = []


@contextlib.contextmanager
def spool_for(path: Place) -> Iterator[Spool]:
    """A spool beside an output, or where what goes into a store is made."""
    spool = Spool(passing_place() if isinstance(path, RemotePath) else path.absolute().parent)
    try:
        yield spool
    finally:
        spool.close()
