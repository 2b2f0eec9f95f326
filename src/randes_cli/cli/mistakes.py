"""What typer finds wrong with a command line, in one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from randes_cli.files.nearest import nearest


def said(error: Exception, arguments: Sequence[str]) -> str | None:
    """The sentence for one of typer's own errors; None for another."""
    show = getattr(error, "format_message", None)
    if show is None:
        return None
    parameter: Any = getattr(error, "param", None)
    choices = _choices(parameter)
    kind = type(error).__name__
    if kind == "MissingParameter" and getattr(parameter, "help", None):
        return f"{show().rstrip('.')}: {_lowered(parameter.help)}"
    if kind == "BadParameter" and choices:
        return _no_choice(parameter, choices, arguments)
    if kind == "BadParameter" and (text := _no_number(parameter, arguments)):
        return text
    if kind == "UsageError" and "No such command" in show() and "Did you mean" not in show():
        return f"{show().rstrip('.')} (randes --help lists them)"
    return str(show())


def _choices(parameter: Any) -> list[str]:
    """What an option takes, where that is one of a few words."""
    described = getattr(parameter, "type_descriptor", None) or getattr(parameter, "type", None)
    found = getattr(described, "choices", None) or ()
    return [str(getattr(choice, "value", choice)) for choice in found]


def _no_choice(parameter: Any, choices: Sequence[str], arguments: Sequence[str]) -> str:
    """A word that is none of an option's, with the one that was probably meant."""
    option = max(parameter.opts, key=len)
    given = _given(parameter.opts, arguments)
    near = None if given is None else nearest(given, choices)
    meant = f" (did you mean {near}?)" if near else ""
    what = "" if given is None else f", not {given!r}"
    return f"{option} must be one of {', '.join(choices)}{what}{meant}"


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


def _given(options: Sequence[str], arguments: Sequence[str]) -> str | None:
    """The value that stands after an option."""
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in options:
            return value if equals else next(iter(arguments[place + 1 :]), None)
    return None


def _lowered(text: str) -> str:
    """A help's sentence as the end of another."""
    return text[0].lower() + text[1:].rstrip(".")
