"""A file of weights: tensors at known offsets, on this machine's disks or in a store."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Protocol

from randes_cli.core.arrays import Raw
from randes_cli.errors import CheckpointError, InputOutputError, RandesError, UsageError
from randes_cli.files.header import Header, read_header
from randes_cli.files.local.disk import system_errors, wrap_os_error
from randes_cli.files.local.guard import is_still, note_input, stamp
from randes_cli.files.local.system import FLAGS, NO_WAIT, fill, let_go
from randes_cli.files.location import Place, RemotePath


class WeightFile(Protocol):
    """An open file of tensors at known offsets.

    `pickle` says where in a pickle they are, None where the file is none.
    """

    @property
    def path(self) -> Place: ...
    @property
    def header(self) -> Header: ...
    @property
    def pickle(self) -> str | None: ...

    def read_at(self, offset: int, out: Raw, /) -> None:
        """Fill `out` from `offset`."""

    def changed(self) -> bool:
        """Whether it is another file by now."""

    def close(self) -> None:
        """Close the file."""


def read_fully(fd: int, path: Path, offset: int, out: Raw) -> None:
    """Fill `out` from `offset` of an open file. Raises CheckpointError where it ends early."""
    try:
        if fill(fd, out.data, offset) < len(out):
            raise CheckpointError(f"{path}: truncated while it was read")
    except OSError as error:
        raise read_error(error, path) from error


def read_error(error: OSError, path: Path | str) -> RandesError:
    """The error for a read that the system refused."""
    if error.errno == errno.EIO:
        return InputOutputError(f"{path}: {error.strerror} while reading")
    return wrap_os_error(error, path, "reading")


class TensorFile:
    """One open safetensors file. Reads are positioned, so threads share it."""

    pickle: str | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        with system_errors(path, "opening"):
            self._fd = os.open(path, os.O_RDONLY | FLAGS | NO_WAIT)
        try:
            found = os.fstat(self.fd)
            if not stat.S_ISREG(found.st_mode):
                raise CheckpointError(f"{path}: not a regular file")
            self.stamp = stamp(found)
            note_input(path)
            self.header: Header = read_header(self.fd, str(path))
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> tuple[type[TensorFile], tuple[Path]]:
        """Another process opens it again: there its number is nothing's, or somebody else's."""
        return type(self), (self.path,)

    @property
    def fd(self) -> int:
        """Its number, which what is compiled reads from. Raises UsageError once it is closed."""
        if self._fd < 0:
            raise UsageError(f"{self.path}: is closed; open it again")
        return self._fd

    def read_at(self, offset: int, out: Raw) -> None:
        """Fill `out` from `offset`. Raises CheckpointError where the file ends early."""
        read_fully(self.fd, self.path, offset, out)

    def changed(self) -> bool:
        return not is_still(self.path, self.stamp)

    def written(self) -> bool:
        """Whether somebody wrote to it, in place, since it was opened."""
        return stamp(os.fstat(self.fd)) != self.stamp

    def close(self) -> None:
        fd, self._fd = self._fd, -1  # closed again, the number may be somebody else's
        let_go(fd)


def open_weights(path: Place) -> WeightFile:
    """Open a safetensors file, here or in a store. Raises what either raises."""
    if isinstance(path, RemotePath):
        from randes_cli.files.stores.remote import StoredFile

        return StoredFile(path)
    return TensorFile(path)
