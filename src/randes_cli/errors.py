"""The errors of randes. Each class carries the exit code of the command line."""

from __future__ import annotations

import errno
import re
import unicodedata
from collections.abc import Sequence
from shlex import quote

#: Error numbers of the system where there is no room on a disk, or for this user or file.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: What stands between an address' scheme and its host: a name, with or without a secret (which may
#: hold slashes), or a token. The container of an abfs:// address is none.
_SECRET = re.compile(r"(?<=://)[^/@:\s]*:(?!\d{1,5}(?:/|\s|$))[^@\s\"']{0,1000}@")
_LOGIN = re.compile(r"(?<!\babfs://)(?<!\babfss://)(?<=://)[^/@\s]*@")
#: What follows an address: signatures and tokens as a rule.
_QUERY = re.compile(r"(://(?:(?!://)[^\s?'\"<>])*)\?[^\s'\"<>]*")


def without_login(text: str) -> str:
    """A text whose addresses show no name, password, token or signature of the user."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1", _LOGIN.sub("", _SECRET.sub("", text)))


def counted(number: int, noun: str) -> str:
    """So many of something: ``1 tensor``, ``2,000 tensors``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def some_of(names: Sequence[str], most: int) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def first_of(names: Sequence[str], most: int) -> str:
    """The first of some names, and a sign that there are more."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def shell_word(path: str) -> str:
    """A path as it may be pasted into a command line."""
    return quote(f"./{path}" if path.startswith("-") else path)


def printable(text: str) -> str:
    """Text for people: control and direction characters are spelled out, logins left out.

    Names come from strangers, addresses from people whose secrets are in them.
    """
    text = without_login(text)
    if text.isprintable():
        return text
    return "".join(
        c if unicodedata.category(c)[0] != "C" and c.isprintable() else ascii(c)[1:-1] for c in text
    )


class RandesError(Exception):
    """Base of every error that randes raises on purpose; its text is one line without secrets."""

    exit_code = 70

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text))


class CheckFailed(RandesError):
    """A check found a difference."""

    exit_code = 1


class UsageError(RandesError):
    """Options or names that cannot be carried out as given."""

    exit_code = 2


class CheckpointError(RandesError):
    """A checkpoint that cannot be read: truncated, malformed, unsupported."""

    exit_code = 3


class MismatchError(RandesError):
    """A checkpoint that is sound but does not fit this base or this bank."""

    exit_code = 4


class MissingError(RandesError):
    """A file, task or tensor that is not there."""

    exit_code = 5


class BankDamaged(RandesError):
    """Bytes of a bank are not those that were written."""

    exit_code = 6


class BankLocked(RandesError):
    """Another process holds the bank's write lock."""

    exit_code = 7


class NoSpace(RandesError):
    """The disk has no room for the output."""

    exit_code = 8


class HubError(RandesError):
    """The Hugging Face Hub, another store, the network, or authorisation."""

    exit_code = 9


class NewerFormat(RandesError):
    """A bank of a newer version, or one that requires an unknown feature."""

    exit_code = 10


class OutOfResources(RandesError):
    """The system gives no more memory, or what the program is made of cannot be loaded."""

    exit_code = 71


class TooManyOpen(OutOfResources):
    """The system opens no more files."""

    exit_code = 74


class InputOutputError(RandesError):
    """The operating system refused to read or write."""

    exit_code = 74
