"""Where a file is: a path here, or the address (URL) of one in a store that fsspec knows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias, TypeVar
from urllib.parse import unquote

from randes_cli.errors import UsageError, without_login
from randes_cli.files.local.system import resolved
from randes_cli.limits import StrPath, as_source

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.+)", re.DOTALL)
_HERE = ("file", "local")
WEB = ("http", "https")
S3, GOOGLE, AZURE = ("s3", "s3a"), ("gs", "gcs"), ("az", "abfs", "abfss", "adl")
#: Stores whose objects appear whole or not at all, so that randes writes to them.
OBJECT_STORES = (*S3, *GOOGLE, "az", "abfs", "abfss", "memory")
#: What a bank from elsewhere may have us read: nothing of this machine.
_FOLLOWED = (*WEB, *OBJECT_STORES)


@dataclass(frozen=True, slots=True)
class RemotePath:
    """The address of a file or folder in a store, with as much of `Path` as files need.

    It prints without logins and queries (signatures, tokens), and is equal to what prints alike.
    """

    url: str

    def __str__(self) -> str:
        return without_login(self.url)

    def __fspath__(self) -> str:
        return self.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def scheme(self) -> str:
        """What the address begins with, in small letters."""
        return self.url.partition("://")[0].lower()

    @property
    def _whole(self) -> str:
        """The address of the thing itself: a signature is of one thing, and its query goes."""
        return self.url.partition("?")[0].rstrip("/")

    @property
    def _inside(self) -> PurePosixPath:
        return PurePosixPath(self._whole.partition("://")[2])

    @property
    def name(self) -> str:
        return self._inside.name

    @property
    def stem(self) -> str:
        return self._inside.stem

    @property
    def suffix(self) -> str:
        return self._inside.suffix

    @property
    def parent(self) -> RemotePath:
        """The folder that it is in; of a whole store, itself."""
        above = self._whole.rpartition("/")[0]
        return RemotePath(above) if not above.endswith(("/", ":")) else self

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self._whole}/{name}")

    def with_name(self, name: str) -> RemotePath:
        """The thing of this name beside it."""
        return self.parent / name

    def below(self, folder: RemotePath) -> str | None:
        """Its name in a folder, however deep; None where it is not there."""
        start = f"{str(folder).rstrip('/')}/"
        return str(self).removeprefix(start) if str(self).startswith(start) else None


Place: TypeAlias = Path | RemotePath
#: A place of either kind, of which something of the same kind is made.
P = TypeVar("P", Path, RemotePath)
#: What tells that a file in a store is another than it was: its size, and marks by name.
Version: TypeAlias = tuple[int, tuple[tuple[str, str], ...]]


def as_place(text: str) -> Place:
    """Where a text (no id of the Hub) says that a file is. Nothing is looked at but a path here.

    Raises UsageError for addresses in addresses, and for a login where the store takes none.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or os.path.exists(text):
        return Path(text)
    scheme, rest = found[1].lower(), found[2]
    if scheme in _HERE:
        path = rest.removeprefix("localhost/") if rest.startswith("localhost/") else rest
        path = path if path == rest else f"/{path}"
        return Path(path if os.path.exists(path) else unquote(path))
    if "::" in rest:
        raise UsageError(f"{text}: an address in an address (::); name the file itself")
    login = rest.rpartition("@")[0]
    if scheme not in (*WEB, "ftp", "sftp", "ssh") and ":" in login:
        raise UsageError(
            f"{text}: holds a login; give the store its credentials as its own tools have them "
            "(environment, profile, role) and leave them out of the address"
        )
    return RemotePath(f"{scheme}://{rest}")


def new_file(value: StrPath) -> Place:
    """Where a file is to be written. Raises UsageError for a name that only a folder has."""
    text = as_source(value)
    if text.endswith("/") or (os.sep == "\\" and text.endswith(os.sep)):
        raise UsageError(f"{text}: names a folder; name a file in it")
    return as_place(text)


def recorded_place(source: str) -> RemotePath | None:
    """The address that a manifest's source is, where it is one that randes follows."""
    found = _ADDRESS.fullmatch(source)
    if found is None or found[1] not in _FOLLOWED or "::" in source:
        return None
    return RemotePath(source)


def absolute(place: Place) -> Place:
    """A place as a worker finds it, whatever folder it is in."""
    return place if isinstance(place, RemotePath) else place.absolute()


def absolute_source(source: str) -> str:
    """What a caller named, as a worker finds it."""
    return str(Path(source).absolute()) if os.path.exists(source) else source


def same_place(one: Place, other: Place) -> bool:
    """Whether two names are one place, links followed on this machine's disks."""
    if isinstance(one, Path) and isinstance(other, Path):
        return resolved(one) == resolved(other)
    return bool(one == other)
