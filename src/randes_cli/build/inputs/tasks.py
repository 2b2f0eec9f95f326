"""Opens tasks under a base's names: checkpoints, merged adapters, and what lies beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from randes_cli.build.inputs.named import kept_once, named_like
from randes_cli.build.inputs.participants import OpenTask, Origin
from randes_cli.core.prediction.verdict import percent
from randes_cli.errors import MismatchError, UsageError, first_of
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import file_key
from randes_cli.files.base import BankBase
from randes_cli.files.checkpoint.checkpoint import Checkpoint
from randes_cli.files.checkpoint.configs import match_configs
from randes_cli.files.checkpoint.foreign import PLACEHOLDER
from randes_cli.files.checkpoint.names import (
    Naming,
    unmerged,
)
from randes_cli.files.checkpoint.quantised import refuse_codes
from randes_cli.files.checkpoint.shared import equal_tensors, ties_of, whole_of
from randes_cli.files.header import parse_json
from randes_cli.files.local.lent_files import files_for, with_lent
from randes_cli.files.lora.config import base_model, task_type
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.files.lora.rows import tokens_without_rows
from randes_cli.files.lora.stored_names import of_memory
from randes_cli.files.lora.unmerged import is_adapter, require_alike, without_config
from randes_cli.files.side_files import SideFile, left_out_note, shown
from randes_cli.files.source import Source, ZeroBase
from randes_cli.files.sources import Sources, on_hub
from randes_cli.files.weight_names import ADAPTER_CONFIG
from randes_cli.fit import AS_BANK, LEAST_MATCH, LEAST_PART, TaskFit, fit_task
from randes_cli.plan import tensor_bytes
from randes_cli.specs import (
    OpenOptions,
    TaskInput,
    check_task_name,
)

CONFIG = "config.json"
_LAYER = re.compile(r".*?\.\d+(?=\.)")
Opener = Callable[[str], AbstractContextManager[Checkpoint]]


def check_names(tasks: Sequence[TaskInput]) -> None:
    """Refuse task names that are bad, or the same but for case."""
    seen: dict[str, str] = {}
    for task in tasks:
        check_task_name(task.name)
        other = seen.get(task.name.lower())
        if other is not None:
            alike = "is there twice" if other == task.name else f"and {other!r} differ only in case"
            raise UsageError(f"task name {task.name!r} {alike}; say NAME=PATH")
        seen[task.name.lower()] = task.name


def fit_to(
    base: Source,
    task: Source,
    names: Collection[str],
    reasons: Mapping[str, str],
    component: str = "",
) -> TaskFit:
    """What becomes of a task's tensors; `names` are the units', `reasons` as of `fit_task`.

    `component` is the beginning of the base's names of which the task has all, if it is one.
    Raises MismatchError when it has too little in common with the base.
    """
    if task.tensors is not base.tensors:
        _refuse_placeholders(base, task)
        refuse_codes(task.source, base.tensors, task.tensors)
    shared = {name: f"the base has it as {kept}" for name, kept in ties_of(base).items()}
    fit = fit_task(base.tensors, task.tensors, names, {**shared, **reasons})
    pairs = [(base.tensors, fit)]
    if ties_of(base) or ties_of(task):  # by the names that they have, too
        whole = whole_of(base).tensors
        pairs.append((whole, fit_task(whole, whole_of(task).tensors, ())))
    matched = 0.0
    for tensors, one in pairs:
        ours = (tensor for name, tensor in tensors.items() if name.startswith(component))
        share = tensor_bytes(tensors.values()) / max(1, tensor_bytes(ours)) if component else 1.0
        matched = max(matched, one.matched * share)
        enough = one.matched * share >= LEAST_PART or not one.missing
        part = one.covered >= LEAST_MATCH and enough
        if matched >= LEAST_MATCH or part:
            return fit
    raise MismatchError(
        f"{task.source}: matches only {percent(matched)} of the base's bytes by name and shape "
        f"({_difference(base, task, fit)}); is it of another base?"
    )


def _refuse_placeholders(base: Source, task: Source) -> None:
    """Raise MismatchError for a tensor without elements where the base has values."""
    for name, tensor in task.tensors.items():
        twin = base.tensors.get(name)
        if twin is not None and twin.elements and not tensor.elements:
            raise MismatchError(
                f"{task.source}: tensor {name!r} has shape {list(tensor.shape)}, the base's "
                f"{list(twin.shape)}: {PLACEHOLDER}"
            )


def _difference(base: Source, task: Source, fit: TaskFit) -> str:
    """Names that only one side has, and shapes that differ, a few of each."""
    ours, theirs = (", ".join(map(ascii, names)) for names in fit.unmatched)
    said = [f"only in {base.source}: {ours}"] if ours else []
    said += [f"only in the task: {theirs}"] if theirs else []
    reshaped = [
        f"{name!r} is {list(tensor.shape)}, the base's {list(base.tensors[name].shape)}"
        for name, tensor in task.tensors.items()
        if name in base.tensors and base.tensors[name].shape != tensor.shape
    ]
    words = unmerged(task.tensors) + of_memory(base.tensors, task.tensors)
    return "; ".join([*said, *reshaped[:3], *words])


def open_task(task: TaskInput, checkpoint: Checkpoint, base: Source, beside: Origin) -> OpenTask:
    """A task as the engine reads it. An adapter of a full base is merged.

    `beside` is what lies beside the base; beside that of a bank it is what the bank says.
    Raises what merging raises; MismatchError when the base is one of adapters and the task
    another kind.
    """
    if isinstance(base, BankBase):
        beside = _bank_origin(base.bank)
    whole, kept = whole_of(base), tuple[str, ...]()
    if isinstance(base, ZeroBase):
        require_alike(checkpoint, base)
        kept = without_config(checkpoint)
    elif is_adapter(checkpoint):
        called = base.bank.manifest.base.source if isinstance(base, BankBase) else base.source
        return _merged(task, checkpoint, whole, beside, called)
    source, naming, mapped = named_like(whole, checkpoint, beside.layout)
    notes = (*checkpoint.notes, *kept, *mapped)
    files, left_out = checkpoint.side_files, dict(checkpoint.left_out)
    if checkpoint.layout:
        files, borrowed = files_for(files, _files_of(naming, beside.side_files))
        if borrowed:
            files, changed = match_configs(files, whole.tensors, source.tensors)
            notes += ("has no config: gets the base's side files", *changed)
            ours = [name for name in whole.tensors if name.startswith(naming.component)]
            if any(name.endswith(CONFIG) for name in files):
                notes += _other_layers(_layers(ours), _layers(source.tensors))
    if not is_adapter(checkpoint):
        notes += tuple(unmerged(name for name in source.tensors if name not in whole.tensors))
        files, more = _without_adapter_config(files)
        left_out |= more
        notes += left_out_note(more)
    origin = Origin(checkpoint.layout, files, left_out, checkpoint.pickle)
    return OpenTask(task, source, naming, origin, notes)


def _layers(names: Iterable[str]) -> set[str]:
    """The beginnings of names up to the number of a layer."""
    return {found[0] for name in names if (found := _LAYER.match(name))}


def _other_layers(ours: Collection[str], theirs: Collection[str]) -> tuple[str, ...]:
    """What to say where the base's config.json comes with a task of fewer layers, or of more."""
    lost, stems = {*ours} - {*theirs}, {layer.rpartition(".")[0] for layer in ours}
    more = {layer for layer in {*theirs} - {*ours} if layer.rpartition(".")[0] in stems}
    said = []
    if lost:
        said.append(
            f"lacks {first_of(sorted(lost), 3)} of the base, whose config.json says that there are "
            "such layers: set it right, or they will be made up"
        )
    if more:
        said.append(
            f"has {first_of(sorted(more), 3)}, and the base's config.json says that there are no "
            "such layers: set it right, or they will be left out"
        )
    return tuple(said)


def _files_of(naming: Naming, files: Mapping[str, SideFile]) -> Mapping[str, SideFile]:
    """The base's side files, or where a task is one component of it that one's."""
    ours = naming.component
    return {n.removeprefix(ours): file for n, file in files.items() if n.startswith(ours)}


def _merged(
    task: TaskInput, adapter: Checkpoint, base: Source, beside: Origin, called: str
) -> OpenTask:
    """An adapter merged into the base: a model in the base's layout, with its side files.

    `called` is what the user called the base.
    """
    configs = _configs(beside.side_files)
    merged = MergedAdapter(base, adapter, configs)
    files, _ = _without_adapter_config(with_lent(adapter.side_files, beside.side_files))
    files, changed = match_configs(
        files, base.tensors, merged.tensors, merged.untied, task_type(adapter), configs
    )
    layout = beside.layout or ({"": "model.safetensors"} if adapter.layout else {})
    notes = (*adapter.notes, merged.summary, *merged.notes, *changed)
    origin = Origin(layout, files, adapter.left_out, adapter.pickle)
    notes += tokens_without_rows(adapter.side_files, _configs(files).get(""))
    notes += _of_another(adapter, called)
    return OpenTask(task, merged, Naming(), origin, notes)


def _of_another(adapter: Checkpoint, base: str) -> tuple[str, ...]:
    """What to say where an adapter names another base than the one that it is merged into."""
    claimed = base_model(adapter)
    ours, theirs = (re.split(r"[/\\]", text.rstrip("/\\"))[-1] for text in (base, claimed))
    if not claimed or ours.partition("@")[0].lower() == theirs.lower():
        return ()
    return (f"its configuration says that it was trained on {shown(claimed)[:100]}",)


def _without_adapter_config(
    files: Mapping[str, SideFile],
) -> tuple[Mapping[str, SideFile], dict[str, str]]:
    """Side files of a whole model, which must not say that it is an adapter, and those dropped."""
    if ADAPTER_CONFIG not in files:
        return files, {}
    kept = {name: file for name, file in files.items() if name != ADAPTER_CONFIG}
    return kept, {ADAPTER_CONFIG: "of an adapter, and these weights are a whole model"}


def _bank_origin(bank: BankFile) -> Origin:
    """What lay beside a bank's base when it was packed. Its side files are in the bank already."""
    record = bank.manifest.base
    files = {}
    for name, digest in record.files.items():
        data = bank.read_whole(file_key(digest)).tobytes() if name.endswith(CONFIG) else None
        files[name] = SideFile(
            Path(str(bank.path)), digest, bank.info(file_key(digest)).nbytes, data
        )
    return Origin(record.layout, files, record.left_out, record.pickle)


def _configs(files: Mapping[str, SideFile]) -> dict[str, Mapping[str, Any]]:
    made: dict[str, Mapping[str, Any]] = {}
    for name, side_file in files.items():
        component, _, file = name.rpartition("/")
        with suppress(ValueError):  # what is no JSON says nothing
            config = parse_json(side_file.content(), strict=False) if file == CONFIG else None
            if isinstance(config, dict):
                made[component] = config
    return made


def reopen(
    stack: ExitStack, name: str, source: str, base: Source, opening: OpenOptions
) -> OpenTask:
    """A task that is in a bank, read as it was when it was packed."""
    checkpoint = stack.enter_context(Sources(opening).open(source))
    return open_task(TaskInput(name, source), checkpoint, base, Origin())


def open_coming(
    stack: ExitStack,
    task: TaskInput,
    base: Source,
    names: Collection[str],
    asked: Collection[str],
    opening: OpenOptions,
) -> tuple[OpenTask, TaskFit]:
    """A task that enters a bank. One on the Hub is compared by its headers before it is fetched.

    Raises what `open_task` and `fit_to` raise.
    """
    sources = Sources(opening)

    def checked(stack: ExitStack, opener: Opener, *, here: bool) -> tuple[OpenTask, TaskFit]:
        checkpoint = stack.enter_context(opener(task.source))
        opened = open_task(task, checkpoint, base, Origin())
        opened = kept_once(opened, base, equal_tensors(opened.source) if here else None)
        reasons = dict.fromkeys(asked, AS_BANK)
        return opened, fit_to(base, opened.source, names, reasons, opened.naming.component)

    if on_hub(task.source):
        with ExitStack() as passing:
            checked(passing, sources.look, here=False)
    return checked(stack, sources.open, here=True)
