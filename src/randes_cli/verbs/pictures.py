"""Verbs that draw banks: a page, and single pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from randes_cli.errors import UsageError
from randes_cli.files.atomic import check_target, write_whole
from randes_cli.files.bank.file import BankFile
from randes_cli.files.local.guard import note_sources, one_command
from randes_cli.files.location import Place, new_file
from randes_cli.files.sources import open_bank
from randes_cli.limits import StrPath, as_source, sources_by_task
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress, no_progress

if TYPE_CHECKING:
    from randes_cli.ops.distribution import Distribution
    from randes_cli.ops.originals import Originals

#: What `plot` draws.
PICTURES = ("cosine", "layers", "distribution", "size", "lambda")
#: Endings of documents that are no HTML page.
_OTHER_PAGES = (".csv", ".docx", ".json", ".md", ".pdf", ".png", ".rst", ".svg", ".tsv", ".txt")


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written, and its size in bytes.

    `strange` are tasks whose checkpoint, given with `against`, is not the one that was packed.
    """

    path: str
    bytes: int
    strange: tuple[str, ...] = ()


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
    if PurePath(out).suffix.lower() in _OTHER_PAGES:
        raise UsageError(f"{out}: the report is a page: name a .html file")
    with open_bank(as_source(bank)) as file:
        found = _distribution(file, against, base, run, progress)
        layers = describe(file, by="layer").rows
        page = report_page(PageData(describe(file), layers, lambda_curves(file), found))
    return _write(path, page.encode(), force, found)


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

    suffix = PurePath(out).suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise UsageError(f"{out}: name a .svg, .png or .pdf file")
    if kind not in PICTURES:
        raise UsageError(f"--kind must be one of {', '.join(PICTURES)}, not {kind!r}")
    if against and kind != "distribution":
        raise UsageError("--against serves --kind distribution only")
    path = _target(bank, out, against, base, force)
    with open_bank(as_source(bank)) as file:
        found = None
        if kind == "distribution":
            found = _distribution(file, against, base, run, progress)
        make = _figure(file, kind, found)
    return _write(path, render(make, suffix), force, found)


def _target(
    bank: StrPath, out: StrPath, against: Originals | None, base: StrPath | None, force: bool
) -> Place:
    """The output, once it is known to be free and none of the inputs."""
    note_sources([bank, base, *sources_by_task(against).values()])
    path = new_file(out)
    check_target(path, force=force)
    return path


def _write(path: Place, data: bytes, force: bool, found: Distribution | None) -> Written:
    write_whole(path, data, force=force)
    return Written(str(path), len(data), () if found is None else found.strange)


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
    how = run or RunOptions()
    return measured_distribution(file, against, how, base=base, progress=progress)


def _figure(file: BankFile, kind: str, found: Distribution | None) -> Callable[[], Any]:
    """A function that draws; what it draws has been read."""
    from randes_cli.core.prediction.verdict import sentences
    from randes_cli.ops.describe import describe
    from randes_cli.stats.curves import lambda_curves
    from randes_cli.views import figures

    if found is not None:
        return lambda: figures.distribution_figure(found)
    report = describe(file)
    if kind == "lambda":
        curves, used = lambda_curves(file), {one.name: one.coefficient for one in report.tasks}
        draw = partial(figures.lambda_figure, curves, used)
    elif kind == "layers":
        draw = partial(figures.layers_figure, report.rows, describe(file, by="layer").rows)
    else:
        draw = partial(figures.size_figure if kind == "size" else figures.cosine_figure, report)
    return lambda: figures.told(draw(), sentences(report.tasks))
