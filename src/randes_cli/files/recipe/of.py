"""The recipe that a bank was made from, as `inspect --recipe` prints it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from randes_cli.core.roles import exact_roles
from randes_cli.errors import some_of
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.records import BaseRecord, TaskRecord
from randes_cli.files.base import below
from randes_cli.files.hub.ref import recorded_ref
from randes_cli.files.location import Place, RemotePath, absolute_source, recorded_place
from randes_cli.specs import BaseStorage, PackOptions, Transform

#: Files that travel only where they are trusted.
_CODE = ".py"
#: Names that a line lists.
_MOST_NAMES = 5


def _seen(bank: Place, source: str) -> str | None:
    """A recorded source as a recipe in the current folder names it; None where it is not there.

    A manifest has it relative to its bank's folder, and of what lies outside the last part only.
    """
    if recorded_ref(source) is not None or recorded_place(source) is not None:
        return source
    if isinstance(bank, RemotePath):
        return str(bank.parent / source)
    place = below(bank.parent, source)
    if place is None:
        return None
    with suppress(ValueError):  # another drive
        return Path(os.path.relpath(place)).as_posix()
    return absolute_source(place)


def recipe_text(
    manifest: Manifest, bank: Place, *, full: bool = False, most: int | None = None
) -> str:
    """YAML from which `pack --from` makes the bank again, given the same checkpoints.

    Paths are relative to the current folder, where the recipe is to be saved. What no recipe can
    say stands above as a comment. `full` adds the steps, which an edited bank has from its first
    tasks. `most` are the bytes of a shard, of a bank in shards.
    """
    import yaml

    named = [(task.name, task.source) for task in manifest.tasks]
    body: dict[str, Any] = {}
    if manifest.base.storage is not BaseStorage.zero:
        named.insert(0, ("the base", manifest.base.source))
        body["base"] = _seen(bank, manifest.base.source) or manifest.base.source
    body["tasks"] = {
        task.name: _task(manifest, task, place, _seen(bank, task.source) or task.source)
        for place, task in enumerate(manifest.tasks)
    }
    body["options"] = _options(manifest, full=full)
    missing = [name for name, source in named if _seen(bank, source) is None]
    text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100)
    cut = [] if most is None else [f"the bank is in shards: say --max-shard-size {most}, too"]
    notes = [*_not_said(manifest, full=full), *cut, *_not_there(missing)]
    return "".join(f"# {line}\n" for line in notes) + text


def _not_there(missing: Sequence[str]) -> list[str]:
    """What to say of sources of which only a name is known."""
    names = some_of(missing, _MOST_NAMES)
    return [f"not beside the bank, so write where they are: {names}"] if names else []


def _task(manifest: Manifest, task: TaskRecord, place: int, source: str) -> Any:
    """A task's source, with its index and group where `pack` would choose others."""
    more = {}
    if task.index != place:
        more["index"] = task.index
    if task.group != task.index % manifest.groups:
        more["group"] = task.group
    return {"source": source, **more} if more else source


def _asked(manifest: Manifest) -> str | None:
    """A pattern of the tensors that are kept exactly, but for those that always are."""
    names = manifest.transform.exact - exact_roles(manifest.base.tensors).keys()
    return f"^({'|'.join(map(re.escape, sorted(names)))})$" if names else None


def _options(manifest: Manifest, *, full: bool) -> dict[str, Any]:
    transform, default = manifest.transform, PackOptions()
    preset = Transform.from_preset(transform.preset or "two-sided")
    made: dict[str, Any] = {
        "transform": transform.preset or "two-sided",
        "shuffle": transform.shuffle.value if transform.shuffle is not preset.shuffle else None,
        "signs": transform.signs.value if transform.signs is not preset.signs else None,
        "targets": _unless(transform.targets, preset.targets),
        "every": _unless(transform.every, preset.every),
        "rest": None if transform.rest is preset.rest else transform.rest.value,
        "exact": _asked(manifest),
        "bits": _sealed_alike(manifest) or manifest.bits,
        "share": _share(manifest),
        "groups": _unless(manifest.groups, default.groups),
        "seed": _unless(manifest.seed, default.seed),
        "capacity": manifest.capacity if manifest.bits == 8 else None,
        "base": "reference" if manifest.base.storage is BaseStorage.reference else None,
        "adapters": manifest.base.storage is BaseStorage.zero or None,
        **_opening(manifest),
    }
    if full:
        made |= {"steps": dict(manifest.steps), "widths": dict(manifest.widths) or None}
    return {name: value for name, value in made.items() if value is not None}


def _unless(value: Any, default: Any) -> Any:
    return None if value == default else value


def _sealed_alike(manifest: Manifest) -> int | None:
    """The bits of a bank that was sealed whole; None for another."""
    found = {seal.bits for seal in manifest.sealed.values()}
    used = {task.group for task in manifest.tasks}
    return min(found) if len(found) == 1 and used <= manifest.sealed.keys() else None


def _share(manifest: Manifest) -> str | None:
    found = set(manifest.shares.values())
    return f"1/{min(found)}" if found else None


def _records(manifest: Manifest) -> list[BaseRecord | TaskRecord]:
    return [manifest.base, *manifest.tasks]


def _pickled(manifest: Manifest) -> list[str]:
    """Where the tensors were in each pickle that was read."""
    return [one.pickle for one in _records(manifest) if one.pickle is not None]


def _opening(manifest: Manifest) -> Mapping[str, Any]:
    """What was allowed to be read."""
    pickled = _pickled(manifest)
    keys = set(filter(None, pickled))
    code = any(name.endswith(_CODE) for one in _records(manifest) for name in one.files)
    bare = any(task.layout for task in manifest.tasks)
    bare = bare and not any(task.files for task in manifest.tasks)
    return {
        "allow-pickle": bool(pickled) or None,
        "weights-key": min(keys) if len(keys) == 1 else None,
        "trust-remote-code-files": code or None,
        "safetensors-only": bare or None,
    }


def _not_said(manifest: Manifest, *, full: bool) -> list[str]:
    """What differs in the bank from what its recipe makes."""
    made = []
    if manifest.forgotten:
        made.append(f"{len(manifest.forgotten)} forgotten: their interference is not made again")
    if manifest.sealed and _sealed_alike(manifest) is None:
        made.append("some groups were sealed later: seal them again")
    if any(task.coefficient is not None for task in manifest.tasks):
        made.append("λ were tuned: tune again, or unpack with --lambda")
    if len(set(manifest.shares.values())) > 1:
        made.append("groups have different shares: a recipe has one for all")
    if len(set(filter(None, _pickled(manifest)))) > 1:
        made.append("pickles had their weights under different keys: a recipe has one for all")
    if not full:
        made.append("if the bank was added to, inspect --recipe --full has the steps, too")
    return made
