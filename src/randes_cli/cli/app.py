"""The app: every command's module, loaded when it is called, and click's ways of ending."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from randes_cli import __version__
from randes_cli.cli.light import LightCommand, LightGroup
from randes_cli.errors import UsageError
from randes_cli.files.guard import one_command

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
    "convert": "convert",
    "tune": "tune",
    "evaluate": "evaluate",
    "serve": "serve",
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
        cls=LightGroup,
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
        app.command(name, cls=LightCommand)(getattr(module, name))
    return app


def call(arguments: list[str]) -> int:
    """Run a command line and return its exit code. Raises what the command raises."""
    arguments = arguments or ["--help"]
    try:
        with one_command(afresh=True):
            result = _app(arguments)(arguments, standalone_mode=False, prog_name="randes")
    except typer.Exit as ending:
        return ending.exit_code
    except Exception as error:
        show = getattr(error, "format_message", None)  # click's own errors
        if show is None:
            raise
        raise UsageError(show()) from error
    return result if isinstance(result, int) else 0
