"""randes plot"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import print_json, progress_bar

if TYPE_CHECKING:
    from randes_cli.files.bank import BankFile
    from randes_cli.ops.distribution import Distribution


class Kind(str, Enum):
    """What a picture shows."""

    COSINE = "cosine"
    LAYERS = "layers"
    DISTRIBUTION = "distribution"
    SIZE = "size"
    LAMBDA = "lambda"


def plot(
    bank: o.BankName,
    out: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The picture: a .svg, .png or .pdf file.", show_default=False
        ),
    ],
    kind: Annotated[Kind, typer.Option(help="What to show.")] = Kind.COSINE,
    against: o.Against = None,
    base: o.BaseOption = None,
    threads: o.Threads = 0,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Draw a bank: cosines, layers, distributions, sizes, λ curves (needs matplotlib)."""
    from randes_cli.errors import UsageError
    from randes_cli.files.atomic import check_target, write_whole
    from randes_cli.files.guard import note_sources
    from randes_cli.files.sources import open_bank
    from randes_cli.views.figures import FORMATS, render

    suffix = out.suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise UsageError(f"{out}: name a .svg, .png or .pdf file")
    if against and kind is not Kind.DISTRIBUTION:
        raise UsageError("--against serves --kind distribution only")
    note_sources([bank, base, *(source for _, source in o.originals(against or []))])
    check_target(out, force=force)
    with open_bank(bank) as file:
        if kind is Kind.DISTRIBUTION:
            make = _distribution(file, against or [], base, threads, quiet)
        else:
            make = _maker(file, kind)
    data = render(make, suffix)
    write_whole(out, data, force=force)
    if json:
        print_json({"picture": str(out), "kind": kind.value, "bytes": len(data)})


def _maker(file: BankFile, kind: Kind) -> Callable[[], Any]:
    """A function that draws the figure of a bank's own statistics."""
    from randes_cli.ops.describe import describe
    from randes_cli.stats.curves import lambda_curves
    from randes_cli.views import figures

    if kind is Kind.LAMBDA:
        curves = lambda_curves(file)
        return lambda: figures.lambda_figure(curves)
    report = describe(file)
    if kind is Kind.LAYERS:
        layers = describe(file, by="layer").rows
        return lambda: figures.layers_figure(report.rows, layers)
    if kind is Kind.SIZE:
        return lambda: figures.size_figure(report)
    return lambda: figures.cosine_figure(report)


def _distribution(
    file: BankFile, against: list[str], base: str | None, threads: int, quiet: bool
) -> Callable[[], Any]:
    from randes_cli.ops.distribution import measured_distribution, stored_distribution
    from randes_cli.views import figures

    found: Distribution
    if against:
        run = o.run_options(threads, None)
        with progress_bar(quiet=quiet) as progress:
            found = measured_distribution(
                file, o.originals(against), run, base=base, progress=progress
            )
    else:
        found = stored_distribution(file)
    return lambda: figures.distribution_figure(found)
