"""What an object in a store is made of where several workers send parts of it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from randes_cli.files.location import RemotePath


class Part(NamedTuple):
    """A part of an object by name: `into` is that of all its parts, `start` its first byte there.

    Who makes it again sends the same bytes under the same name.
    """

    into: str
    start: int


class Sent(NamedTuple):
    """A part that a store has: so many bytes of an object, from byte `start` of it on."""

    place: RemotePath
    start: int
    size: int


#: What an object is joined of, in order.
Segment: TypeAlias = bytes | Sent
