"""`seal`: a bank whose superpositions are cut to few bits, read-only and much smaller.

Nothing is read but the bank: exact sums of squares of rows and columns of a live sum decide its
scales, then every value becomes a code. Both are functions of the bank's integers alone, so the
bytes do not depend on threads, strips or the machine. Digests of what is read are checked each
time: a bank that changes meanwhile is damaged, not sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from randes_cli.build.convert import joined
from randes_cli.build.jobs.copies import (
    Copy,
    closing_tensors,
    content_keys,
    copy_tensors,
    place_copies,
)
from randes_cli.build.jobs.sums import (
    measured_tensors,
    moments_of,
    place_sealed,
    scale_bytes,
    sums_of,
)
from randes_cli.build.layout import bank_size
from randes_cli.build.seal.cutting import Cutting
from randes_cli.cluster import Cluster
from randes_cli.core.arrays import F64
from randes_cli.core.levels import SEAL_BITS
from randes_cli.errors import UsageError
from randes_cli.files.atomic import check_space, check_target
from randes_cli.files.bank.entries import header_room
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import cut_key
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.output import bank_output, passing_bank
from randes_cli.files.bank.records import SealRecord
from randes_cli.files.bank.shards import most_bytes
from randes_cli.files.bank.writer import BankWriter
from randes_cli.files.local.guard import one_command
from randes_cli.files.local.lock import bank_lock, edited_bank
from randes_cli.files.location import Place, as_place, new_file, same_place
from randes_cli.files.sources import open_bank
from randes_cli.limits import StrPath, as_source
from randes_cli.plan import sealable
from randes_cli.reports import Alternative, SealReport
from randes_cli.specs import RunOptions, check_shard_size, table_bytes
from randes_cli.stats.alternatives import parse_limit, sealing
from randes_cli.stats.base_length import bank_lengths_beside
from randes_cli.stats.coefficients import with_defaults
from randes_cli.stats.frontier import marked
from randes_cli.stats.stored import Statistics, open_statistics
from randes_cli.stats.summaries import bank_summaries, kept_on_average, summaries
from randes_cli.workers import Progress, no_progress

if TYPE_CHECKING:
    from randes_cli.build.seal.crew import SealCrew

R = TypeVar("R")

#: Tensors of a base up to which a sealing is laid out to tell its size: of 90,000 it would take
#: three times as long as all the rest that `inspect` says, and the table's "about" is near.
_MOST_TENSORS = 2**13


@one_command()
def seal(
    bank: StrPath,
    out: StrPath | None,
    bits: int,
    run: RunOptions | None = None,
    *,
    force: bool = False,
    wait: float = 0.0,
    dry_run: bool = False,
    max_shard_size: int | None = None,
    progress: Progress = no_progress,
) -> SealReport:
    """Write to `out` (None: in place) the bank with its live groups cut to `bits` an element.

    Groups that are sealed already stay as they are. Tensors too small for scales of their own
    (vectors) stay live sums of a read-only group. `max_shard_size` is in bytes (None: in shards or
    not as the bank is).
    Raises UsageError (nothing live to seal), BankDamaged, BankLocked, NoSpace.
    """
    run, target = run or RunOptions(), new_file(bank if out is None else out)
    itself = out is None or same_place(target, as_place(as_source(bank)))
    target = edited_bank(target) if itself else target
    if bits not in SEAL_BITS:
        raise UsageError(f"--bits must be 8, 4, 3, 2 or 1, not {bits}")
    check_shard_size(max_shard_size)
    source = as_source(target if itself else bank)
    with ExitStack() as stack:
        if not dry_run:
            if out is not None:
                check_target(target, force=force)
            stack.enter_context(bank_lock(target, wait=wait, edits=itself))
        old = stack.enter_context(open_bank(source))
        under_way = _Sealing(source, old, bits, run, progress, max_shard_size)
        return under_way.run(target, force=force or out is None, dry_run=dry_run)


def fit_bits(bank: StrPath, limit: str | None, max_shard_size: int | None = None) -> int:
    """The most bits with which a sealed bank is within `limit` (see `parse_limit`).

    `max_shard_size` is as for `seal`. Raises UsageError where none is.
    """
    with open_bank(as_source(bank)) as file:
        base = table_bytes(file.manifest.base.tensors)
    most = parse_limit(limit or "", base)
    for bits in sorted(SEAL_BITS, reverse=True):
        there = seal(bank, bank, bits, dry_run=True, max_shard_size=max_shard_size)
        size = there.bytes_after
        if size <= most:
            return bits
    raise UsageError(f"{bank}: --fit {limit}: one bit takes {size:,} bytes, more than {most:,}")


def with_exact_saving(bank: BankFile, choices: Sequence[Alternative]) -> tuple[Alternative, ...]:
    """The choices of an open bank, that which `sealing` finds with the bytes that it would have.

    Of very many tensors it stays about so.
    """
    found = sealing(choices)
    if found is None or len(bank.manifest.base.tensors) > _MOST_TENSORS:
        return tuple(choices)
    made = _Sealing(str(bank.path), bank, found.best.bits, RunOptions(), no_progress, None)
    size = made.size(made.sealed()[0])
    exact = replace(found.best, bank_bytes=size, exact=True)
    return marked(exact if one is found.best else one for one in choices)


class _Sealing:
    """One sealing under way; `bank` is what the caller named."""

    def __init__(
        self,
        bank: str,
        old: BankFile,
        bits: int,
        run: RunOptions,
        progress: Progress,
        most: int | None,
    ) -> None:
        self.bank, self.old, self.bits, self.most = bank, old, bits, most
        manifest = old.manifest
        named = manifest.base.tensors
        held = {task.group for task in manifest.tasks} | {g for _, g in manifest.forgotten}
        self.groups = sorted(held - manifest.sealed.keys())
        if not held:
            old.require_tasks()
        if not self.groups:
            raise UsageError(f"{old.path}: every group is sealed already; pack anew to change bits")
        self.sums = sums_of(old, self.groups)
        if not any(map(sealable, named.values())):
            raise UsageError(f"{old.path}: no tensor is wide enough for the scales that seals need")
        self.cutting = Cutting(old, self.sums, bits, run, progress)
        gone = {one.key for one in self.sums} | set(map(cut_key, self.groups))
        self.kept = [key for key in content_keys(old) if key not in gone]
        self.measured = measured_tensors(named, self.groups)
        made = [tensor for one in self.sums for tensor in one.sealed(bits)]
        kept = map(old.info, self.kept)
        self.candidates = [*kept, *made, *self.measured, *closing_tensors()]

    def run(self, target: Place, *, force: bool, dry_run: bool) -> SealReport:
        supposed, statistics = self.sealed()
        size = self.size(supposed)
        if dry_run:
            return self._report(target, supposed, statistics, size, dry_run=True)
        most = most_bytes(self.most, size, self.old.most)

        def report(written: int) -> SealReport:
            return self._report(target, *self.sealed(self._moments()), written, dry_run=False)

        if self.cutting.run.engine == "threads":
            check_space(target, size, most)
            return self._write(target, most, force, size, report)
        from randes_cli.build.seal.crew import SealCrew

        with Cluster(self.cutting.run) as cluster:
            crew = SealCrew(cluster, self.bank, self.cutting, self.groups)
            crew.measure()
            if most is not None:
                if isinstance(target, Path):  # in a store each worker asks for its own
                    check_space(target, size)
                return self._write(target, most, force, size, report, crew)
            check_target(target, force=force)
            with passing_bank(target) as live:
                self._write(live, cluster.share(size), False, size, int, crew)
                return joined(live, target, force, self.cutting.progress, report)

    def size(self, supposed: Manifest) -> int:
        """Bytes of the sealed bank, but for digits of λ, which are measured."""
        pairs = [one.sealed(self.bits) for one in self.sums]
        scales, codes = zip(*pairs, strict=True) if pairs else ((), ())
        made = [*map(self.old.info, self.kept), *scales, *codes, *self.measured]
        room, old = header_room(self.candidates), self.old.most
        return bank_size(made, room, supposed, asked=self.most, old=old).bytes

    def _write(
        self,
        target: Place,
        most: int | None,
        force: bool,
        size: int,
        report: Callable[[int], R],
        crew: SealCrew | None = None,
    ) -> R:
        """Write the bank, a crew with scales that are known; `report` comes before the commit."""
        progress = self.cutting.progress
        with bank_output(target, force=force, most=most, progress=progress) as out:
            out.reserve(size)
            writer = BankWriter(out, header_room(self.candidates), lasting=True)
            copies = list[Copy]()
            if crew is None and (self.old.far or not isinstance(target, Path)):
                copy_tensors(writer, self.old, self.kept, self.cutting.progress)
            else:
                copies = place_copies(writer, self.old, self.kept)
                writer.close_shard()
            place_sealed(writer, self.sums, self.bits)
            if crew is None:
                left = self.cutting.measure(writer, copies)
                self._write_scales(writer)
                self.cutting.cut(writer, copies=left)
            else:
                crew.make(writer, self.kept)
            manifest, statistics = self.sealed(self._moments())
            for tensor, group in zip(self.measured, self.groups, strict=True):
                writer.add_whole(tensor, statistics.known.cut[group].astype("<f8").tobytes())
            return report(writer.finish(manifest))

    def _write_scales(self, writer: BankWriter) -> None:
        """Write those that are known before sums are cut."""
        for one in self.sums:
            if one.key in self.cutting.scales:
                data = scale_bytes(*self.cutting.fitted(one))
                writer.write_whole(one.sealed(self.bits)[0], data)

    def _moments(self) -> dict[int, F64]:
        """What became of each group's superpositions, as ``stats/sealed/<group>`` has it."""
        manifest, cutting = self.old.manifest, self.cutting
        parts = {key: scales.part for key, scales in cutting.scales.items()}
        found = [(one, cutting.agreement[one.key], parts[one.key]) for one in self.sums]
        return moments_of(manifest.base.tensors, manifest.steps, self.groups, found)

    def sealed(self, cut: Mapping[int, F64] | None = None) -> tuple[Manifest, Statistics]:
        """The bank's manifest and statistics once its groups are sealed."""
        old, stored = self.old.manifest, open_statistics(self.old)
        known = replace(stored.known, cut={**stored.known.cut, **(cut or {})})
        sealed = {**old.sealed, **{group: SealRecord(self.bits) for group in self.groups}}
        manifest = with_defaults(old.with_sealed(sealed), known)
        return manifest, replace(stored, known=known)

    def _report(
        self, target: Place, manifest: Manifest, after: Statistics, size: int, *, dry_run: bool
    ) -> SealReport:
        return SealReport(
            bank=str(target),
            dry_run=dry_run,
            bits=self.bits,
            groups=tuple(self.groups),
            bytes_before=self.old.size,
            bytes_after=size,
            before=bank_summaries(self.old, open_statistics(self.old)),
            after=summaries(manifest, after, bank_lengths_beside(self.old, after), sealing=dry_run),
            kept=kept_on_average(manifest, after.known),
        )
