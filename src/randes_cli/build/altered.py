"""Whether what float32 tells little or not at all from the base comes back all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress

import numpy as np

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.passes import Passes
from randes_cli.core.arrays import F32
from randes_cli.core.columns import columns
from randes_cli.core.convert import narrow, values_of
from randes_cli.files.digests import zero_digests
from randes_cli.files.source import Source, read_raw
from randes_cli.plan import chunks

#: What rounding may take of a change, as a share of its length.
_LITTLE = 0.1


class Altered(Exception):
    """Tensors of participants have nearly the base's values in float32, and yet other bytes.

    Attributes:
        names: by participant's index.
    """

    def __init__(self, names: Mapping[int, list[str]]) -> None:
        super().__init__(names)
        self.names = names


def check_bytes(passes: Passes) -> None:
    """Raise Altered where a tensor would count as unchanged that does not come back to the byte.

    −0 in place of 0 is such a difference, and one of F64 below float32. Digests tell, where a
    tensor is as the base's in dtype and shape; of the others both are read again. So is F64 that
    changed, which float32 may tell from the base and yet give another change.
    """
    found = {one.index: names for one in passes.draft.coming if (names := _altered(passes, one))}
    if found:
        raise Altered(found)


def _altered(passes: Passes, one: Participant) -> list[str]:
    base, tally = passes.draft.deltas_from, passes.tally
    changed = tally.changed.get(one.index, set())
    left = one.fit.superposed.keys() - changed
    same = {name: t for name, t in one.fit.superposed.items() if name in left} if left else {}
    ours = tally.joined(one.index, same) if same else {}
    long = (name for name in _long(one) if name in changed)
    made = [name for name in long if not _told_apart(base, one.source, name)]
    if base is None:  # of zeros
        zeros = zero_digests(same)
        return made + [name for name in same if ours[name] != zeros[name]]
    theirs = tally.joined("base", same) if same else {}
    for name, tensor in same.items():
        if base.tensors[name] == tensor:
            differs = ours[name] != theirs[name]
        else:
            differs = not _comes_back(base, one.source, name)
        if differs:
            made.append(name)
    return made


def foreseen(coming: Sequence[Participant], base: Source | None) -> list[Participant]:
    """Participants that keep exactly what `check_bytes` would find of F64, by its beginning."""
    made = []
    for one in coming:
        names = [n for n in _long(one) if not _told_apart(base, one.source, n, most=1)]
        made.append(one.keeping(names) if names else one)
    return made


def _long(one: Participant) -> Iterator[str]:
    """The tensors of F64 that are to be superposed."""
    table = one.fit.superposed
    return compress(table, columns(table).where(lambda kind: kind.dtype == "F64").tolist())


def _told_apart(base: Source | None, task: Source, name: str, most: int | None = None) -> bool:
    """Whether what float32 drops of float64 values is little beside what they changed by.

    `most` chunks of them are looked at, where it is given; what did not change there is.
    """
    tensor = task.tensors[name]
    rows = min(tensor.matrix[0], base.tensors[name].matrix[0] if base else tensor.matrix[0])
    dropped = moved = 0.0
    for rect in chunks(rows, tensor.matrix[1])[:most]:
        ours = values_of(read_raw(task, name, rect.start, rect.elements), "F64")
        delta = ours
        if base is not None:
            raw = read_raw(base, name, rect.start, rect.elements)
            delta = ours - values_of(raw, base.tensors[name].dtype)
        dropped += float(np.square(ours - ours.astype(np.float32)).sum())
        moved += float(np.square(delta).sum())
    return dropped <= _LITTLE**2 * moved or (most is not None and not moved)


def _comes_back(base: Source, task: Source, name: str) -> bool:
    """Whether the rows that both have are the base's, brought to the task's dtype."""
    tensor, twin = task.tensors[name], base.tensors[name]
    rows, cols = min(tensor.matrix[0], twin.matrix[0]), tensor.matrix[1]
    for rect in chunks(rows, cols):
        theirs = read_raw(base, name, rect.start, rect.elements)
        made = read_raw(task, name, rect.start, rect.elements)
        if tensor.dtype == twin.dtype:
            back = theirs
        else:
            values: F32 = values_of(theirs, twin.dtype).astype(np.float32)
            back = np.empty_like(made)
            narrow(values, tensor.dtype, back)
        if not np.array_equal(back, made):
            return False
    return True
