"""A safetensors file that stays where it is: its header and single tensors, read by range."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.errors import BankDamaged, CheckpointError, HubError, MissingError, UsageError
from randes_cli.files.header import Header, header_length, parse_header
from randes_cli.files.local.guard import note_input
from randes_cli.files.location import WEB, Place, RemotePath
from randes_cli.files.stores.store import forget, look_up, patiently, reach, version

#: The bytes of a file from one offset to another.
Fetch: TypeAlias = Callable[[int, int], bytes]

#: Bytes of the first read: the header of most files, in one request.
FIRST_READ = 2**16
#: Bytes of the largest request: a longer read is several.
LARGEST_READ = 2**25
#: The first byte of a range, as a request and an answer name it.
_FIRST = re.compile(r"bytes[ =](\d{1,20})-")


class RangedBytes:
    """The bytes of something that lies elsewhere. Reads are positioned, so threads share it.

    `fetch` gives the bytes from one offset to another.

    Attributes:
        path: where it is.
        bytes_read: bytes that were asked for so far.
    """

    def __init__(self, path: Place, fetch: Fetch) -> None:
        self.path, self.bytes_read = path, 0
        self._fetch, self._closed = fetch, False

    def __reduce__(self) -> Any:
        """Raises UsageError: only what has an address of its own is opened again elsewhere."""
        raise UsageError(f"{self.path}: goes to no other process; have that one open it")

    def read_at(self, offset: int, out: Raw) -> None:
        """Fill `out` from `offset`. Raises HubError and what the store's errors become."""
        if self._closed:
            raise UsageError(f"{self.path}: is closed; open it again")
        for start in range(0, len(out), LARGEST_READ):
            part = out[start : start + LARGEST_READ]
            self.bytes_read += len(part)
            found = self._fetch(offset + start, offset + start + len(part))
            if len(found) != len(part):
                raise HubError(
                    f"{self.path}: {len(found)} bytes came of {len(part)} asked for; "
                    "is it being replaced? say it again"
                )
            part[:] = np.frombuffer(found, np.uint8)

    def changed(self) -> bool:
        return False

    def close(self) -> None:
        """Read no more. Nothing is kept open."""
        self._closed = True


class RemoteFile(RangedBytes):
    """One safetensors file that lies elsewhere; its header is read at once."""

    pickle: str | None = None

    def __init__(self, path: Place, size: int, fetch: Fetch) -> None:
        super().__init__(path, fetch)
        self._head = np.empty(0, np.uint8)
        self._extend(min(size, FIRST_READ))
        self.header = self._read_header(size)

    def _extend(self, size: int) -> None:
        """Have the first `size` bytes at hand."""
        head = np.empty(size, np.uint8)
        head[: len(self._head)] = self._head
        super().read_at(len(self._head), head[len(self._head) :])
        self._head = head

    def _read_header(self, size: int) -> Header:
        try:
            length = header_length(self._head[:64].tobytes(), file_size=size)
            if 8 + length > len(self._head):
                self._extend(8 + length)
            return parse_header(self._head[8 : 8 + length].tobytes(), file_size=size)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {error}") from None

    def read_at(self, offset: int, out: Raw) -> None:
        stop = offset + len(out)
        if stop <= len(self._head) and not self._closed:
            out[:] = self._head[offset:stop]
        else:
            super().read_at(offset, out)


class StoredFile(RemoteFile):
    """A safetensors file at an address. Raises MissingError, HubError, UsageError."""

    def __init__(self, path: RemotePath) -> None:
        details, fetch = patiently(path, lambda: _open(path))
        self.place, self.version = path, version(details)
        note_input(path, self.version)
        super().__init__(path, self.version[0], _patient(path, fetch))

    def __reduce__(self) -> tuple[type[StoredFile], tuple[RemotePath]]:
        return type(self), (self.place,)

    def changed(self) -> bool:
        """Whether it is another file by now, as far as the store tells."""
        found = look_up(self.place)
        return found is None or version(found) != self.version


class StoredShard(RangedBytes):
    """A shard at an address, opened when it is first read: its name is that of its content."""

    def __init__(self, path: RemotePath) -> None:
        self._place, self._lock = path, threading.Lock()
        self._opened: Fetch | None = None
        super().__init__(path, self._fetch_first)

    def __reduce__(self) -> tuple[type[StoredShard], tuple[RemotePath]]:
        return type(self), (self._place,)

    def _fetch_first(self, start: int, end: int) -> bytes:
        try:
            with self._lock:
                if self._opened is None:
                    _, fetch = patiently(self._place, lambda: _open(self._place))
                    self._opened = _patient(self._place, fetch)
            return self._opened(start, end)
        except MissingError as error:
            raise BankDamaged(f"{error}: a shard of the bank (an edit meanwhile?)") from None


def _patient(path: RemotePath, fetch: Fetch) -> Fetch:
    return lambda start, end: patiently(path, lambda: fetch(start, end))


class _Session:
    """A web client's session, but that an answer of another range than was asked for is none."""

    def __init__(self, place: RemotePath, session: Any) -> None:
        self._place, self._session = place, session

    async def get(self, url: str, **words: Any) -> Any:
        """As of the session. Raises HubError."""
        answer = await self._session.get(url, **words)
        told = _FIRST.match(answer.headers.get("Content-Range", ""))
        asked = _FIRST.match(words.get("headers", {}).get("Range", ""))
        if told and asked and int(told[1]) != int(asked[1]):
            answer.close()
            raise HubError(f"{self._place}: the server answers other bytes than it is asked for")
        return answer


def _open(place: RemotePath) -> tuple[Mapping[str, Any], Fetch]:
    """Open a file for reads by range, each on its own: nothing is kept and nothing read ahead.

    Returns its description, and a way to read ranges from any thread.
    Of an S3 object all reads are of one content: the client names its ETag in each.
    """
    from fsspec.spec import AbstractBufferedFile

    filesystem, inside = reach(place)
    forget(filesystem, inside)
    if place.scheme in WEB:
        details = filesystem.info(inside)
        if details["size"] is None or details.get("partial") is False:
            raise HubError(
                f"{place}: the server does not answer requests for a range of bytes; "
                "download the file first"
            )
        file = filesystem.open(inside, "rb", cache_type="none", size=details["size"])
        file.session = _Session(place, file.session)
    else:
        file = filesystem.open(inside, "rb", cache_type="none")
        details = getattr(file, "details", None) or filesystem.info(inside)
    if details.get("type") == "directory":
        raise IsADirectoryError(inside)
    if isinstance(file, AbstractBufferedFile):
        return details, file._fetch_range  # what fsspec asks of every such file
    return details, lambda start, end: filesystem.cat_file(inside, start=start, end=end)
