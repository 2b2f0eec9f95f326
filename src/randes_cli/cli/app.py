"""The app: every command's module, loaded when it is called, and click's ways of ending."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated

import typer

from randes_cli import __version__
from randes_cli.cli import complete
from randes_cli.cli.examples import EXAMPLES, FIRST, WORDS, ending
from randes_cli.cli.light import LightCommand, LightGroup
from randes_cli.cli.mistakes import said
from randes_cli.errors import UsageError
from randes_cli.files.local.guard import one_command

#: The module of every command, by panel of the help and in its order.
PANELS = {
    "Make banks and use them": {
        "pack": "pack",
        "unpack": "unpack",
        "inspect": "inspect",
        "add": "edit",
        "remove": "edit",
    },
    "Check, compare and show": {
        "verify": "verify",
        "evaluate": "evaluate",
        "diff": "diff",
        "report": "pictures",
        "plot": "pictures",
    },
    "Make them smaller, better, or cut": {"seal": "seal", "tune": "tune", "convert": "convert"},
    "Share and serve": {"push": "push", "serve": "serve"},
}
COMMANDS = {name: module for panel in PANELS.values() for name, module in panel.items()}


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
        epilog=ending(*FIRST, WORDS),
        no_args_is_help=True,
        add_completion=complete.ASKED in os.environ or not _names_one(arguments),
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    called = arguments[:1] if _names_one(arguments) else COMMANDS
    for name in called:
        module = import_module(f"randes_cli.cli.{COMMANDS[name]}")
        panel = next(title for title, inside in PANELS.items() if name in inside)
        more = ending(*EXAMPLES[name])
        app.command(name, cls=LightCommand, epilog=more, rich_help_panel=panel)(
            getattr(module, name)
        )
    return app


def _names_one(arguments: list[str]) -> bool:
    return bool(arguments) and arguments[0] in COMMANDS


def call(arguments: list[str]) -> int:
    """Run a command line and return its exit code. Raises what the command raises."""
    arguments = arguments or ["--help"]
    words = complete.asked_words() if complete.ASKED in os.environ else arguments
    try:
        with one_command(afresh=True):
            result = _app(words)(arguments, standalone_mode=False, prog_name="randes")
    except typer.Exit as ending:
        return ending.exit_code
    except SystemExit as ending:
        if words is arguments and not _asks_for_completion(arguments):
            raise
        return ending.code if isinstance(ending.code, int) else 0
    except (KeyError, ValueError):
        if words is arguments:
            raise
        return 1  # a shell that asks in half sentences is offered nothing
    except Exception as error:
        text = said(error, arguments)
        if text is None:
            raise
        raise UsageError(text) from error
    return result if isinstance(result, int) else 0


def _asks_for_completion(arguments: list[str]) -> bool:
    """Whether typer answers by itself, and ends the process."""
    return arguments[0].split("=")[0] in ("--install-completion", "--show-completion")
