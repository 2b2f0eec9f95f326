"""The app, and the one boundary where errors become a line and an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Annotated, Any

import typer

from randes_cli import __version__
from randes_cli.cli import edit, inspect, pack, plot, report, unpack, verify
from randes_cli.errors import RandesError

app = typer.Typer(
    name="randes",
    help="Keep many fine-tuned models of one base in a single file, and get any of them back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        print(f"randes {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command("pack")(pack.pack)
app.command("unpack")(unpack.unpack)
app.command("inspect")(inspect.inspect)
app.command("add")(edit.add)
app.command("remove")(edit.remove)
app.command("verify")(verify.verify)
app.command("plot")(plot.plot)
app.command("report")(report.report)


class Terminated(BaseException):
    """SIGTERM arrived."""


def _on_sigterm(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _say(text: str) -> None:
    line = " ".join(text.split())
    with contextlib.suppress(OSError, ValueError):
        print(f"randes: {line}", file=sys.stderr)


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        result = app(arguments, standalone_mode=False, prog_name="randes")
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, Terminated) as stop:
        _say("interrupted; nothing was changed")
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if "--debug" in arguments:
            import traceback

            traceback.print_exc()
        return _explain(error)


def _explain(error: Exception) -> int:
    if isinstance(error, RandesError):
        _say(str(error))
        return error.exit_code
    if isinstance(error, typer.Abort):
        _say("interrupted; nothing was changed")
        return 130
    if isinstance(error, typer.Exit):
        return error.exit_code
    show = getattr(error, "format_message", None)  # click's own errors
    if show is not None:
        _say(show())
        return 2
    _say(f"internal error: {type(error).__name__}: {error} (--debug shows where; please report it)")
    return 70


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, _on_sigterm)
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 141
    sys.exit(code)
