"""`pack`: a base and its fine-tunes into a new bank, in one pass over their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from randes_cli.build.build import Build, Built
from randes_cli.build.inputs.inputs import Inputs, leading_base, open_inputs
from randes_cli.build.inputs.tasks import check_names
from randes_cli.build.layout import TooLarge, check_limit, check_sealable
from randes_cli.build.outlook.pack_report import pack_report, sealed_report, tried_choice
from randes_cli.build.outlook.preview import preview
from randes_cli.build.pack_draft import pack_draft, pack_recipe
from randes_cli.build.seal.direct import write_sealed
from randes_cli.build.steps import Steps, given_steps
from randes_cli.cluster import machines
from randes_cli.errors import CheckpointError, UsageError, shell_word
from randes_cli.files.atomic import check_target
from randes_cli.files.local.guard import one_command
from randes_cli.files.local.lock import bank_lock
from randes_cli.files.location import Place, new_file
from randes_cli.files.recipe.words import TaskInputs, task_inputs
from randes_cli.files.source import NotFinite, infinite_tensors
from randes_cli.limits import StrPath, as_source
from randes_cli.reports import Alternative, PackReport
from randes_cli.specs import PackOptions, RunOptions, TaskInput
from randes_cli.stats.alternatives import (
    as_options,
    best_fit,
    corrected,
    parse_keep,
    parse_limit,
    smallest_keeping,
)
from randes_cli.workers import Progress, no_progress


@one_command()
def pack(
    base: StrPath | None,
    tasks: TaskInputs,
    out: StrPath,
    options: PackOptions | None = None,
    run: RunOptions | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    weigh: bool = True,
    progress: Progress = no_progress,
) -> PackReport:
    """Write a bank of `tasks`, fine-tuned from `base`, to `out`.

    `tasks` are records, paths (named after themselves, or ``NAME=PATH``), or paths by name.
    LoRA adapters are merged into the base. They stay adapters without one, and with
    `options.adapters`; then the first of `tasks` may be their base. Every input byte is read
    once, but for a sample of about one part in fifty and tensors that seem unchanged. A dry run
    lists the tasks that cannot be packed in its report; it raises only when none can. Without
    `weigh` the report lacks what other bits, groups and shares would give.
    Raises CheckpointError, MismatchError, MissingError, UsageError, NoSpace.
    """
    options, run, out = options or PackOptions(), run or RunOptions(), new_file(out)
    base, tasks = None if base is None else as_source(base), task_inputs(tasks)
    if not tasks:
        raise UsageError("no task to pack: name at least one fine-tuned checkpoint")
    if base is None and options.adapters:
        base, tasks = leading_base(tasks, options)
    check_names(tasks)
    if not dry_run:
        check_target(out, force=force)
    order = _Order(base, tasks, out, options, run, force, dry_run, weigh, progress)
    how = _packed if options.fit is None and options.keep is None else _fitted
    while True:
        try:
            return how(order)
        except _KeptExactly as again:
            exact = order.options.transform.exact | again.names
            transform = replace(order.options.transform, exact=exact)
            order = order.asking(transform=transform)
        except _Unfit as again:
            if not dry_run or len(tasks) == 1:
                raise again.error from None
            order = replace(order, unfit={**order.unfit, again.task: again.error})


@dataclass(frozen=True, slots=True)
class _Order:
    """What `pack` is asked for.

    Attributes:
        limit: bytes of the largest bank that is written; None knows no limit.
        unfit: the tasks of a dry run whose values turned out to be none to pack, and why.
    """

    base: str | None
    tasks: Sequence[TaskInput]
    out: Place
    options: PackOptions
    run: RunOptions
    force: bool
    dry_run: bool
    weigh: bool
    progress: Progress
    limit: int | None = None
    unfit: Mapping[str, NotFinite] = field(default_factory=dict)

    @property
    def cut(self) -> int | None:
        """The bits that the sums are cut to in the end; None where they stay integers."""
        bits = self.options.bits
        return bits if bits is not None and bits < 8 else None

    @property
    def live(self) -> PackOptions:
        """The options of a bank whose sums are not cut yet."""
        return self.options if self.cut is None else replace(self.options, bits=16)

    def asking(self, **options: Any) -> _Order:
        return replace(self, options=replace(self.options, **options))


class _KeptExactly(Exception):
    """These tensors of the base have values that no delta can be taken from."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(names)
        self.names = names


class _Unfit(Exception):
    """This task has values that no delta can be taken from."""

    def __init__(self, task: str, error: NotFinite) -> None:
        super().__init__(task)
        self.task, self.error = task, error


@contextmanager
def _finite(inputs: Inputs) -> Iterator[None]:
    """Raise _KeptExactly in place of NotFinite where the base is the reason, _Unfit for a task."""
    base = inputs.base.source
    try:
        yield
    except NotFinite as error:
        names = frozenset(infinite_tensors(base) if error.source is base else ())
        if error.tensor in names:
            raise _KeptExactly(names) from error
        for one in inputs.participants:
            if one.source is error.source:
                raise _Unfit(one.name, error) from error
        if error.source is base:
            word = shell_word(error.tensor)
            raise CheckpointError(f"{error}; --exact {word} keeps every task's as it is") from error
        raise


def _packed(order: _Order) -> PackReport:
    """`pack` with these very bits and groups.

    Raises TooLarge in place of writing a bank beyond the limit.
    """
    out, run, cut = order.out, order.run, order.cut
    with ExitStack() as stack:
        if not order.dry_run:
            stack.enter_context(bank_lock(out, wait=0.0, edits=False))
        inputs = open_inputs(
            stack,
            order.base,
            order.tasks,
            order.live,
            keep_going=order.dry_run and len(order.tasks) > 1,
            fetch=not order.dry_run,
            unfit=order.unfit,
        )
        if cut is not None:
            check_sealable(inputs.base.source.tensors.values(), cut)
        stack.enter_context(_finite(inputs))
        if order.dry_run:
            build = _build(order, inputs, ahead=True)
            built = preview(build, cut)
            return pack_report(inputs, build, built, cut, dry_run=True, weigh=order.weigh)
        check_target(out, force=order.force)  # now that its inputs are known
        stack.enter_context(machines(run))
        return _written(order, inputs, _build(order, inputs, ahead=False))


def _written(order: _Order, inputs: Inputs, build: Build) -> PackReport:
    """Write a bank; its sums are cut, if at all, as soon as each is complete."""
    bits, weigh = order.cut, order.weigh

    def report(live: Built, sealed: Built | None = None) -> PackReport:
        check_limit((sealed or live).bytes, order.limit)
        if bits is None or sealed is None:
            return pack_report(inputs, build, live, None, dry_run=False, weigh=weigh)
        return sealed_report(inputs, build, live, sealed, bits, weigh=weigh)

    return build.write(report) if bits is None else write_sealed(build, bits, report)


def _build(order: _Order, inputs: Inputs, *, ahead: bool) -> Build:
    """The build of a new bank, its steps chosen: it adds every task to an empty one.

    `ahead`: it is only looked at, and not written.
    """
    options = order.live
    draft = pack_draft(inputs, order.out, options)
    steps = Steps(
        given_steps(inputs.units, options.steps, options.widths, draft.start.bits),
        bits=draft.start.bits,
        capacity=draft.start.capacity,
        fixed=False,
    )
    build = Build(
        order.out,
        draft,
        steps,
        order.run,
        order.progress,
        phase="packing",
        force=order.force,
        most=options.max_shard_size,
        recipe=None if ahead else pack_recipe(order.base, order.tasks, options),
    )
    build.sample(supposed=inputs.away, few=ahead)
    return build


def _tried(order: _Order, one: Alternative) -> Alternative:
    """A choice as samples show it, packed with these options."""
    with ExitStack() as stack:
        several = len(order.tasks) > 1
        inputs = open_inputs(
            stack,
            order.base,
            order.tasks,
            order.live,
            keep_going=several,
            fetch=False,
            unfit=order.unfit,
        )
        stack.enter_context(_finite(inputs))
        build = _build(order, inputs, ahead=True)
        return tried_choice(one, preview(build, order.cut), order.cut)


def _fitted(order: _Order) -> PackReport:
    """`pack` with the bits, groups and share that are predicted best for what is asked.

    What is chosen from a table is first tried on samples, and chosen again where that tells less
    of it. A bank that would come to more than it may is not written: the next best choice is.
    """
    if any(task.group is not None for task in order.tasks):
        raise UsageError("--fit and --keep choose the groups: leave @GROUP out")
    fit, keep = order.options.fit, order.options.keep
    order = order.asking(fit=None, keep=None, bits=16, groups=1, share=1)
    looking = replace(order, force=True, dry_run=True, weigh=True, progress=no_progress)
    report = _packed(looking)
    choices = report.alternatives
    if not choices:
        raise UsageError(
            "--fit and --keep need a prediction, and of this transform or of adapters as they are "
            "nothing was measured: say --bits and --groups"
        )
    limit = None if fit is None else parse_limit(fit, report.base_bytes)
    tried: set[Alternative] = set()
    while True:
        if limit is None:
            best = smallest_keeping(choices, parse_keep(str(keep)))
        else:
            best = best_fit(choices, limit)
        chosen = order.asking(bits=best.bits, groups=best.groups, share=best.share)
        if best not in tried:
            trial = replace(chosen, force=True, dry_run=True, progress=no_progress)
            choices = corrected(choices, best, _tried(trial, best))
            tried.update(one for one in choices if as_options(one) == as_options(best))
            continue
        try:
            made = _packed(replace(chosen, limit=limit))
            check_limit(made.bank_bytes, limit)
            return made
        except TooLarge as found:
            smaller = replace(best, bank_bytes=found.size)
            tried.add(smaller)
            choices = tuple(smaller if one is best else one for one in choices)
