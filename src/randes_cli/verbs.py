"""The verbs of the command line as functions: each takes paths and options, returns a record.

A bank is named by its path or, where it is only read, by its Hub id (``org/name@rev``). Nothing
here prints. `run` says how a job runs (threads, memory, device), never what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randes_cli.errors import UsageError
from randes_cli.files.atomic import check_target, write_whole
from randes_cli.files.bank import BankFile
from randes_cli.files.guard import note_sources, one_command
from randes_cli.files.location import Place, as_place
from randes_cli.files.sources import names_bank, open_bank, own_bank
from randes_cli.limits import StrPath, as_source
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress, no_progress

if TYPE_CHECKING:
    from randes_cli.ops.describe import BankReport
    from randes_cli.ops.diff import BankDiff, CheckpointDiff
    from randes_cli.ops.distribution import Distribution
    from randes_cli.ops.push import PushReport
    from randes_cli.ops.spectra import TaskInterference
    from randes_cli.ops.verify import VerifyReport
    from randes_cli.read.places import UnpackOptions
    from randes_cli.read.unpack import UnpackReport
    from randes_cli.stats.breakdown import GroupRow

# What only one verb needs is imported by that verb: commands start sooner.

#: Checkpoints by task.
Originals = Mapping[str, StrPath]
#: What `plot` draws.
PICTURES = ("cosine", "layers", "distribution", "size", "lambda")


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written, and its size in bytes."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        report: the bank.
        rows: of the task that was asked for, by type or layer of its tensors.
        measured: interference of the tasks whose originals were given.
    """

    report: BankReport
    rows: tuple[GroupRow, ...] = ()
    measured: tuple[TaskInterference, ...] = ()


def _pairs(originals: Originals | None) -> list[tuple[str, str]]:
    return [(name, as_source(source)) for name, source in (originals or {}).items()]


def unpack(
    bank: StrPath,
    tasks: str | Sequence[str] | None = None,
    out: StrPath | None = None,
    options: UnpackOptions | None = None,
    run: RunOptions | None = None,
    *,
    base: StrPath | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> list[UnpackReport]:
    """Write tasks (None: all) as ordinary safetensors checkpoints; one report a task.

    `out` is a file ending in ``.safetensors``, or a folder (None: here). Every place is checked
    before any is written.
    Raises MissingError, UsageError (something is there), BankDamaged, MismatchError, NoSpace.
    """
    from randes_cli.read import unpack as module
    from randes_cli.read.places import UnpackOptions

    names = [tasks] if isinstance(tasks, str) else tasks
    return module.unpack(
        bank,
        names,
        out,
        options or UnpackOptions(),
        run or RunOptions(),
        base=base,
        dry_run=dry_run,
        progress=progress,
    )


def inspect(
    bank: StrPath,
    task: str | None = None,
    *,
    by: str = "type",
    against: Originals | None = None,
    base: StrPath | None = None,
    run: RunOptions | None = None,
    progress: Progress = no_progress,
) -> Inspection:
    """What a bank holds, and how well each task will come back, from its header and statistics.

    Tensors are grouped `by` "type" or "layer". With `against`, the originals of tasks, their
    interference is measured beside the prediction, which reads them and the bank once.
    Raises MissingError, BankDamaged, and what reading a checkpoint raises.
    """
    from randes_cli.ops.describe import describe, describe_task

    if by not in ("type", "layer"):
        raise UsageError(f"--by {by!a}: say type or layer")
    with open_bank(as_source(bank)) as file:
        rows = () if task is None else describe_task(file, task, by=by)
        found = Inspection(describe(file, by=by), rows)
        if not against:
            return found
        from randes_cli.ops.spectra import interference

        pairs, how = _pairs(against), run or RunOptions()
        measured = interference(file, pairs, how, by=by, base=_text(base), progress=progress)
        return replace(found, measured=measured)


def _text(path: StrPath | None) -> str | None:
    return None if path is None else as_source(path)


def verify(
    bank: StrPath,
    *,
    quick: bool = False,
    prune: bool = False,
    against: Originals | None = None,
    base: StrPath | None = None,
    run: RunOptions | None = None,
    progress: Progress = no_progress,
) -> VerifyReport:
    """Compare every byte of a bank with its digests; `quick` looks at header and statistics only.

    A damaged bank is no error here: the report names the damage and the tasks that it hurts.
    With `against` (and a sound bank) tasks are retrieved and compared with their originals.
    With `prune` the files among its shards that its index does not name are removed (an edit that
    was killed leaves some).
    Raises MissingError; BankDamaged where not even the header, the manifest and the digests can
    be read; with `prune` BankLocked.
    """
    from randes_cli.ops import verify as module

    run = run or RunOptions()
    freed = module.prune_files(own_bank(as_source(bank))) if prune else 0
    with open_bank(as_source(bank), lenient=True) as file:
        found = replace(module.verify(file, run, quick=quick, progress=progress), pruned=freed)
        if not (found.sound and against):
            return found
        measured = module.measure(file, _pairs(against), run, base=_text(base), progress=progress)
        return replace(found, against=measured)


def diff(
    a: StrPath,
    b: StrPath | Originals,
    *,
    base: StrPath | None = None,
    run: RunOptions | None = None,
    progress: Progress = no_progress,
) -> BankDiff | CheckpointDiff:
    """Compare two banks, a bank and originals of its tasks, or two checkpoints.

    Two checkpoints are compared as deltas where their `base` is given.
    Raises UsageError for another pair, MissingError, and what reading either raises.
    """
    from randes_cli.ops import diff as module

    run = run or RunOptions()
    first = as_source(a)
    if not names_bank(first):
        if isinstance(b, Mapping) or names_bank(as_source(b)):
            raise UsageError("diff: put the bank first; a checkpoint is compared with one other")
        return module.diff_checkpoints(
            first, as_source(b), run, base=_text(base), progress=progress
        )
    if base is not None:
        raise UsageError("--base serves two checkpoints only")
    with open_bank(first) as bank:
        if isinstance(b, Mapping):
            return module.diff_bank_checkpoints(bank, _pairs(b), run, progress=progress)
        if not names_bank(as_source(b)):
            raise UsageError(f"diff: {b}: no bank; give a checkpoint as {{task: path}}")
        with open_bank(as_source(b)) as other:
            return module.diff_banks(bank, other, run, progress=progress)


@one_command()
def report(
    bank: StrPath,
    out: StrPath,
    *,
    against: Originals | None = None,
    base: StrPath | None = None,
    force: bool = False,
    run: RunOptions | None = None,
    progress: Progress = no_progress,
) -> Written:
    """Write what is known of a bank as one HTML page.

    With `against` the distribution of deltas is measured from the originals.
    Raises UsageError (something is there), MissingError, BankDamaged, NoSpace.
    """
    from randes_cli.ops.describe import describe
    from randes_cli.stats.curves import lambda_curves
    from randes_cli.views.page import PageData, report_page

    path = _target(bank, out, against, base, force)
    with open_bank(as_source(bank)) as file:
        found = _distribution(file, against, base, run, progress)
        layers = describe(file, by="layer").rows
        page = report_page(PageData(describe(file), layers, lambda_curves(file), found))
    return _write(path, page.encode(), force)


@one_command()
def plot(
    bank: StrPath,
    out: StrPath,
    kind: str = "cosine",
    *,
    against: Originals | None = None,
    base: StrPath | None = None,
    force: bool = False,
    run: RunOptions | None = None,
    progress: Progress = no_progress,
) -> Written:
    """Draw a bank to a .svg, .png or .pdf file; needs matplotlib.

    `kind` is cosine, layers, distribution, size or lambda; `against` serves distribution only.
    Raises UsageError, MissingError, BankDamaged, NoSpace.
    """
    from randes_cli.views.figures import FORMATS, render

    suffix = Path(out).suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise UsageError(f"{out}: name a .svg, .png or .pdf file")
    if kind not in PICTURES:
        raise UsageError(f"--kind {kind!a}: choose from {', '.join(PICTURES)}")
    if against and kind != "distribution":
        raise UsageError("--against serves --kind distribution only")
    path = _target(bank, out, against, base, force)
    with open_bank(as_source(bank)) as file:
        make = _figure(file, kind, lambda: _distribution(file, against, base, run, progress))
    return _write(path, render(make, suffix), force)


def push(
    bank: StrPath,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    max_shard_size: int | None = None,
    license: str | None = None,
    collection: str | None = None,
) -> PushReport:
    """Upload a bank and a model card to the Hub in one commit; the repository is made if need be.

    `private` decides for a new repository only; `revision` is a branch, made where missing. A
    bank above `max_shard_size` bytes (None: 50 GB, the Hub's largest file) is uploaded in shards.
    `license` is what the card says (None: what the models' own cards do, or the base's);
    `collection` a title, of one that is made where missing, or the slug of one.
    Raises UsageError for a bad name, BankDamaged, and HubError.
    """
    from randes_cli.ops import push as module

    return module.push(
        Path(bank),
        repo,
        private=private,
        revision=revision,
        message=message,
        max_shard_size=max_shard_size,
        license=license,
        collection=collection,
    )


def _target(
    bank: StrPath, out: StrPath, against: Originals | None, base: StrPath | None, force: bool
) -> Place:
    """The output, once it is known to be free and none of the inputs."""
    note_sources([bank, base, *(against or {}).values()])
    path = as_place(as_source(out))
    check_target(path, force=force)
    return path


def _write(path: Place, data: bytes, force: bool) -> Written:
    write_whole(path, data, force=force)
    return Written(str(path), len(data))


def _distribution(
    file: BankFile,
    against: Originals | None,
    base: StrPath | None,
    run: RunOptions | None,
    progress: Progress,
) -> Distribution:
    """As stored or, from the originals of tasks, as measured."""
    from randes_cli.ops.distribution import measured_distribution, stored_distribution

    if not against:
        return stored_distribution(file)
    return measured_distribution(
        file, _pairs(against), run or RunOptions(), base=_text(base), progress=progress
    )


def _figure(
    file: BankFile, kind: str, distribution: Callable[[], Distribution]
) -> Callable[[], Any]:
    """A function that draws; what it draws has been read."""
    from randes_cli.ops.describe import describe
    from randes_cli.stats.curves import lambda_curves
    from randes_cli.views import figures

    if kind == "distribution":
        found = distribution()
        return lambda: figures.distribution_figure(found)
    report = describe(file)
    if kind == "lambda":
        curves, used = lambda_curves(file), {one.name: one.coefficient for one in report.tasks}
        return lambda: figures.lambda_figure(curves, used)
    if kind == "layers":
        layers = describe(file, by="layer").rows
        return lambda: figures.layers_figure(report.rows, layers)
    if kind == "size":
        return lambda: figures.size_figure(report)
    return lambda: figures.cosine_figure(report)
