"""What a manifest records of a task and of where it came from."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.tally import Tally
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.checkpoint.shared import content_fingerprint, ties_of, whole_of
from randes_cli.files.hub.ref import is_model_id
from randes_cli.files.local.system import resolved
from randes_cli.files.location import Place, RemotePath, as_place
from randes_cli.limits import CONTROL, LONGEST_NAME
from randes_cli.reports import TaskSummary
from randes_cli.specs import TensorInfo, table_bytes

#: In place of the fingerprint of what has not been read.
NO_FINGERPRINT = "0" * 32


def recorded_source(source: str, bank: Place) -> str:
    """What the manifest says of where a checkpoint came from.

    The id of a model on the Hub stays as it is. Of a path (there or gone) the part below the
    bank's folder, else its last part: a bank's bytes, and what it tells strangers, do not depend
    on outer folders, nor on where a link there leads. Nor do they on the locale: names of files
    are bytes, read as UTF-8. An address is the part below the bank's folder, too, or else whole,
    but without its secrets.
    """
    place = as_place(source)
    if isinstance(place, RemotePath):
        below = place.below(bank.parent) if isinstance(bank, RemotePath) else None
        return _line(below or str(place))
    path = Path(source)
    if is_model_id(source) and not path.exists():
        return _line(source)
    named = resolved(path) if ".." in path.parts else Path(os.path.abspath(path))  # noqa: PTH100
    if isinstance(bank, RemotePath):
        return _line(named.name)
    folders = [Path(os.path.abspath(bank.parent)), resolved(bank.parent)]  # noqa: PTH100
    for one, folder in [(named, folders[0]), (named, folders[1]), (resolved(path), folders[1])]:
        if one.is_relative_to(folder) and one != folder:
            return _line(one.relative_to(folder).as_posix())
    return _line(named.name)


def recorded_words(claimed: str) -> str:
    """What the manifest says of a base that only an adapter's config names.

    It may be anything, and is looked for nowhere: the id of a model, or the end of a path.
    """
    return _line(claimed if is_model_id(claimed) else re.split(r"[/\\]", claimed.rstrip("/\\"))[-1])


def _line(text: str) -> str:
    """A text as a manifest may hold it: what is no character there becomes a question mark."""
    with suppress(UnicodeEncodeError):
        text = os.fsencode(text).decode("utf-8", "surrogateescape")
    return CONTROL.sub("?", text.encode("utf-8", "replace").decode())[:LONGEST_NAME]


def task_record(
    base: Mapping[str, TensorInfo], participant: Participant, tally: Tally, *, source: str
) -> TaskRecord:
    """The record of a task whose tensors have all been read."""
    tensors, index = participant.source.tensors, participant.index
    changed = tally.changed.get(index, set())
    found = content_fingerprint(participant.source, tally.joined(index, tensors))
    return record_of(base, participant, changed, found, source=source)


def record_of(
    base: Mapping[str, TensorInfo],
    participant: Participant,
    changed: Container[str],
    found: str,
    *,
    source: str,
) -> TaskRecord:
    """The record of a task with this fingerprint, of which `changed` differs from the base."""
    tensors, fit, opened = participant.source.tensors, participant.fit, participant.opened
    same = {
        name
        for name, tensor in tensors.items()
        if name not in changed
        and name in base
        and (name in fit.superposed or base[name].shape == tensor.shape)
    }
    own = {n: tensors[n] for n in fit.exact if n not in same}
    shared = {n: t for n, t in tensors.items() if n not in own} if tensors is not base else {}
    lent = tensors.keys() - whole_of(participant.source).tensors.keys()
    dtype = None
    if any(tensor.dtype != base[name].dtype for name, tensor in shared.items()):
        dtype = Counter(tensor.dtype for tensor in shared.values()).most_common(1)[0][0]
    return TaskRecord(
        name=participant.name,
        index=participant.index,
        seed=participant.seed,
        group=participant.group,
        source=source,
        fingerprint=found,
        metadata=dict(participant.source.metadata),
        dtype=dtype,
        unchanged=frozenset(same),
        missing=frozenset(fit.missing) | lent,
        own=own,
        shapes={n: t.shape for n, t in shared.items() if t.shape != base[n].shape},
        dtypes={n: t.dtype for n, t in shared.items() if t.dtype != (dtype or base[n].dtype)},
        prefix=opened.naming.prefix,
        unprefixed=opened.naming.unprefixed,
        layout=opened.beside.layout,
        files={name: file.digest for name, file in opened.beside.side_files.items()},
        left_out=opened.beside.left_out,
        pickle=opened.beside.pickle,
        ties=ties_of(participant.source),
    )


def task_summary(participant: Participant, found: TaskSummary) -> TaskSummary:
    """A task as `pack` reports it: what its bank says of it, and what was read."""
    return replace(
        found,
        read_bytes=table_bytes(participant.source.tensors),
        side_files=len(participant.opened.beside.side_files),
        left_out=dict(participant.opened.beside.left_out),
        notes=participant.opened.notes,
    )
