"""Names that share one tensor: tied embeddings that a checkpoint holds twice, or four times.

Tensors whose bytes are equal inside a checkpoint are one tensor with several names. A bank keeps
one of them, and a table of the other names (`ties`): the tensor comes back under each of them,
bit-equal. Tensors that are one number all over are equal by chance, and are left as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import xxhash

from randes_cli.core.arrays import U64, Raw, firsts
from randes_cli.files.digests import fingerprint, hasher
from randes_cli.files.local.guard import reads_far
from randes_cli.files.local.system import piece_at
from randes_cli.files.reading import read_rows
from randes_cli.files.source import Renamed, Source, places_of
from randes_cli.files.weight_file import read_error
from randes_cli.specs import ITEM_SIZE, Table, TensorInfo, Tensors, once
from randes_cli.workers import at_once

#: Bytes from the middle of a tensor that tell most tensors apart.
_LOOK = 256
#: Bytes that are read at a time of those that it does not.
_READ = 2**22
#: Bytes of tensors of which neighbours are looked at together, and how many of them.
_SMALL, _TOGETHER = 2**14, 2**12
_ODD = np.uint64(0x9E3779B97F4A7C15)

#: Tasks that give a copy a value of its own for it to be superposed: exact tensors of one take
#: less than another copy in the base and a superposition, of two a third more, without noise.
_PARTED = 3

Ties = Mapping[str, str]
#: Names of tensors with equal bytes, those of one class together.
Classes = Sequence[Sequence[str]]


def equal_tensors(source: Source) -> Classes:
    """Names of tensors with equal dtype, shape and bytes, two or more together.

    Only tensors that look alike in the middle are read whole.
    """
    made: dict[object, list[str]] = {}
    for kind, names in once(_same_kinds, source.tensors).items():
        for alike in _look_alike(names, _middles(source, names)):
            for name in alike:
                content = _digest(source, name)
                if content is not None:
                    made.setdefault((kind, alike[0], content), []).append(name)
    return [names for names in made.values() if len(names) > 1]


def _same_kinds(tensors: Tensors) -> dict[tuple[str, tuple[int, ...]], list[str]]:
    """Names by dtype and shape, of tensors of more than one element that are not alone."""
    found: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, dtype, shape in tensors.values():
        found.setdefault((dtype, shape), []).append(name)
    return {
        kind: names
        for kind, names in found.items()
        if len(names) > 1 and TensorInfo("", *kind).elements > 1
    }


def _look_alike(names: Sequence[str], looks: U64) -> Iterator[list[str]]:
    """Names with the same look, two or more together."""
    order = np.argsort(looks, kind="stable")
    first = firsts(looks[order])
    counts = np.diff(np.append(first, len(order)))
    several = zip(first[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True)
    for places in sorted(order[at : at + count].tolist() for at, count in several):
        yield [names[place] for place in places]


def _middles(source: Source, names: Sequence[str]) -> U64:
    """A number of the bytes in the middle of each of these tensors, which are of one kind."""
    tensor = source.tensors[names[0]]
    size = ITEM_SIZE[tensor.dtype]
    count = min(tensor.elements, _LOOK // size)
    start, nbytes = (tensor.elements - count) // 2 * size, count * size
    if reads_far() or tensor.nbytes > _SMALL:
        numbers = map(xxhash.xxh3_64_intdigest, _pieces(source, names, start, nbytes))
        return np.fromiter(numbers, np.uint64, len(names))
    made = np.empty(len(names), np.uint64)
    for first in range(0, len(names), _TOGETHER):
        some = names[first : first + _TOGETHER]
        made[first : first + len(some)] = _sums(read_rows(source, some, nbytes, start))
    return made


def _sums(rows: Raw) -> U64:
    """A number of each row's bytes: rows with other bytes rarely have the same."""
    words = np.zeros((len(rows), -(-rows.shape[1] // 8)), np.uint64)
    words.view(np.uint8)[:, : rows.shape[1]] = rows
    factors = _ODD * (2 * np.arange(words.shape[1], dtype=np.uint64) + 1)
    made: U64 = (words * factors).sum(axis=1, dtype=np.uint64)
    return made


def _pieces(source: Source, names: Sequence[str], start: int, nbytes: int) -> Iterable[bytes]:
    """`nbytes` bytes of each of these tensors from `start` of its data."""

    def read(name: str) -> bytes:
        raw = np.empty(nbytes, np.uint8)
        source.read(name, start, raw)
        return raw.tobytes()

    files, places = places_of(source, names).T
    if reads_far() or bool((files < 0).any()):
        yield from at_once(read, names, far=reads_far())
        return
    found = map(piece_at, files.tolist(), repeat(nbytes), (places + start).tolist())
    try:
        for name, piece in zip(names, found, strict=True):
            yield piece if len(piece) == nbytes else read(name)
    except OSError as error:
        raise read_error(error, source.source) from error


def _digest(source: Source, name: str) -> bytes | None:
    """The digest of a tensor's bytes; None where all its elements are the same."""
    tensor, running = source.tensors[name], hasher()
    size = ITEM_SIZE[tensor.dtype]
    first: Raw | None = None
    constant = True
    for start in range(0, tensor.nbytes, _READ):
        raw = np.empty(min(_READ, tensor.nbytes - start), np.uint8)
        source.read(name, start, raw)
        running.update(raw)  # type: ignore[arg-type]
        first = raw[:size].copy() if first is None else first
        constant = constant and bool((raw.reshape(-1, size) == first).all())
    return None if constant else running.digest()


def ties_of_base(alike: Classes, tasks: Sequence[tuple[Source, Classes]]) -> dict[str, str]:
    """The other names of a base's tensors, each with the one that it is kept under.

    `alike` are the base's classes. Of a class the tasks may part some (a ControlNet that starts
    from a UNet, an average beside its model, experts made of one layer): those are kept apart.
    """
    made: dict[str, str] = {}
    numbers = [
        (source, {name: number for number, names in enumerate(classes) for name in names})
        for source, classes in tasks
    ]
    for names in alike:
        leaders: list[str] = []
        for name in names:
            near = (leader for leader in leaders if _parting(leader, name, numbers) < _PARTED)
            leader = next(near, None)
            if leader is None:
                leaders.append(name)
            else:
                made[name] = leader
    return made


def _parting(one: str, other: str, tasks: Iterable[tuple[Source, Mapping[str, int]]]) -> int:
    """How many tasks have two tensors, and not as one."""
    return sum(
        one in source.tensors and other in source.tensors
        for source, number in tasks
        if one not in number or number[one] != number.get(other)
    )


def find_ties(source: Source, base: Tensors, base_ties: Ties, alike: Classes) -> dict[str, str]:
    """The kept name of every tensor of a checkpoint that comes back as a copy of another.

    `base` are the base's kept tensors, `base_ties` its other names, `alike` the checkpoint's
    `equal_tensors`. A class is kept under a name that the base keeps (in its order), so that it is
    superposed; also where the checkpoint itself has only another name of that tensor. A class that
    the base lacks is kept under its first name.
    """
    met = {name for names in alike for name in names}
    lone = [[name] for name in base_ties if name in source.tensors and name not in met]
    order = {name: place for place, name in enumerate(base)}
    made: dict[str, str] = {}
    for names in [*alike, *lone]:
        kept = _kept(names, order, base_ties, {*source.tensors, *made.values()})
        made.update({name: kept for name in names if name != kept})
    return made


def _kept(
    names: Sequence[str], order: Mapping[str, int], base_ties: Ties, taken: Collection[str]
) -> str:
    """The name that a class of equal tensors is kept under."""
    inside = [name for name in names if name in order]
    if inside:
        return min(inside, key=order.__getitem__)
    lent = [base_ties[name] for name in names if name in base_ties]
    return next((name for name in lent if name not in taken), names[0])


@dataclass(frozen=True)
class _Kept:
    """What is kept of tensors with ties: one table for checkpoints with one header and the same."""

    ties: tuple[tuple[str, str], ...]

    def __call__(self, tensors: Tensors) -> Table:
        others = dict(self.ties)
        kept = {name: tensor for name, tensor in tensors.items() if name not in others}
        lent = {kept: name for name, kept in self.ties if kept not in tensors}
        return Table(kept | {name: tensors[n]._replace(name=name) for name, n in lent.items()})


class Untied(Renamed):
    """A checkpoint under the names that are kept. `ties` are the others, `whole` is as it was.

    `lent` has its own name of each that it has under another alone.
    """

    def __init__(self, whole: Source, ties: Ties) -> None:
        self.lent = {kept: name for name, kept in ties.items() if kept not in whole.tensors}
        super().__init__(whole, once(_Kept(tuple(ties.items())), whole.tensors), self.lent)
        self.whole, self.ties = whole, ties


def retied(kept: Source, ties: Ties) -> Source:
    """A source of kept tensors, under all names that they have."""
    return Renamed(kept, all_names(kept.tensors, ties), ties) if ties else kept


def all_names(kept: Tensors, ties: Ties) -> dict[str, TensorInfo]:
    """Kept tensors, and the same under their other names."""
    more = {name: kept[leader]._replace(name=name) for name, leader in ties.items()}
    return {**kept, **more}


def untied(source: Source, ties: Ties) -> Source:
    """A checkpoint under kept names; the same where it has no others."""
    return Untied(source, ties) if ties else source


def ties_of(source: Source) -> Ties:
    """The other names of a source's tensors."""
    ties: Ties = getattr(source, "ties", {})
    return ties


def lent_by(source: Source) -> Ties:
    """A source's own names of tensors that it has under kept names which are not its own."""
    lent: Ties = getattr(source, "lent", {})
    return lent


def whole_of(source: Source) -> Source:
    """A source under all its names."""
    whole: Source = getattr(source, "whole", source)
    return whole


def content_fingerprint(source: Source, digests: Mapping[str, bytes]) -> str:
    """The fingerprint of a checkpoint, from the chunk digests of its kept tensors."""
    ties, tensors = ties_of(source), whole_of(source).tensors
    if not ties:
        return fingerprint(tensors, digests)
    return fingerprint(tensors, {name: digests[ties.get(name, name)] for name in tensors})
