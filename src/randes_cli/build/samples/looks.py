"""Deltas on samples: of several tasks in one call, where that is compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from randes_cli.build.inputs.participants import Deltas, Participant
from randes_cli.core.arrays import F32, F64
from randes_cli.core.compiled.sample import Lies, read_deltas, read_spreads
from randes_cli.files.source import Sample, Source, place_of
from randes_cli.specs import TensorInfo

#: Elements that are held together.
_TOGETHER = 2**20


def deltas_of(sample: Sample, participants: Sequence[Deltas], name: str) -> Iterator[F32 | None]:
    """What `delta` of each participant is, one after the other. Raises what it raises."""
    at_once = max(1, _TOGETHER // max(1, sample.elements))
    for first in range(0, len(participants), at_once):
        some = participants[first : first + at_once]
        places = _deltas_lie(sample, some, name)
        found = _read(sample, name, [lies for lies in places if lies is not None])
        rows = iter(()) if found is None else iter(found)
        for one, lies in zip(some, places, strict=True):
            alone = found is None or lies is None
            yield one.delta(sample, name) if alone else next(rows)


def spreads_of(sample: Sample, participants: Sequence[Deltas], name: str) -> tuple[F64, F64] | None:
    """Of each participant's delta the sum of squares and the largest magnitude, in one call.

    None where a participant has no such tensor, or for that call.
    """
    places = _deltas_lie(sample, participants, name)
    known = [lies for lies in places if lies is not None]
    base = _base_lies(sample, name)
    if base is None or not known or len(known) < len(places):
        return None
    return read_spreads(_runs(sample), base, known)


def _runs(sample: Sample) -> list[tuple[int, int]]:
    return [(rect.start, rect.elements) for rect in sample.runs]


def _base_lies(sample: Sample, name: str) -> Lies | None:
    source = sample.source
    return Lies(None, "F32") if source is None else _lies(source, source.tensors[name])


def _read(sample: Sample, name: str, places: Sequence[Lies]) -> F32 | None:
    base = _base_lies(sample, name)
    return None if not places or base is None else read_deltas(_runs(sample), base, places)


def _deltas_lie(sample: Sample, some: Sequence[Deltas], name: str) -> list[Lies | None]:
    """Where participants' tensors lie; None of one that has none, or where rows are missing."""
    rows = max((rect.row1 for rect in sample.runs), default=0)
    return [_delta_lies(one, rows, name) for one in some]


def _delta_lies(one: Deltas, rows: int, name: str) -> Lies | None:
    tensor = one.fit.superposed.get(name) if isinstance(one, Participant) else None
    if not isinstance(one, Participant) or tensor is None:
        return None
    return _lies(one.source, tensor) if rows <= tensor.matrix[0] else None


def _lies(source: Source, tensor: TensorInfo) -> Lies | None:
    place = place_of(source, tensor.name)
    return None if place is None else Lies(place, tensor.dtype)
