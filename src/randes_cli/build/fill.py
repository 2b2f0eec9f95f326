"""How a bank is filled: what it holds is placed, the passes run, and what they found late."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from randes_cli.build.draft import Place
from randes_cli.build.jobs.exact import Exact
from randes_cli.build.jobs.tally import Tally
from randes_cli.build.jobs.work import Attempt
from randes_cli.build.passes import Passes
from randes_cli.build.room import sum_table
from randes_cli.errors import MismatchError
from randes_cli.files.bank.keys import base_key, sum_key
from randes_cli.files.checkpoint.shared import content_fingerprint
from randes_cli.plan import Unit
from randes_cli.specs import BaseStorage


def fill(passes: Passes, phase: str) -> None:
    """Write all of a bank but its statistics, manifest and what follows them.

    Raises TooNarrow, and what reading and fitting raise.
    """
    draft, writer = passes.draft, passes.writer
    _place_base(passes)
    writer.close_shard()
    _place_sums(passes)
    passes.take_over(draft.taken_over())
    if draft.old is not None:
        add_files(passes)
    for one in draft.exact:
        if one.twin is None:
            writer.place(one.kept)
    if not _may_be_late(passes):
        writer.close_shard()
    exact = [replace(one, key=None) if one.twin else one for one in draft.exact]
    passes.run(
        draft.units if draft.old is None else _changing(passes),
        [*exact, *base_outside(passes, draft.units), *_only_read(passes)],
        phase,
        write_base=embeds(passes),
    )
    passes.settle()
    _add_late(passes)
    _check_leaving(passes)


def add_files(passes: Passes) -> None:
    """Write the side files that enter the bank."""
    for tensor, file in passes.draft.new_files():
        passes.writer.add_whole(tensor, file.content())


def _may_be_late(passes: Passes) -> bool:
    """Whether the pass may show that something changed of which the sample knew nothing."""
    draft = passes.draft
    looked_through = any(unit not in passes.steps.ready for unit in draft.entered)
    return looked_through or any(one.twin for one in draft.exact)


def embeds(passes: Passes) -> bool:
    draft = passes.draft
    return draft.old is None and draft.start.base.storage is BaseStorage.embed


def _place_base(passes: Passes) -> None:
    draft = passes.draft
    if draft.old is not None:
        passes.take_over(draft.kept_keys("base"))
        return
    passes.writer.place_all(draft.base_table)


def _place_sums(passes: Passes) -> None:
    """Place the superpositions that change, and copy those that stay as they are."""
    draft, ready = passes.draft, passes.steps.ready
    left = {(p.group, unit) for p in draft.leaving for unit in draft.units if p.meets(unit)}
    made: list[Place] = []
    for place in draft.places(passes.steps):
        group, unit = place
        enters = unit in ready and group in draft.entered.get(unit, ())
        if enters or (left and place in left and place in draft.kept):
            made.append(place)
        elif draft.kept and place in draft.kept:
            _place(passes, made)
            made = []
            passes.take_over([sum_key(group, name) for name in unit.names])
    _place(passes, made)


def _place(passes: Passes, places: Iterable[Place]) -> None:
    """Give superpositions the next places."""
    for group, some in groupby(places, itemgetter(0)):
        units = [unit for _, unit in some]
        passes.writer.place_all(sum_table(passes.draft, group, units, passes.steps))


def _changing(passes: Passes) -> list[Unit]:
    draft = passes.draft
    return [
        unit
        for unit in draft.units
        if unit in draft.entered
        or any((p.group, unit) in draft.kept and p.meets(unit) for p in draft.leaving)
    ]


def base_outside(passes: Passes, units: Iterable[Unit]) -> list[Exact]:
    """Reads (and writes) of a new bank's base tensors that no job of these units reads."""
    base, draft = passes.draft.deltas_from, passes.draft
    if draft.old is not None or base is None:
        return []
    written, read = embeds(passes), {name for unit in units for name in unit.names}
    return [
        Exact(base, name, base_key(name) if written else None, "base")
        for name in base.tensors
        if name not in read
    ]


def _only_read(passes: Passes) -> list[Exact]:
    """Reads of leaving tensors that no job reads: the fingerprint needs every byte."""
    if not passes.draft.leaving:
        return []
    unit_of, kept = passes.draft.unit_of, passes.draft.kept
    return [
        Exact(one.source, name, None, one.index)
        for one in passes.draft.leaving
        for name in one.source.tensors
        if name not in one.fit.superposed or (one.group, unit_of[name]) not in kept
    ]


def _add_late(passes: Passes) -> None:
    """Superpose and keep what only the whole pass showed to have changed."""
    draft = passes.draft
    late, differ = found_late(passes)
    groups = range(draft.start.groups if late else 0)
    _place(passes, [(g, unit) for g in groups for unit in late if g in draft.entered[unit]])
    for one in differ:
        passes.writer.place(one.kept)
    if late or differ:
        passes.run(late, differ, "sparse changes")
        passes.settle()


def found_late(attempt: Attempt) -> tuple[list[Unit], list[Exact]]:
    """Units and exact tensors that only the whole pass showed to have changed; steps are given."""
    draft, steps, tally = attempt.draft, attempt.steps, attempt.tally
    late = [unit for unit in draft.units if unit in tally.largest]
    for unit in late:
        steps.late(unit, tally.largest[unit])
    return late, [one for one in draft.exact if one.twin and differs(tally, one)]


def differs(tally: Tally, one: Exact) -> bool:
    return isinstance(one.owner, int) and one.name in tally.changed.get(one.owner, ())


def _check_leaving(passes: Passes) -> None:
    recorded = {task.index: task.fingerprint for task in passes.draft.gone}
    for one in passes.draft.leaving:
        digests = passes.tally.joined(one.index, one.source.tensors)
        if content_fingerprint(one.source, digests) != recorded[one.index]:
            raise MismatchError(
                f"{one.source.source}: not the checkpoint that was packed as {one.name} "
                "(its values, names or shapes differ); say --checkpoint PATH, or --forget"
            )
