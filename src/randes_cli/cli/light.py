"""Values that need no check are taken as they are.

typer, from 0.29 on, has pydantic check every value, a text that is to be a text and a digit that is
to be a number included: loading that takes longer than all else that typer does. What needs a check
goes to typer as ever.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

from typer.core import TyperCommand, TyperGroup

from randes_cli.cli.panels import SPEAKS

#: What `_plain` says of a value that needs a check.
_UNSURE = object()
#: Numbers that every reader takes for the same.
_NUMBER = {int: r"-?[1-9][0-9]{0,8}|0", float: r"-?(?:[1-9][0-9]{0,8}|0)(?:\.[0-9]{1,9})?"}


class LightCommand(TyperCommand):
    """A command whose plain values are not checked."""

    def get_params(self, ctx: Any) -> list[Any]:
        found: list[Any] = super().get_params(ctx)
        found[-1].rich_help_panel = SPEAKS  # --help, which click adds
        return [_shown_plainly(_lighten(parameter)) for parameter in found]


class LightGroup(TyperGroup):
    """The app, likewise."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_shown_plainly(_lighten(parameter)) for parameter in super().get_params(ctx)]


def _shown_plainly(parameter: Any) -> Any:
    """Have the help show what a value is called, and of a switch and of a named one no type.

    Nor that a value is None by default, as older typers do.
    """
    if parameter.default is None:
        parameter.show_default = False
    if hasattr(parameter, "display_type_rich"):  # typer from 0.29 on
        name = None if parameter.param_type_name == "argument" else parameter.metavar
        parameter.display_type_rich = lambda ctx: name
    return parameter


def _lighten(parameter: Any) -> Any:
    """Have a parameter look for plain values before it checks them."""
    descriptor = getattr(parameter, "type_descriptor", None)
    if descriptor is None or "process_value" in vars(
        parameter
    ):  # a typer without pydantic, or done
        return parameter
    check, kind = parameter.process_value, descriptor.annotation
    several = parameter.multiple or parameter.nargs == -1

    def process_value(context: Any, value: Any) -> Any:
        found = _plain(kind, value, several=several)
        if type(found) in (int, float) and not _within(descriptor.parameter_info, found):
            found = _UNSURE
        if found is _UNSURE or (parameter.required and not found):
            return check(context, value)
        return parameter.callback(context, parameter, found) if parameter.callback else found

    parameter.process_value = process_value
    return parameter


def _plain(kind: Any, value: Any, *, several: bool) -> Any:
    """A value of a kind as typer gives it, where that is plain to see."""
    if value is None:
        return () if several else None
    if kind == list[str] and isinstance(value, (list, tuple)):
        return list(value) if all(type(one) is str for one in value) else _UNSURE
    if type(value) is kind and not several:
        return value
    if isinstance(kind, type) and issubclass(kind, Enum) and isinstance(value, str):
        return next((one for one in kind if one.value == value), _UNSURE)
    if kind in _NUMBER and isinstance(value, str) and re.fullmatch(_NUMBER[kind], value):
        return kind(value)
    return _UNSURE


def _within(limits: Any, number: float) -> bool:
    """Whether a number is no less and no more than its parameter says."""
    return (limits.min is None or limits.min <= number) and (
        limits.max is None or number <= limits.max
    )
