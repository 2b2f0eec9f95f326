"""randes pack"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import typer

from randes_cli.cli import making as m
from randes_cli.cli import options as o
from randes_cli.cli.talk import Talk
from randes_cli.cli.words import run_options, shard_size
from randes_cli.errors import UsageError
from randes_cli.specs import CHOOSERS, CHOSEN, PackOptions, Rest, TaskInput, check_groups


def pack(
    context: typer.Context,
    out: o.NewBank,
    base: m.Base = None,
    tasks: m.Inputs = None,
    recipe: m.From = None,
    adapters: m.Adapters = False,
    merge_adapters: o.MergeAdapters = False,
    allow_pickle: o.AllowPickle = False,
    weights_key: o.WeightsKey = None,
    trust_remote_code_files: o.TrustCode = False,
    safetensors_only: o.SafetensorsOnly = False,
    transform: m.Transforms = m.TWO_SIDED,
    shuffle: m.Shuffles = None,
    signs: m.SignChoice = None,
    bits: m.Bits = None,
    share: m.Share = None,
    groups: m.Groups = 1,
    fit: m.Fit = None,
    keep: m.Keep = None,
    seed: m.Seed = 42,
    capacity: m.Capacity = None,
    targets: m.Targets = "all",
    every: m.Every = 1,
    rest: m.Others = Rest.sum,
    exact: m.Exact = None,
    base_storage: m.Storage = m.Where.embed,
    max_shard_size: o.MaxShardSize = None,
    threads: o.Threads = 0,
    engine: o.Engine = "threads",
    address: o.Address = None,
    max_memory: o.MaxMemory = None,
    device: o.Device = "auto",
    dry_run: o.DryRun = False,
    force: o.Force = False,
    full: o.Full = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Pack a base and its fine-tunes into one bank."""
    from randes_cli import pack as run

    speaks = json or not quiet
    if speaks:  # nothing is loaded after the commit
        from randes_cli.cli.render.packed import tell

    talk = Talk(json=json, quiet=quiet, dry_run=dry_run)
    source, inputs, words = _what(base, tasks, recipe, given(context))
    options = replace(_options(words, inputs), max_shard_size=shard_size(max_shard_size))
    how = run_options(threads, max_memory, device, engine=engine, address=address)
    packed = partial(run, source, inputs, out, options, how, force=force, dry_run=dry_run)
    with talk.progress() as progress:
        report = packed(weigh=speaks, progress=progress)
    if speaks:
        tell(talk, report, full=full)
    if report.refused:  # as the run would end
        raise typer.Exit(report.refused[0].exit_code)


def _options(words: dict[str, Any], inputs: Sequence[TaskInput]) -> PackOptions:
    """The options of so many tasks. Raises UsageError where they are fewer than groups."""
    from randes_cli.files.recipe.recipe import options_of

    options = options_of(words)
    if "groups" in words:
        check_groups(inputs, options.groups)
    return options


def given(context: typer.Context) -> dict[str, Any]:
    """The options of a recipe that stand on the command line, by their names there."""
    from randes_cli.files.recipe.recipe import OPTIONS

    made = {}
    for parameter in context.command.params:
        longest = max(parameter.opts, key=len)
        option = longest[2:] if longest.startswith("--") else ""
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if option in OPTIONS and source is not None and source.name == "COMMANDLINE":
            value = context.params[name]
            made[option] = value.value if isinstance(value, Enum) else value
    return made


def _what(
    base: str | None, tasks: list[str] | None, recipe: Path | None, words: dict[str, Any]
) -> tuple[str | None, tuple[TaskInput, ...], dict[str, Any]]:
    """Base, tasks and option words, from the command line or from a recipe."""
    from randes_cli.files.recipe.recipe import Recipe
    from randes_cli.files.recipe.words import task_input

    if recipe is not None:
        if base is not None:
            raise UsageError(f"{base}: the recipe names base and tasks; leave them out here")
        found = Recipe.read(recipe)
        return found.base, found.tasks, {**_left_of(found.words, words), **words}
    if base is None:
        raise UsageError("name the base and the models fine-tuned from it, or --from RECIPE")
    if words.get("adapters"):
        return None, tuple(map(task_input, [base, *(tasks or [])])), words
    return base, tuple(map(task_input, tasks or [])), words


def _left_of(recipe: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe that stand beside `words` of the command line.

    A choice by --fit or --keep there replaces bits, groups and share here, and the other way.
    """
    replaced = set(CHOOSERS) if words.keys() & {*CHOOSERS, *CHOSEN} else set()
    if words.keys() & set(CHOOSERS):
        replaced |= set(CHOSEN)
    return {name: value for name, value in recipe.items() if name not in replaced}
