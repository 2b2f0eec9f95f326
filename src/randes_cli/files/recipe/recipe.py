"""Recipes: a bank's base, tasks and options in a YAML or JSON file.

    base: base.safetensors
    tasks:
      cars: ft1.safetensors
      dtd: {source: org/name@main, group: 1}
    options:
      groups: 2
      bits: 2

Options are named and written as on the command line. Paths are relative to the recipe's folder, or
else to the current one. What is wrong is named with its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from randes_cli.errors import MissingError, RandesError, UsageError
from randes_cli.files.hub.ref import parse_ref
from randes_cli.files.local.disk import read_beginning, wrap_os_error
from randes_cli.files.nearest import meant_beside, nearest
from randes_cli.files.recipe.text import Node, parse
from randes_cli.files.recipe.words import bits_and_share, task_input
from randes_cli.limits import StrPath, as_source, choose
from randes_cli.specs import (
    BaseStorage,
    OpenOptions,
    PackOptions,
    Rest,
    Shuffle,
    Signs,
    TaskInput,
    Transform,
    check_chosen,
    check_groups,
    check_task_name,
)

#: Every option of a recipe, as the command line has it, with the kinds of value that it takes.
OPTIONS: Mapping[str, tuple[type, ...]] = {
    "transform": (str,),
    "shuffle": (str,),
    "signs": (str,),
    "bits": (int, str),
    "share": (int, str),
    "groups": (int,),
    "fit": (str, int, float),
    "keep": (str, int, float),
    "seed": (int,),
    "capacity": (int,),
    "targets": (str,),
    "every": (int,),
    "rest": (str,),
    "exact": (str,),
    "base": (str,),
    "adapters": (bool,),
    "merge-adapters": (bool,),
    "allow-pickle": (bool,),
    "weights-key": (str,),
    "trust-remote-code-files": (bool,),
    "safetensors-only": (bool,),
    "steps": (dict,),
    "widths": (dict,),
}
_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "pairs",
}
_SECTIONS = ("base", "tasks", "options")
_TASK = ("source", "group", "index")
#: Bytes of the largest recipe.
_MOST = 2**23


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a bank is made from.

    Attributes:
        base: the base's checkpoint; None for adapters that stay adapters.
        tasks: the fine-tuned models.
        options: all else that decides the bank's bytes.
        words: the options as they were written.
    """

    base: str | None
    tasks: tuple[TaskInput, ...]
    options: PackOptions
    words: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: StrPath) -> Recipe:
        """The recipe in a YAML or JSON file; its relative paths start in its folder, or else here.

        Raises MissingError, and UsageError naming the line.
        """
        text = as_source(path)
        root = parse(_read(Path(text)), text)
        _known(root, _SECTIONS, "section")
        base, words = root.get("base"), _options(root.get("options"))
        tasks = _tasks(root, Path(text).parent)
        if base is None and not words.get("adapters"):
            raise root.error("name a base (or say options: {adapters: true})")
        if base is not None and words.get("adapters"):
            raise base.error("adapters that stay adapters have no base; name it as the first task")
        source = None if base is None else _place(base, base.text("base"), Path(text).parent)
        try:
            options = options_of(words)
            if "groups" in words:
                check_groups(tasks, options.groups)
            return cls(source, tasks, options, words)
        except UsageError as error:
            raise root.error(str(error), root.get("options")) from None


def options_of(words: Mapping[str, Any]) -> PackOptions:
    """Options from their names and values on the command line. Raises UsageError."""
    check_chosen(words)
    preset = Transform.from_preset(str(words.get("transform", "two-sided")))
    bits, every = bits_and_share(
        *(None if words.get(key) is None else str(words[key]) for key in ("bits", "share"))
    )
    default = PackOptions()
    fit, keep = words.get("fit"), words.get("keep")
    return PackOptions(
        transform=Transform(
            choose("--shuffle", Shuffle, words.get("shuffle") or preset.shuffle),
            choose("--signs", Signs, words.get("signs") or preset.signs),
            words.get("targets", preset.targets),
            words.get("every", preset.every),
            choose("--rest", Rest, words.get("rest", preset.rest)),
        ),
        bits=bits,
        share=every,
        seed=words.get("seed", default.seed),
        groups=words.get("groups", default.groups),
        fit=None if fit is None else str(fit),
        keep=None if keep is None else str(keep),
        exact=words.get("exact"),
        base_storage=_storage(words.get("base", "embed")),
        capacity=words.get("capacity"),
        steps=words.get("steps", {}),
        widths=words.get("widths", {}),
        adapters=words.get("adapters", False),
        merge_adapters=words.get("merge-adapters", False),
        opening=OpenOptions(
            words.get("allow-pickle", False),
            words.get("trust-remote-code-files", False),
            words.get("safetensors-only", False),
            words.get("weights-key"),
        ),
    )


def _storage(word: Any) -> BaseStorage:
    if word not in ("embed", "reference"):
        raise UsageError(f"--base must be embed or reference, not {str(word)[:40]!r}")
    return BaseStorage(word)


def _read(path: Path) -> bytes:
    try:
        data = read_beginning(path, _MOST + 1)
    except FileNotFoundError:
        raise MissingError(f"{path}: no such recipe") from None
    except OSError as error:
        raise wrap_os_error(error, str(path), "reading") from error
    if len(data) > _MOST:
        raise UsageError(f"{path}: too long for a recipe")
    return data


def _known(node: Node, known: tuple[str, ...], what: str) -> None:
    """Raise UsageError for a field that is not known, with the nearest."""
    for name, value in node.pairs(what).items():
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"known are {', '.join(known)}"
            raise value.error(f"unknown {what} {name!r} ({hint})")


def _options(node: Node | None) -> dict[str, Any]:
    """Option words, each one checked by itself, so that what is wrong has a line."""
    if node is None:
        return {}
    _known(node, tuple(OPTIONS), "option")
    words = {}
    for name, value in node.pairs("option").items():
        found = value.plain()
        if type(found) not in OPTIONS[name]:
            kinds = " or ".join(dict.fromkeys(_KINDS[kind] for kind in OPTIONS[name]))
            raise value.error(f"{name}: {kinds} is wanted here, not {value.shown()}")
        try:
            options_of({"allow-pickle": True, name: found})  # which --weights-key asks for
        except RandesError as error:
            raise value.error(str(error)) from None
        words[name] = found
    return words


def _tasks(root: Node, folder: Path) -> tuple[TaskInput, ...]:
    """Tasks from names and sources, or from a list as the command line has them."""
    node = root.get("tasks")
    if node is None or not node.value:
        raise root.error("name at least one task, as tasks: {cars: cars.safetensors}", node)
    if isinstance(node.value, list):
        return tuple(_listed(one, folder) for one in node.value)
    return tuple(_named(name, one, folder) for name, one in node.pairs("task").items())


def _listed(node: Node, folder: Path) -> TaskInput:
    """A task from ``[NAME=]PATH[@GROUP]``."""
    word = node.text("a task")
    name, equals, source = word.partition("=")
    named = bool(equals) and "/" not in name
    return _input(node, f"{name}=" if named else "", source if named else word, folder)


def _named(name: str, node: Node, folder: Path) -> TaskInput:
    """A task from its name, and its source or the fields of `_TASK`."""
    try:
        check_task_name(name)
        if not isinstance(node.value, dict):
            return _input(node, f"{name}=", node.text(f"task {name}"), folder)
        _known(node, _TASK, f"field of task {name}")
        found = node.pairs("field")
        if "source" not in found:
            raise node.error(f"task {name}: name its source")
        numbers = {key: found[key].plain() for key in ("index", "group") if key in found}
        return TaskInput(name, _place(node, found["source"].text("source"), folder), **numbers)
    except UsageError as error:
        raise node.error(str(error)) from None


def _input(node: Node, name: str, source: str, folder: Path) -> TaskInput:
    place = _place(node, source, folder)
    try:
        return task_input(f"{name}{place}")
    except RandesError as error:
        raise node.error(str(error)) from None


def _place(node: Node, source: str, folder: Path) -> str:
    """A source as seen from here: a path from the recipe's folder, or else from the current one.

    Raises MissingError.
    """
    path, _, number = source.rpartition("@")
    inside = folder / source
    for place in (folder, Path()):
        if (place / source).exists() or (number.isdigit() and (place / path).exists()):
            return str(place / source)
    with suppress(RandesError):  # a name in a folder that is here
        if "://" in source or parse_ref(source) is not None:
            return source
    error = node.error(f"{inside}: not found{meant_beside(inside)}")
    raise MissingError(str(error))
