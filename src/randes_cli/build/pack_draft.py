"""The draft of a new bank, here and in a worker of a cluster: it makes it from the same words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from randes_cli.build.draft import Draft
from randes_cli.build.inputs.inputs import Inputs, open_inputs
from randes_cli.build.layout import default_bits, default_capacity
from randes_cli.build.records import recorded_source, recorded_words
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.records import BaseRecord
from randes_cli.files.checkpoint.shared import ties_of
from randes_cli.files.location import Place, absolute_source
from randes_cli.specs import PackOptions, TaskInput


@dataclass(frozen=True, slots=True)
class PackRecipe:
    """How a worker of a cluster drafts the bank that this command packs."""

    base: str | None
    tasks: tuple[TaskInput, ...]
    options: PackOptions

    @contextmanager
    def opened(self) -> Iterator[Draft]:
        with ExitStack() as stack:
            inputs = open_inputs(
                stack, self.base, self.tasks, self.options, keep_going=False, fetch=True
            )
            yield pack_draft(inputs, Path("bank.randes"), self.options)


def pack_recipe(base: str | None, tasks: Sequence[TaskInput], options: PackOptions) -> PackRecipe:
    """The same pack, whatever folder a worker is in."""
    named = tuple(replace(task, source=absolute_source(task.source)) for task in tasks)
    return PackRecipe(None if base is None else absolute_source(base), named, options)


def pack_draft(inputs: Inputs, out: Place, options: PackOptions) -> Draft:
    """The draft of a new bank: it adds every task to an empty one."""
    base, units = inputs.base, inputs.units
    held = Counter(participant.group for participant in inputs.participants)
    usual = default_bits(base.source.tensors.values(), base.storage, held.values())
    empty = Manifest(
        transform=inputs.transform,
        bits=options.bits or usual,
        seed=options.seed,
        capacity=options.capacity or default_capacity(held.values()),
        next_index=0,
        base=BaseRecord(
            recorded_source(base.name, out) if base.name else recorded_words(base.claimed),
            "",
            base.storage,
            base.source.metadata,
            base.source.tensors,
            {name: file.digest for name, file in base.beside.side_files.items()},
            base.beside.layout,
            base.beside.left_out,
            base.beside.pickle,
            ties_of(base.source),
        ),
        tasks=(),
        steps={},
        groups=max(options.groups, 1 + max(held)),
    )
    empty = empty.with_shares(dict.fromkeys(range(empty.groups), options.share))
    return Draft(None, base.source, empty, units, inputs.participants, (), (), inputs.side_files())
