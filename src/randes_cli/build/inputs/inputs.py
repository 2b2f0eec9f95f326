"""Opens what a bank is made of: checkpoints under the base's names, adapters, side files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from randes_cli.build.inputs.named import kept_once
from randes_cli.build.inputs.participants import OpenTask, Origin, Participant
from randes_cli.build.inputs.tasks import Opener, fit_to, open_task
from randes_cli.errors import RandesError, UsageError
from randes_cli.files.checkpoint.checkpoint import Checkpoint
from randes_cli.files.checkpoint.shared import Classes, equal_tensors, ties_of_base, untied
from randes_cli.files.lora.config import base_model
from randes_cli.files.lora.unmerged import adapter_base, is_adapter, require_adapts
from randes_cli.files.side_files import SideFile
from randes_cli.files.source import Source
from randes_cli.files.sources import Sources, on_hub
from randes_cli.fit import ASKED, TaskFit
from randes_cli.plan import Unit, choose_exact, choose_targets, plan_units
from randes_cli.reports import Refusal
from randes_cli.specs import (
    BaseStorage,
    PackOptions,
    TaskInput,
    Transform,
    check_groups,
    task_seed,
)

_NOT_FINITE = "infinite values in the base"
_AWAY = (
    "weights on the Hub are not read in a dry run: sizes and predictions suppose that every task "
    "changed all of its tensors, and all tasks alike"
)


@dataclass(frozen=True)
class OpenBase:
    """The base of a new bank: its tensors, what lies beside them, and where it goes.

    `name` is what was named as the base; where nothing was, `claimed` is what the first adapter
    says of its own.
    """

    source: Source
    name: str
    beside: Origin
    notes: tuple[str, ...]
    storage: BaseStorage
    claimed: str = ""

    def kept_once(self, tasks: Sequence[tuple[OpenTask, Classes | None]]) -> OpenBase:
        """The same under the names that a bank of these tasks keeps its tensors under."""
        alike = equal_tensors(self.source)
        known = [(one.source, classes) for one, classes in tasks if classes is not None]
        return replace(self, source=untied(self.source, ties_of_base(alike, known)))


@dataclass(frozen=True)
class Inputs:
    """Everything that `pack` reads; participants are in the order of their indices.

    `transform` has the names that its targets stand for, `units` are what it makes of the base.
    `download_bytes` is what was (or with a dry run would be) fetched from the Hub. With `away`
    the data were not fetched: only names, dtypes and shapes are at hand.
    """

    base: OpenBase
    transform: Transform
    units: list[Unit]
    participants: list[Participant]
    refused: tuple[Refusal, ...]
    download_bytes: int = 0
    away: bool = False

    def side_files(self) -> dict[str, SideFile]:
        """Side files by content, each once."""
        files = [*self.base.beside.side_files.values()]
        for participant in self.participants:
            files += participant.opened.beside.side_files.values()
        return {file.digest: file for file in files}


class _Refusals:
    """Failures of single tasks: raised at once, or (for a dry run) collected."""

    def __init__(self, keep_going: bool, known: Mapping[str, RandesError] | None) -> None:
        self._keep_going, self._known = keep_going, known or {}
        self._errors: list[tuple[str, RandesError]] = []

    @contextmanager
    def of(self, task: TaskInput) -> Iterator[None]:
        """Collect what the block raises about a task."""
        try:
            yield
        except RandesError as error:
            if not self._keep_going:
                raise
            self._errors.append((task.name, error))

    def check(self, task: TaskInput) -> None:
        """Raise what is known of a task before it is opened."""
        if task.name in self._known:
            raise self._known[task.name]

    def list(self, left: int) -> tuple[Refusal, ...]:
        """The failures; raises the first when no task is left."""
        if self._errors and not left:
            raise self._errors[0][1]
        return tuple(Refusal(name, str(e), e.exit_code) for name, e in self._errors)


def open_inputs(
    stack: ExitStack,
    base: str | None,
    tasks: Sequence[TaskInput],
    options: PackOptions,
    *,
    keep_going: bool,
    fetch: bool,
    unfit: Mapping[str, RandesError] | None = None,
) -> Inputs:
    """Open base and tasks; `stack` closes them. Tasks that fail are listed with `keep_going`.

    `unfit` are failures of tasks, by name, that are known before they are opened.

    Models of the Hub are compared by their headers before any is fetched; without `fetch`
    (a dry run) none is.
    """
    if options.groups > 1:
        check_groups(tasks, options.groups)
    named = [task.source for task in tasks] + ([base] if base else [])
    sources = Sources(options.opening, named)
    if not fetch:
        refusals = _Refusals(keep_going, unfit)
        made = _open_inputs(stack, base, tasks, options, sources, refusals, fetch=False)
        waiting = sources.bytes_to_download()
        notes = (*made.base.notes, *((_AWAY,) if waiting else ()))
        noted = replace(made.base, notes=notes)
        return replace(made, base=noted, download_bytes=waiting, away=waiting > 0)
    waiting = 0
    if any(map(on_hub, [base or "", *(task.source for task in tasks)])):
        with ExitStack() as passing:
            refusals = _Refusals(False, unfit)
            _open_inputs(passing, base, tasks, options, sources, refusals, fetch=False)
            waiting = sources.bytes_to_download()
    refusals = _Refusals(keep_going, unfit)
    made = _open_inputs(stack, base, tasks, options, sources, refusals, fetch=True)
    return replace(made, download_bytes=waiting)


def _open_inputs(
    stack: ExitStack,
    base: str | None,
    tasks: Sequence[TaskInput],
    options: PackOptions,
    sources: Sources,
    refusals: _Refusals,
    *,
    fetch: bool,
) -> Inputs:
    opener: Opener = sources.open if fetch else sources.look

    def here(source: str) -> bool:
        return fetch or not on_hub(source)

    opened: list[tuple[TaskInput, Checkpoint]] = []
    for task in tasks:
        with refusals.of(task):
            refusals.check(task)
            opened.append((task, stack.enter_context(opener(task.source))))
    refusals.list(len(opened))
    found = _open_base(stack, base, opened, options, opener)
    named: list[tuple[OpenTask, Classes | None]] = []
    for task, checkpoint in opened:
        with refusals.of(task):
            one = open_task(task, checkpoint, found.source, found.beside)
            named.append((one, equal_tensors(one.source) if here(task.source) else None))
    if base is not None and here(base):
        found = found.kept_once(named)
    tensors = list(found.source.tensors.values())
    transform = choose_exact(found.source.tensors, options.transform, options.exact)
    transform = choose_targets(tensors, transform)
    units = plan_units(found.source.tensors, transform)
    names = {name for unit in units for name in unit.names}
    reasons = dict.fromkeys(transform.exact, ASKED)
    reasons.update(dict.fromkeys(options.transform.exact, _NOT_FINITE))
    made: list[tuple[OpenTask, TaskFit]] = []
    for one, alike in named:
        with refusals.of(one.task):
            kept = kept_once(one, found.source, alike)
            fit = fit_to(found.source, kept.source, names, reasons, one.naming.component)
            made.append((kept, fit))
    refused = refusals.list(len(made))
    return Inputs(found, transform, units, _numbered(made, options), refused)


def _open_base(
    stack: ExitStack,
    base: str | None,
    tasks: Sequence[tuple[TaskInput, Checkpoint]],
    options: PackOptions,
    opener: Opener,
) -> OpenBase:
    """The base: a checkpoint; or zeros, where the tasks are adapters that stay adapters."""
    opened = stack.enter_context(opener(base)) if base else None
    if opened is not None and is_adapter(opened):
        raise UsageError(
            f"{base}: an adapter, and no base; name first the model that the adapters were "
            "trained on, or say --adapters: then all arguments are adapters that stay adapters"
        )
    if opened is None or options.adapters:
        return _adapters_alone(opened, [checkpoint for _, checkpoint in tasks], options)
    if options.base_storage is BaseStorage.zero:
        raise UsageError("a bank without a base holds LoRA adapters; a task here is none")
    beside = Origin(opened.layout, opened.side_files, opened.left_out, opened.pickle)
    notes = tuple(f"base: {note}" for note in opened.notes)
    return OpenBase(opened, opened.source, beside, notes, options.base_storage)


def _adapters_alone(
    base: Checkpoint | None, adapters: Sequence[Checkpoint], options: PackOptions
) -> OpenBase:
    """What adapters that stay adapters are superposed from; they are checked against `base`."""
    other = next((checkpoint for checkpoint in adapters if not is_adapter(checkpoint)), None)
    if other is not None and base is not None:
        raise UsageError(f"{other.source}: no LoRA adapter; --adapters is for adapters alone")
    if other is not None or options.merge_adapters:
        why = "--merge-adapters needs one" if other is None else f"{other.source} is none"
        raise UsageError(
            f"name the base: only LoRA adapters that stay adapters go without one ({why})"
        )
    first = adapters[0]
    if base is None:
        return OpenBase(adapter_base(first), "", Origin(), (), BaseStorage.zero, base_model(first))
    for adapter in adapters:
        require_adapts(adapter, base)
    return OpenBase(adapter_base(first), base.source, Origin(), (), BaseStorage.zero)


def leading_base(
    tasks: Sequence[TaskInput], options: PackOptions
) -> tuple[str | None, Sequence[TaskInput]]:
    """(base, adapters) of what ``pack --adapters`` names; a first model is the base."""
    if len(tasks) < 2:
        return None, tasks
    with Sources(options.opening).look(tasks[0].source) as first:
        return (None, tasks) if is_adapter(first) else (tasks[0].source, tasks[1:])


def _numbered(tasks: Sequence[tuple[OpenTask, TaskFit]], options: PackOptions) -> list[Participant]:
    """Tasks with their indices, seeds and groups, by index."""
    given = [opened.task.index for opened, _ in tasks if opened.task.index is not None]
    taken = set(given)
    if any(not 0 <= index < 2**31 for index in taken):
        raise UsageError("a task's index must be between 0 and 2^31-1")
    if len(taken) < len(given):
        raise UsageError("two tasks ask for the same index")
    free = (index for index in range(2**31) if index not in taken)
    made = []
    for opened, fit in tasks:
        index = next(free) if opened.task.index is None else opened.task.index
        wanted = opened.task.group
        group = index % options.groups if wanted is None else wanted
        made.append(Participant(opened, fit, index, task_seed(options.seed, index), group))
    return sorted(made, key=lambda one: one.index)
