"""Strip jobs: the one place where deltas enter and leave superpositions.

A job is one chunk of one unit: it reads the base and every participant once, strip by strip,
adds the transformed deltas into the superpositions, and writes and digests what comes of it.
"""

from __future__ import annotations

import numpy as np

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.compiled import run_compiled
from randes_cli.build.jobs.jobs import Files, Job, JobRun, Part, running
from randes_cli.core.arrays import Array, Raw
from randes_cli.core.energy import Energy
from randes_cli.core.grid import LIMIT
from randes_cli.core.kernel import Kernel, NonFinite, Overflow, code_dtype
from randes_cli.core.share import Share
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.source import not_finite
from randes_cli.plan import Rect
from randes_cli.specs import ITEM_SIZE, TensorInfo


def run_job(files: Files, kernel: Kernel, strip: int, job: Job) -> int:
    """Do one job in strips of `strip` elements; return the input bytes that it read.

    Raises CheckpointError for values that are not finite, BankDamaged for old sums that are not
    those written: an edit builds on sound bytes alone, for it would hide damage under new digests.
    """
    run = JobRun(files, kernel, job)
    if run_compiled(run):
        run.record()
        return run.bytes_read
    sums = [_Sum(run, part, n) for part, n in job.sums()]
    for rect in job.rect.split(strip):
        run.base_strip(rect)
        for one in sums:
            one.strip(rect)
    run.record()
    return run.bytes_read


class _Sum:
    """One tensor of the bank in a job: a group's superposition at one position of the unit."""

    def __init__(self, run: JobRun, part: Part, position: int) -> None:
        self.run, self.part, self.position = run, part, position
        self.key = sum_key(part.group, run.unit.names[position])

    def strip(self, rect: Rect) -> None:
        """Superpose a strip; without a step only look through the deltas."""
        run, step = self.run, self.part.step
        inside = rect.above(run.unit.rows)
        if inside is not None and step is not None:
            run.kernel.begin(inside.elements, self._old_codes(inside, step.bits), step.bits)
        for member in self.part.members:
            layer = run.orders[member.index][self.position]
            tensor = member.fit.superposed.get(run.unit.names[layer])
            whole = rect.above(tensor.matrix[0]) if tensor else None
            if tensor is None or whole is None:
                continue
            raw = run.read(member.index, member.source, tensor, whole)
            common = whole.above(run.unit.rows)
            if common is not None:
                part = raw[: common.elements * ITEM_SIZE[tensor.dtype]]
                self._add(member, layer, tensor, part, common)
        if inside is not None and step is not None:
            self._store(inside, step.bits)

    def _old_codes(self, rect: Rect, bits: int) -> Raw | None:
        old, share = self.run.files.old, self.part.share
        if old is None or not self.part.kept:
            return None
        if share.every > 1:  # its digests are not those of a job: `Passes` compares them
            return held_codes(old, self.key, share, rect, bits).view(np.uint8)
        codes = np.empty(rect.elements * bits // 8, np.uint8)
        old.read_into(self.key, rect.start * bits // 8, codes)
        running(self.run.old_sums, self.key).update(codes)
        return codes

    def _add(
        self, member: Participant, layer: int, tensor: TensorInfo, raw: Raw, rect: Rect
    ) -> None:
        run, step, key = self.run, self.part.step, (member.index, tensor.name)
        try:
            if step is None:
                run.largest = max(run.largest, run.kernel.changed(layer, raw, tensor.dtype))
                return
            signs = run.signs(member, self.position, rect, step)
            added = run.kernel.add(layer, raw, tensor.dtype, signs)
        except Overflow as overflow:
            run.peak = max(run.peak, overflow.peak)
        except NonFinite:
            base = run.files.base
            raise not_finite(tensor.name, *filter(None, (base, member.source))) from None
        else:
            run.changed.update([key] if added.changed else [])
            run.energies[key] = run.energies.get(key, Energy()).plus(added.energy)

    def _store(self, rect: Rect, bits: int) -> None:
        if self.part.share.every > 1:
            self._store_share(rect, bits)
            return
        codes, peak = self.run.kernel.finish(bits)
        if peak > LIMIT[bits]:
            self.run.peak = max(self.run.peak, peak)
            return
        running(self.run.sums, self.key).update(codes)
        self.run.files.writer.write(self.key, rect.start * bits // 8, codes)

    def _store_share(self, rect: Rect, bits: int) -> None:
        """Only what is stored must fit in 8 bits, all of the sum in 16."""
        share = self.part.share
        codes, peak = self.run.kernel.finish(16)
        if peak <= LIMIT[16]:
            units = share.take(codes.view(np.int16), rect.start)
            peak = max(int(units.max()), -int(units.min())) if units.size else 0
        if peak > LIMIT[bits]:
            self.run.peak = max(self.run.peak, peak)
            return
        start = share.place(rect.start) * bits // 8
        self.run.files.writer.write(self.key, start, units.astype(code_dtype(bits)))


def held_codes(old: BankFile, key: str, share: Share, rect: Rect, bits: int) -> Array:
    """A part of a live superposition, zeros for what its share does not store."""
    first, last = share.place(rect.start), share.place(rect.start + rect.elements)
    held = np.empty((last - first) * bits // 8, np.uint8)
    old.read_into(key, first * bits // 8, held)
    codes = held.view(code_dtype(bits))
    return codes if share.every == 1 else share.spread(codes, rect.start, rect.elements)
