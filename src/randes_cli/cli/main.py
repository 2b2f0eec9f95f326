"""The app, and the one boundary where errors become a line and an exit code."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from randes_cli import __version__
from randes_cli.cli import environment
from randes_cli.errors import RandesError
from randes_cli.files.disk import wrap_os_error
from randes_cli.files.guard import one_command

#: What a shell reports of a program that SIGPIPE ended.
_CLOSED_PIPE = 141

#: The module of every command, in the order of the help.
COMMANDS = {
    "pack": "pack",
    "unpack": "unpack",
    "inspect": "inspect",
    "add": "edit",
    "remove": "edit",
    "verify": "verify",
    "push": "push",
    "diff": "diff",
    "plot": "plot",
    "report": "report",
    "seal": "seal",
    "tune": "tune",
    "evaluate": "evaluate",
}


def _version(value: bool) -> None:
    if value:
        print(f"randes {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _app(arguments: list[str]) -> typer.Typer:
    """The app with the command that is called; with all of them where none is (yet).

    Building all of them takes as long as unpacking a small task.
    """
    app = typer.Typer(
        name="randes",
        help="Keep many fine-tuned models of one base in a single file, and get any of them back.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    called = arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS
    for name in called:
        module = import_module(f"randes_cli.cli.{COMMANDS[name]}")
        app.command(name)(getattr(module, name))
    return app


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _on_signal(number: int, frame: Any) -> None:
    """Unwind once; what comes while files are put away is too late to matter."""
    for caught in (signal.SIGINT, signal.SIGTERM):
        signal.signal(caught, signal.SIG_IGN)
    raise Stopped(number)


def _on_lost(lost: Any) -> None:
    """Raise a signal's exception once more where it was lost.

    Python drops what is raised in a finaliser or in a callback, of its imports for one.
    """
    stopped = lost.exc_value
    if not isinstance(stopped, Stopped):
        sys.__unraisablehook__(lost)
        return

    def again(number: int, frame: Any) -> None:
        raise Stopped(stopped.number)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def _say(text: str) -> None:
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    with contextlib.suppress(OSError, ValueError):
        print(f"randes: {line}", file=sys.stderr)


def _interrupted(number: int) -> int:
    _say("interrupted; nothing half-written was left")
    return 128 + number


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        with one_command(afresh=True):
            result = _app(arguments)(arguments, standalone_mode=False, prog_name="randes")
        sys.stdout.flush()
        if result == 130:
            return _interrupted(signal.SIGINT)
        return result if isinstance(result, int) else 0
    except Stopped as stop:
        return _interrupted(stop.number)
    except KeyboardInterrupt:
        return _interrupted(signal.SIGINT)
    except (BrokenPipeError, SystemExit):  # rich and click turn the first into the second
        return _CLOSED_PIPE
    except Exception as error:
        if "--debug" in arguments:
            import traceback

            with contextlib.suppress(OSError):
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
    if isinstance(error, OSError):
        place = str(error.filename or "standard output")
        wrapped = wrap_os_error(
            error, ascii(place)[1:-1], "writing" if error.filename else "printing"
        )
        _say(str(wrapped))
        return wrapped.exit_code
    show = getattr(error, "format_message", None)  # click's own errors
    if show is not None:
        _say(show())
        return 2
    _say(f"internal error: {type(error).__name__}: {error} (--debug shows where; please report it)")
    return 70


def _open_standard_files() -> None:
    """Have files 0, 1 and 2 open: a bank opened under such a number would get what is printed."""
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.dup(number)
    os.close(number)
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for the life of the process
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def _flush(code: int) -> int:
    """Flush what was printed, and keep the interpreter from trying again at its end."""
    for stream, failed in ((sys.stdout, _CLOSED_PIPE), (sys.stderr, 0)):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or failed
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def main() -> None:
    """The console script."""
    _open_standard_files()
    environment.prepare()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.unraisablehook = _on_lost
    for caught in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(caught) != signal.SIG_IGN:  # as nohup and shells in the back want it
            signal.signal(caught, _on_signal)
    # Headers and manifests of 100,000 tensors are millions of objects that stay: looking through
    # them for garbage every 700 would double the time that opening a bank takes.
    gc.set_threshold(2_000_000, 20, 50)
    code = _flush(run(sys.argv[1:]))
    # What is left goes with the process: a last look at it for garbage would take 0.1 s.
    gc.freeze()
    sys.exit(code)
