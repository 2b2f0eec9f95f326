"""randes report, randes plot"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

from randes_cli.cli import options as o
from randes_cli.cli.output import note, print_json, progress_bar
from randes_cli.cli.panels import option
from randes_cli.cli.words import check_originals, originals, run_options
from randes_cli.views.text import human

if TYPE_CHECKING:
    from randes_cli import Written


class Kind(str, Enum):
    """What a picture shows."""

    COSINE = "cosine"
    LAYERS = "layers"
    DISTRIBUTION = "distribution"
    SIZE = "size"
    LAMBDA = "lambda"


def plot(
    bank: o.BankName,
    out: Annotated[str, o.output(None, "PATH", "The picture: a .svg, .png or .pdf file.")],
    kind: Annotated[
        Kind,
        option(None, "KIND", "What to show: cosine, layers, distribution, size or lambda."),
    ] = Kind.COSINE,
    against: o.Against = None,
    base: o.BaseOption = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Draw a bank: cosines, layers, distributions, sizes, λ curves (needs matplotlib)."""
    from randes_cli import plot as run

    with progress_bar(quiet=quiet) as progress:
        made = run(
            bank,
            out,
            kind.value,
            against=originals(against),
            base=base,
            force=force,
            run=run_options(threads, None, allow_pickle=allow_pickle),
            progress=progress,
        )
    _tell(made, {"picture": made.path, "kind": kind.value}, json=json, quiet=quiet)


def report(
    bank: o.BankName,
    out: Annotated[str, o.output(None, "PATH", "The HTML file.")],
    against: o.Against = None,
    base: o.BaseOption = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write what is known of a bank as one HTML page, to read, sort, print and send."""
    from randes_cli import report as run

    with progress_bar(quiet=quiet) as progress:
        made = run(
            bank,
            out,
            against=originals(against),
            base=base,
            force=force,
            run=run_options(threads, None, allow_pickle=allow_pickle),
            progress=progress,
        )
    _tell(made, {"report": made.path}, json=json, quiet=quiet)


def _tell(made: Written, about: dict[str, str], *, json: bool, quiet: bool) -> None:
    if json:
        print_json({**about, "bytes": made.bytes, "strange": made.strange})
    else:
        note(f"{made.path}  {human(made.bytes)}", quiet=quiet)
    check_originals(f"{made.path}: written, but", made.strange)
