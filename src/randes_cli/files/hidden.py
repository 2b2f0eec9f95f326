"""Hidden names beside a file's own: what a writer has under way, locks, notes."""

from __future__ import annotations

import os

import xxhash

from randes_cli.files.location import P

TEMPORARY = ".randes-tmp"
#: Bytes of a name that stands in hidden ones as it is, and of the beginning of a longer one that
#: does. Twice a temporary name (of what is itself temporary) makes 143, which all disks take.
_WHOLE, _BEGINNING = 93, 76


def short(name: str) -> str:
    """A name to make others of: of a long one its beginning and a digest."""
    data = os.fsencode(name)
    if len(data) <= _WHOLE or is_temporary(name):
        return name
    digest = xxhash.xxh3_64_hexdigest(data)
    return f"{data[:_BEGINNING].decode('utf-8', 'ignore')}~{digest}"


def sibling(path: P) -> P:
    """A name for a temporary file beside `path`."""
    return path.parent / f".{short(path.name)}.{os.urandom(6).hex()}{TEMPORARY}"


def lock_name(path: P) -> P:
    """The file that is locked while `path` is written."""
    return path.parent / f".{short(path.name)}.lock"


def is_temporary(name: str) -> bool:
    """Whether a file is one that a writer has under way, or left."""
    return name.startswith(".") and name.endswith(TEMPORARY)


def is_under_way(name: str, path: P) -> bool:
    """Whether a temporary file is one of `path`, or of such a file."""
    return is_temporary(name) and name.lstrip(".").startswith(f"{short(path.name).lstrip('.')}.")
