"""What typer finds wrong with a command line, in one sentence that says what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from randes_cli.cli.examples import EXAMPLES
from randes_cli.files.nearest import alike, meant

#: What other tools call what a command does.
_OTHER_WORDS = {
    "pack": ("create", "build", "make", "compress", "merge", "new", "init"),
    "unpack": ("extract", "get", "export", "retrieve", "restore", "pull", "download"),
    "inspect": ("list", "ls", "info", "show", "describe", "stats"),
    "add": ("append", "insert", "update"),
    "remove": ("rm", "delete", "del", "drop"),
    "verify": ("check", "test", "validate", "fsck"),
    "push": ("upload", "publish"),
    "diff": ("compare", "cmp"),
    "seal": ("quantize", "quantise", "shrink"),
    "convert": ("shard", "split", "join", "copy"),
    "evaluate": ("eval", "score", "bench"),
    "report": ("html",),
    "plot": ("draw", "chart"),
    "serve": ("run", "server", "start"),
}


def said(error: Exception, arguments: Sequence[str]) -> str | None:
    """The sentence for one of typer's own errors; None for another."""
    show = getattr(error, "format_message", None)
    if show is None:
        return None
    parameter: Any = getattr(error, "param", None)
    kind, text, choices = type(error).__name__, str(show()), _choices(parameter)
    if kind == "MissingParameter" and getattr(parameter, "help", None):
        wanted = parameter.help
        text = f"{text.rstrip('.')}: {wanted[0].lower()}{wanted[1:].rstrip('.')}"
    elif kind == "BadParameter" and choices:
        text = _no_choice(parameter, choices, arguments)
    elif kind == "BadParameter":
        text = _no_number(parameter, arguments) or _out_of_range(parameter, text, arguments)
    elif kind == "UsageError" and "No such command" in text:
        text = _no_command(text, arguments[0])
    elif kind == "UsageError" and "unexpected extra argument" in text:
        text = _too_many(text, arguments, _repeatable(error))
    return text


def _no_command(text: str, given: str) -> str:
    """What is there in place of a command that is not."""
    meant = next((name for name, words in _OTHER_WORDS.items() if given.lower() in words), None)
    if meant is not None:
        return f"No such command {given!r}: randes {meant} does that"
    return text if "Did you mean" in text else f"{text.rstrip('.')} (randes --help lists them)"


def _repeatable(error: Exception) -> set[str]:
    """The options of the command that an error is about that may be said again."""
    command = getattr(getattr(error, "ctx", None), "command", None)
    options = (
        one.opts for one in getattr(command, "params", ()) if getattr(one, "multiple", False)
    )
    return {name for names in options for name in names}


def _too_many(text: str, arguments: Sequence[str], repeatable: set[str]) -> str:
    """Words that a command has no use for, and a line of those that it takes."""
    command = arguments[0]
    found = re.search(r"\((?!s\))(.*)\)", text)
    words = found[1] if found else "an argument"
    for option, _, word in zip(arguments, arguments[1:], arguments[2:], strict=False):
        if option in repeatable and word == words.split(" ")[0]:
            return f"{words}: say {option} before each"
    example = EXAMPLES.get(command, (f"randes {command} --help",))[-1]
    return f"{words}: more than {command} takes; say it as: {example}"


def _choices(parameter: Any) -> list[str]:
    """What an option takes, where that is one of a few words."""
    described = getattr(parameter, "type_descriptor", None) or getattr(parameter, "type", None)
    found = getattr(described, "choices", None) or ()
    return [str(getattr(choice, "value", choice)) for choice in found]


def _no_choice(parameter: Any, choices: Sequence[str], arguments: Sequence[str]) -> str:
    """A word that is none of an option's, with the one that was probably meant."""
    option = max(parameter.opts, key=len)
    given = _given(parameter.opts, arguments)
    what = "" if given is None else f", not {given!r}{meant(alike(given, choices, 1))}"
    base = "; the base model comes first, without an option" if option == "--base" else ""
    return f"{option} must be one of {', '.join(choices)}{what}{base}"


def _no_number(parameter: Any, arguments: Sequence[str]) -> str | None:
    """A word where a number is wanted; None where the number itself is wrong."""
    wanted = str(getattr(getattr(parameter, "type_descriptor", None), "annotation", ""))
    kind = int if "int" in wanted else float if "float" in wanted else None
    given = _given(parameter.opts, arguments)
    if kind is None or given is None:
        return None
    try:
        kind(given)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        return f"{max(parameter.opts, key=len)} must be {what}, not {given!r}"
    return None


def _out_of_range(parameter: Any, text: str, arguments: Sequence[str]) -> str:
    """A number beyond the least or the most, in the words of other refusals."""
    _, wanted, limit = text.partition("Input should be ")
    given = _given(getattr(parameter, "opts", ()), arguments)
    if not wanted or given is None:
        return text
    words = limit.replace("greater than or equal to", "at least")
    words = words.replace("less than or equal to", "at most")
    return f"{max(parameter.opts, key=len)} must be {words}, not {given}"


def _given(options: Sequence[str], arguments: Sequence[str]) -> str | None:
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in options:
            return value if equals else next(iter(arguments[place + 1 :]), None)
    return None
