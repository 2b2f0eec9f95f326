"""Stores that fsspec knows: how one is reached, and in which words it fails.

A store finds its credentials by itself (environment, profile, role). fsspec is imported where an
address is opened: what lies here needs none of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, TypeVar

from randes_cli.errors import HubError, MissingError, RandesError, UsageError
from randes_cli.files.location import AZURE, GOOGLE, OBJECT_STORES, S3, WEB, RemotePath, Version

T = TypeVar("T")

#: The extra that brings what reaches a store.
_EXTRAS = {
    **dict.fromkeys(S3, ("s3fs", "s3")),
    **dict.fromkeys(GOOGLE, ("gcsfs", "gcs")),
    **dict.fromkeys(AZURE, ("adlfs", "azure")),
    **dict.fromkeys(WEB, ("aiohttp", "http")),
}
#: Where the tools of a store have its credentials.
_LOGINS = {
    **dict.fromkeys(S3, "AWS_PROFILE, AWS_ACCESS_KEY_ID …, or aws sso login"),
    **dict.fromkeys(GOOGLE, "gcloud auth application-default login"),
    **dict.fromkeys(AZURE, "az login, or AZURE_STORAGE_…"),
}
#: Seconds between tries where a store's own client does not try again.
_PAUSES = (0.5, 1.0, 2.0, 4.0)
#: What tells one content of a name from the next, as one store or another calls it.
_MARKS = ("ETag", "etag", "generation", "Content-MD5", "VersionId", "version_id")
#: What Google's client begins the text of an error with that is a 403, and has no other mark.
_FORBIDDEN = "Forbidden: "
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "created")


class Unmet(UsageError):
    """What must be there for a put to count is not: another writer was first."""


def reach(place: RemotePath) -> tuple[Any, str]:
    """The file system of a store, and what it calls a place. Raises UsageError."""
    from fsspec.core import url_to_fs

    try:
        with store_errors(place):
            filesystem, inside = url_to_fs(place.url)
    except ImportError as error:
        package, extra = _EXTRAS.get(place.scheme, ("", ""))
        needed = f"{package}: pip install 'randes-cli[{extra}]'" if package else str(error)
        raise UsageError(f"{place}: {place.scheme}:// needs {needed}") from None
    except ValueError:
        raise UsageError(f"{place}: {place.scheme}:// is no store that fsspec knows") from None
    return filesystem, inside


def forget(filesystem: Any, inside: str) -> None:
    """Have a store's client ask anew about a place: others write there, too.

    It keeps what it has listed; some would answer for a file from its folder's list.
    """
    for listed in (inside, inside.rstrip("/").rpartition("/")[0]):
        filesystem.invalidate_cache(listed)


@contextmanager
def store_errors(place: RemotePath) -> Iterator[None]:
    """Run calls of a store's client; what they raise comes out as a RandesError naming `place`."""
    try:
        yield
    except (RandesError, MemoryError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and "rotocol" in str(error):
            raise
        raise translate(error, place) from error


def translate(error: BaseException, place: RemotePath) -> RandesError:
    """The sentence for one error of a store's client."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and place.scheme in WEB and cause is not None:
        error = error if getattr(cause, "status", None) in (404, 410) else cause
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return MissingError(f"{place}: not found")
    if isinstance(error, FileExistsError):
        return UsageError(f"{place}: exists (say --force to replace it)")
    if type(error).__name__ == "FileExpired":
        return replaced(place)
    if _is_refused(error, place):
        where = _LOGINS.get(place.scheme)
        login = f"; log in where its own tools do ({where})" if where else ""
        return HubError(f"{place}: the store refused it ({first_line(error)}){login}")
    if _answer(error):
        endless = type(error).__name__ == "TooManyRedirects"
        said = "with redirects without end" if endless else _answer(error)
        return HubError(f"{place}: the store answered {said}; say it again later")
    return HubError(
        f"{place}: the connection to the store failed or was dropped ({first_line(error)}); "
        "say it again when it is back"
    )


def _is_refused(error: BaseException, place: RemotePath) -> bool:
    """Whether a store wants other credentials, or any."""
    if isinstance(error, PermissionError) or status_of(error) in (401, 403):
        return True
    if isinstance(error, ValueError) and place.scheme in AZURE:  # no account, no login
        return True
    if place.scheme in GOOGLE and str(error).startswith(_FORBIDDEN):
        return True
    name = type(error).__name__
    return "Credential" in name or name in ("ClientAuthenticationError", "RefreshError")


def status_of(error: BaseException) -> int | None:
    """The status that a store answered with, as its client keeps it; None where there is none."""
    for one in (error.__cause__, error):
        names = ["status", "status_code"]
        if type(one).__name__ == "HttpError":  # Google's; what aiohttp calls a code, none sent
            names.append("code")
        found = (str(getattr(one, name, "")) for name in names)
        status = next((int(text) for text in found if text.isdigit()), None)
        if status is not None:
            return status
    return None


def replaced(place: RemotePath) -> HubError:
    """What was read is not there any more."""
    return HubError(f"{place}: was replaced while it was read; say it again")


def _answer(error: BaseException) -> str:
    """Code and words of what a store answered; empty where it did not."""
    found = getattr(error.__cause__ or error, "response", None)
    said = found.get("Error", {}) if isinstance(found, dict) else {}
    words = [str(said[key]) for key in ("Code", "Message") if said.get(key)]
    status = status_of(error)
    if not words and status is not None:
        words = [str(status), str(getattr(error, "error_code", None) or "")]
    return ": ".join(filter(None, words))[:200]


def first_line(error: BaseException) -> str:
    """What an error says, in short."""
    answered = _answer(error)
    if answered:
        return answered
    lines = str(error).strip().splitlines()
    if lines and lines[0].startswith(_FORBIDDEN):  # and the address, which may hold a token
        return " ".join([_FORBIDDEN.rstrip(": "), *lines[1:2]])[:200]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def patiently(place: RemotePath, call: Callable[[], T]) -> T:
    """What a call of a store's client returns, tried again where the client itself does not.

    Raises a RandesError.
    """
    pauses = () if place.scheme in OBJECT_STORES else _PAUSES
    with store_errors(place):
        for pause in pauses:
            try:
                return call()
            except Exception as error:
                if not _may_pass(error):
                    raise
                time.sleep(_asked_for(error) or pause)
        return call()


def _may_pass(error: Exception) -> bool:
    """Whether the same may work a little later."""
    status = status_of(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    lasting = (PermissionError, NotImplementedError, ValueError, RandesError)
    missing = isinstance(error, FileNotFoundError) and error.__cause__ is None
    return not (missing or isinstance(error, lasting))


def _asked_for(error: Exception) -> float | None:
    """Seconds that a server asks to be left alone (Retry-After), where it says so."""
    headers = getattr(error.__cause__ or error, "headers", None) or {}
    said = str(headers.get("Retry-After", ""))
    return min(float(said), 120.0) if said.isascii() and said.isdigit() else None


def version(info: Mapping[str, Any]) -> Version:
    """What tells a file, as the store describes it now, from what may take its place."""
    marks = [(name, str(info[name])) for name in _MARKS if info.get(name)]
    marks = marks or [(name, str(info[name])) for name in _TIMES if info.get(name)]
    return int(info.get("size") or 0), tuple(marks)


def last_write(info: Mapping[str, Any]) -> datetime | None:
    """When a file got its content, by the store's clock; None where the store does not say."""
    for name in _TIMES:
        found = info.get(name)
        if isinstance(found, datetime):
            return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
    return None


def files_in(folder: RemotePath) -> dict[str, Mapping[str, Any]]:
    """What lies in a folder of a store, by name; nothing where there is no such folder."""
    filesystem, inside = reach(folder)

    def ask() -> list[Mapping[str, Any]]:
        forget(filesystem, inside)
        found: list[Mapping[str, Any]] = filesystem.ls(inside, detail=True)
        return found

    try:
        found = patiently(folder, ask)
    except MissingError:
        return {}
    made = {str(one["name"]).rstrip("/").rpartition("/")[2]: one for one in found}
    return {name: made[name] for name in sorted(made)}


def look_up(place: RemotePath) -> Mapping[str, Any] | None:
    """What a store says of a place now (size, type, marks); None where there is nothing."""
    filesystem, inside = reach(place)

    def ask() -> Mapping[str, Any]:
        forget(filesystem, inside)
        found: Mapping[str, Any] = filesystem.info(inside)
        return found

    try:
        return patiently(place, ask)
    except MissingError:
        return None
