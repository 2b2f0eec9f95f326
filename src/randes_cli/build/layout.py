"""The size of a bank before a byte of it is written: what it holds, in the order of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from randes_cli.build.copies import closing_tensors
from randes_cli.build.draft import Draft
from randes_cli.build.records import NO_FINGERPRINT
from randes_cli.build.steps import Steps
from randes_cli.files.bank_checks import cut_shape
from randes_cli.files.bank_keys import MANIFEST, cut_key, parse_key, sealed_tensors
from randes_cli.files.bank_writer import header_room
from randes_cli.files.container import Container
from randes_cli.files.manifest import Manifest, encode
from randes_cli.files.seal_record import SealRecord
from randes_cli.plan import sealable, superposable
from randes_cli.reports import Alternative
from randes_cli.specs import ITEM_SIZE, BaseStorage, TensorInfo
from randes_cli.stats.coefficients import with_defaults
from randes_cli.stats.stored import Cells, Statistics


def bank_size(
    candidates: Iterable[TensorInfo], tensors: Iterable[TensorInfo], manifest: Manifest
) -> int:
    """Bytes of a bank in one file of these tensors, in this order, and a manifest."""
    file = Container()
    for tensor in [*tensors, TensorInfo(MANIFEST, "U8", (len(encode(manifest)),))]:
        file.place(tensor)
    file.place_checks()
    return header_room(candidates) + file.size


def new_size(
    draft: Draft, steps: Steps, manifest: Manifest, statistics: Statistics, seal_bits: int | None
) -> int:
    """Bytes of a new bank, to the byte if samples showed what has changed."""
    live = [*_live(draft, steps, statistics.cells)]
    if seal_bits is None:
        return bank_size(draft.candidates(steps, statistics.cells), live, manifest)
    sealed = manifest.with_sealed(as_sealed_to(manifest, seal_bits))
    made = _sealed(draft, live, seal_bits)
    return bank_size([*made, *closing_tensors()], made, with_defaults(sealed, statistics.known))


def choice_size(
    draft: Draft, steps: Steps, manifest: Manifest, statistics: Statistics, one: Alternative
) -> int:
    """Bytes of the bank that the same tasks make with other bits, groups and shares.

    `manifest` and `statistics` are those of the bank as it is packed.
    """
    coming = [replace(p, group=p.index % one.groups) for p in draft.coming]
    seal_bits, live_bits = (one.bits, 16) if one.bits < 8 else (None, one.bits)
    held = Counter(participant.group for participant in draft.coming)
    told = draft.start.capacity != default_capacity(held.values())
    dealt = Counter(participant.group for participant in coming)
    capacity = draft.start.capacity if told else default_capacity(dealt.values())
    start = replace(draft.start, bits=live_bits, groups=one.groups, capacity=capacity)
    start = start.with_shares(dict.fromkeys(range(one.groups), one.share))
    other = replace(draft, start=start, coming=coming)
    width = steps.again(live_bits, capacity)
    table, widths = width.tables(draft.units)
    tasks = [replace(task, group=task.index % one.groups) for task in manifest.tasks]
    made = start.with_tasks(tasks)
    made = replace(
        made,
        steps=table,
        widths=widths,
        cells=manifest.cells,
        next_index=manifest.next_index,
        estimated=manifest.estimated,
        base=replace(start.base, fingerprint=NO_FINGERPRINT),
    )
    made = with_defaults(made, statistics.known)
    return new_size(other, width, made, statistics, seal_bits)


def default_bits(base: Iterable[TensorInfo], storage: BaseStorage, held: Collection[int]) -> int:
    """Bits of a live superposition where nobody said how many; `held` are the tasks by group.

    8 where most of the base's floating-point elements take two bytes each or fewer, for a sum of
    16 would be as large as the base, and where no task is alone in a group: what others leave in
    it hides the coarser rounding (docs/results.md). Factors of adapters get 16: errors multiply.
    """
    sizes = [(ITEM_SIZE[one.dtype], one.elements) for one in base if superposable(one)]
    narrow = sum(count for size, count in sizes if size <= 2)
    few = 2 * narrow > sum(count for _, count in sizes)
    hidden = min(held, default=0) > 1 and storage is not BaseStorage.zero
    return 8 if few and hidden else 16


def default_capacity(held: Iterable[int]) -> int:
    """Tasks that 8 bits have room for where nobody said how many: twice the fullest group's."""
    return max(16, 2 * max(held))


def as_sealed_to(manifest: Manifest, bits: int) -> dict[int, SealRecord]:
    """Every group that holds a task, sealed."""
    return dict.fromkeys(sorted({task.group for task in manifest.tasks}), SealRecord(bits))


def _live(draft: Draft, steps: Steps, cells: Cells) -> Iterator[TensorInfo]:
    """The tensors of a new live bank, those that its writer makes last left out."""
    yield from draft.base_tensors()
    for group, unit in draft.places(steps):
        if unit in steps.ready and group in draft.entered.get(unit, ()):
            yield from draft.sums((group, unit), steps.width(unit))
    yield from (one.kept for one in draft.exact if one.twin is None)
    yield from (one.kept for one in draft.exact if one.twin is not None)
    yield from draft.statistics(cells)
    if draft.start.base.storage is BaseStorage.reference:
        yield draft.base_digests()
    yield from (tensor for tensor, _ in draft.new_files())


def _sealed(draft: Draft, live: Sequence[TensorInfo], bits: int) -> list[TensorInfo]:
    """The same once every group is sealed: what stays, then scales, codes and moments."""
    base, kept, cut = draft.base.tensors, [], {}
    for tensor in live:
        kind, group, name = parse_key(tensor.name)
        if kind == "sum" and sealable(base[name]):
            share = draft.share(int(group), name)
            cut[int(group), name] = sealed_tensors(int(group), base[name], bits, share)
        else:
            kept.append(tensor)
    groups = sorted({participant.group for participant in draft.coming})
    ordered = [cut[group, name] for group in groups for name in base if (group, name) in cut]
    rows = sum(map(superposable, base.values()))
    moments = [TensorInfo(cut_key(group), "F64", cut_shape(rows)) for group in groups]
    return [*kept, *(scale for scale, _ in ordered), *(codes for _, codes in ordered), *moments]


class TooLarge(Exception):
    """A bank would come to more bytes than it may have: so many."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def check_limit(size: int, limit: int | None) -> None:
    """Raise TooLarge where a bank may not have this size."""
    if limit is not None and size > limit:
        raise TooLarge(size)
