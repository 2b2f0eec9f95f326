"""`pack`: a base and its fine-tunes into a new bank, in one pass over their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from randes_cli.build.inputs import check_names
from randes_cli.build.pack_setup import prepare
from randes_cli.build.packing import Packing
from randes_cli.build.seal import seal
from randes_cli.errors import UsageError
from randes_cli.files.atomic import check_target, refuse_same_file, sibling
from randes_cli.limits import StrPath, as_source
from randes_cli.reports import PackReport
from randes_cli.specs import PackOptions, RunOptions, TaskInput
from randes_cli.stats.alternatives import best_fit, parse_limit
from randes_cli.workers import Progress, no_progress


def pack(
    base: StrPath | None,
    tasks: Sequence[TaskInput],
    out: StrPath,
    options: PackOptions | None = None,
    run: RunOptions | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> PackReport:
    """Write a bank of `tasks`, fine-tuned from `base`, to `out`.

    `base` is None where all tasks are LoRA adapters that stay adapters. Every byte of the
    inputs is read once, but for a fixed sample of about one part in fifty. A dry run lists the
    tasks that cannot be packed in its report; it raises only when none can.
    Raises CheckpointError, MismatchError, MissingError, UsageError, NoSpace.
    """
    options, run, out = options or PackOptions(), run or RunOptions(), Path(out)
    base = None if base is None else as_source(base)
    if not tasks:
        raise UsageError("no task to pack: name at least one fine-tuned checkpoint")
    check_names(tasks)
    if not dry_run:
        check_target(out, force=force)
        refuse_same_file(out, _input_files([base or "", *(task.source for task in tasks)]))
    if options.fit is not None:
        options = _fitted(base, tasks, out, options, run)
    with ExitStack() as stack:
        setup = prepare(stack, base, tasks, options, run, dry_run=dry_run)
        live = sibling(out) if setup.seal_bits is not None and not dry_run else out
        with ExitStack() as temporary:
            if live is not out:
                temporary.callback(live.unlink, missing_ok=True)
            report = Packing(setup, live, force, dry_run, progress).run()
            if setup.seal_bits is None or dry_run:
                return report
            sealed = seal(live, out, setup.seal_bits, run, force=force, progress=progress)
        return replace(report, bank=str(out), bank_bytes=sealed.bytes_after)


def _input_files(sources: Iterable[str]) -> Iterator[Path]:
    """The files that local sources may be read from."""
    for source in sources:
        path = Path(source)
        if path.is_dir():
            yield from path.iterdir()
        elif source:
            yield path


def _fitted(
    base: str | None, tasks: Sequence[TaskInput], out: Path, options: PackOptions, run: RunOptions
) -> PackOptions:
    """The options with the bits and groups that are predicted best for the size asked for."""
    if any(task.group is not None for task in tasks):
        raise UsageError("--fit chooses the groups: leave @GROUP out")
    tried = replace(options, fit=None, bits=16, groups=1)
    report = pack(base, tasks, out, tried, run, force=True, dry_run=True)
    best = best_fit(report.alternatives, parse_limit(str(options.fit), report.base_bytes))
    return replace(options, fit=None, bits=best.bits, groups=best.groups)
