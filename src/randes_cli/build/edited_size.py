"""The size of a bank after an edit, before a byte of it is written: what a dry run says."""

from __future__ import annotations

from collections.abc import Iterator

from randes_cli.build.draft import Draft
from randes_cli.build.exact import differs
from randes_cli.build.steps import Steps
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import MANIFEST, parse_key
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.files.manifest import Manifest, encode
from randes_cli.specs import TensorInfo
from randes_cli.stats.stored import Statistics

#: Bytes of a tensor's entry in a header beside its name, about.
_ENTRY = 90


def edited_size(
    draft: Draft, old: BankFile, steps: Steps, manifest: Manifest, statistics: Statistics
) -> int:
    """Bytes of the bank that follows `old`, but for some that only a header's room decides.

    What may turn out to be the base's (a running statistic) counts by its beginning.
    """
    coming, going = list(_coming(draft, steps)), list(_going(draft, old))
    numbers = draft.statistics(statistics.cells)
    coming += numbers
    going += [old.info(one.name) for one in numbers if one.name in old]
    size = old.size + sum(map(_bytes, coming)) - sum(map(_bytes, going))
    return size + len(encode(manifest)) - old.info(MANIFEST).nbytes


def _bytes(tensor: TensorInfo) -> int:
    """Bytes of a tensor, its digests and its entry in the header."""
    return tensor.nbytes + DIGEST_BYTES * chunk_count(tensor) + len(tensor.name) + _ENTRY


def _coming(draft: Draft, steps: Steps) -> Iterator[TensorInfo]:
    """Tensors that the bank lacks: sums, what is kept exactly, and files."""
    yield from (one.kept for one in draft.exact if one.twin is None or differs(one))
    yield from (tensor for tensor, _ in draft.new_files())
    for unit, groups in draft.entered.items():
        for group in groups if unit in steps.ready else ():
            if (group, unit) not in draft.kept:
                yield from draft.sums((group, unit), steps.width(unit))


def _going(draft: Draft, old: BankFile) -> Iterator[TensorInfo]:
    """Tensors of the old bank that nothing needs any more."""
    stays = set(draft.taken_over())
    for key in old.header.tensors:
        kind, group, name = parse_key(key)
        if key in stays or kind not in ("own", "files", "scale", "sum"):
            continue
        if kind != "sum" or (int(group), draft.unit_of[name]) not in draft.kept:
            yield old.info(key)
