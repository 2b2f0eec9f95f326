"""Finds the weights in a folder: one file, shards, variants, or the components of a pipeline.

Nothing here opens a weight file; what is wrong with a folder is said before any is read.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from randes_cli.errors import CheckpointError, first_of
from randes_cli.files.bank.folder import UNPACK, bank_of_shards, is_shard_folder
from randes_cli.files.checkpoint.foreign import refuse_pickle, refuse_unfinished
from randes_cli.files.checkpoint.quantised import refuse_quantised_config
from randes_cli.files.header import parse_json
from randes_cli.files.kinds import SUFFIXES, other_file
from randes_cli.files.local.disk import entries, system_errors
from randes_cli.files.local.guard import note_input
from randes_cli.files.local.system import resolved
from randes_cli.files.side_files import is_safe_name, stays_in, walk
from randes_cli.files.weight_names import (
    BEST,
    INDEX,
    PICKLES,
    SHARD,
    index_of,
    is_index,
    kind_of,
    no_weights,
    process_parts,
    shard_of_many,
    target_name,
    variants,
    weight_files,
    weight_map,
)
from randes_cli.specs import OpenOptions

_ADAPTERS = ("adapter_model", "pytorch_lora_weights", "adapters.safetensors")


@dataclass(frozen=True, slots=True)
class Part:
    """The weight files of one component.

    Attributes:
        component: sub-folder of a pipeline, or "" where the folder is one model.
        paths: the files that hold its tensors.
        index: the index file that names the shards, and its weight_map; None for one file.
        target: where it comes back, from the folder's root: its own name, shards as one file.
        notes: what was chosen among several, in words.
    """

    component: str
    paths: tuple[Path, ...]
    index: tuple[Path, Mapping[str, str]] | None
    target: str
    notes: tuple[str, ...] = ()

    def files(self) -> set[Path]:
        return {*self.paths, *([self.index[0]] if self.index else [])}


def read_json(path: Path, *, strict: bool = False) -> Any:
    """A JSON file of a checkpoint, see `parse_json`. Raises CheckpointError naming it."""
    note_input(path)
    with system_errors(path, "reading"):
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise CheckpointError(f"{path}: not a regular file")
        data = path.read_bytes()
    try:
        return parse_json(data, strict=strict)
    except ValueError as error:
        mark = "begins with a byte order mark: save it without" if data[:3] == BOM_UTF8 else None
        why = mark or other_file(data) or ("an empty file" if not data else error)
        raise CheckpointError(f"{path}: {why}") from None


def _read_index(path: Path) -> dict[str, str]:
    """The weight_map of a sharded checkpoint, with file names checked."""
    return weight_map(read_json(path, strict=True), str(path))


def file_part(path: Path, *, allow_pickle: bool, component: str = "", target: str = "") -> Part:
    """The part that a weight file or an index stands for."""
    kind = path.name.rpartition(".index")[0] if is_index(path.name) else path.name
    if kind.endswith(PICKLES):
        refuse_pickle(path, allow=allow_pickle)
    if path.name.endswith(".gguf"):
        raise CheckpointError(
            f"{path}: a GGUF file: quantised weights; give the original safetensors checkpoint"
        )
    if not is_index(path.name):
        shard = SHARD.fullmatch(path.name)
        if shard is not None and int(shard["count"]) > 1:
            raise CheckpointError(
                f"{path}: one of {int(shard['count'])} shards; name the folder, "
                f"or {index_of(shard)}"
            )
        refuse_unfinished([path])
        return Part(component, (path,), None, target)
    weights = _read_index(path)
    names = sorted(set(weights.values()))
    for name in names:
        if not (path.parent / name).exists():
            raise CheckpointError(f"{path}: shard {name} is missing")
    refuse_unfinished(path.parent / name for name in names)
    return Part(component, tuple(path.parent / n for n in names), (path, weights), target)


def folder_parts(folder: Path, options: OpenOptions) -> list[Part]:
    """The weights of a folder: those of the model itself, and of each component below it.

    A sub-folder with weights is a component whether an index names it or not; checkpoints of a
    training run and adapters that lie in a model's folder are none.
    """
    if is_shard_folder(folder):
        raise CheckpointError(f"{folder}: {bank_of_shards(folder)} ({UNPACK})")
    named = _pipeline(folder)
    components = [name for name in named or [] if name and weight_files(folder / name)]
    root = [""] if named is None or _has_root(folder, named) else []
    alone = _is_adapter(weight_files(folder))  # what lies below it are models of their own
    below = _below(folder, options.apart) if (root or named) and not alone else []
    below = [name for name in below if name not in components]
    if named is None and not weight_files(folder):
        raise CheckpointError(f"{folder}: {no_weights(folder)}")
    there, asked = [*root, *components, *below], options.components
    # An adapter that was merged has the layout of its base, and none of its components.
    chosen = [name for name in there if asked is None or name in asked] or there
    parts = [_model_part(folder, name, allow_pickle=options.allow_pickle) for name in chosen]
    if not parts:
        raise CheckpointError(f"{folder}: none of its components has weights")
    _refuse_case_twins(folder, parts)
    if below and named is None and options.components is None:
        some = first_of([f"{name}/" for name in below], 8)
        text = f"the weights in {some} are read as components, too"
        parts[0] = replace(parts[0], notes=(*parts[0].notes, text))
    return parts


def _refuse_case_twins(folder: Path, parts: Collection[Part]) -> None:
    """Raise for components that many systems could not tell apart where they come back."""
    known: dict[str, str] = {}
    for part in parts:
        other = known.setdefault(part.component.lower(), part.component)
        if other != part.component:
            raise CheckpointError(
                f"{folder}: the components {other}/ and {part.component}/ differ in case alone; "
                "rename one of them"
            )


def _has_root(folder: Path, named: list[str]) -> bool:
    """Whether the root of a folder with an index of components is one of them itself.

    A router of sentence-transformers keeps all its weights in sub-folders.
    """
    if "" not in named:
        return False
    return bool(weight_files(folder)) or not (folder / "router_config.json").is_file()


def _pipeline(folder: Path) -> list[str] | None:
    """Component folders of a diffusers pipeline or a sentence-transformers model, or None."""
    names: list[str] = []
    if (folder / "model_index.json").is_file():
        index = read_json(folder / "model_index.json")
        if isinstance(index, dict):
            names = [name for name in index if not name.startswith("_")]
    elif (folder / "modules.json").is_file():
        modules = read_json(folder / "modules.json")
        if isinstance(modules, list):
            paths = [module.get("path") for module in modules if isinstance(module, dict)]
            names = [path.rstrip("/") for path in paths if isinstance(path, str)]
    else:
        return None
    safe = [name for name in names if not name or is_safe_name(name)]
    return [name for name in safe if (folder / name).is_dir()]


def _is_adapter(found: Collection[Path]) -> bool:
    """Whether a folder's weights are an adapter and no model."""
    return bool(found) and all(path.name.startswith(_ADAPTERS) for path in found)


def _below(folder: Path, apart: Collection[str]) -> list[str]:
    """Sub-folders with safetensors weights of a model's part, but for shards of the model."""
    found: dict[str, bool] = {}
    own = {folder}
    for index in (path for path in weight_files(folder) if is_index(path.name)):
        with suppress(CheckpointError):  # said where it is the one to read
            own |= {(folder / name).parent for name in _read_index(index).values()}
    for path, reason in walk(folder, apart):
        if path.parent in own or reason or not path.name.endswith(SUFFIXES):
            continue
        name = path.parent.relative_to(folder).as_posix()
        adapter = path.name.startswith(_ADAPTERS)
        found[name] = found.get(name, False) or adapter
    return [name for name, adapter in found.items() if not adapter and is_safe_name(name)]


def _model_part(root: Path, component: str, *, allow_pickle: bool) -> Part:
    folder = root / component
    found = weight_files(folder)
    adapter = _is_adapter(found)
    for name in ("config.json", "quantize_config.json", "hf_quant_config.json"):
        if (folder / name).is_file() and not adapter:  # beside one it is of the base
            refuse_quantised_config(str(folder), name, read_json(folder / name))
    path, note = _choose(folder, found)
    file = target_name(path)
    if not is_safe_name(file):
        note, file = f"{path.name} comes back as model.safetensors", "model.safetensors"
    target = f"{component}/{file}" if component else file
    part = file_part(path, allow_pickle=allow_pickle, component=component, target=target)
    _refuse_others(folder, part)
    for weights in part.files():
        if not stays_in(weights, root):
            where = f"leads out of {root}; name the file itself, or copy it"
            gone = None if weights.exists() else f"leads to {resolved(weights)}, which is not there"
            raise CheckpointError(f"{weights}: a link that {gone or where}")
    notes = (f"{component + ': ' if component else ''}{note}",) if note else ()
    return replace(part, notes=notes)


def _refuse_others(folder: Path, part: Part) -> None:
    """Raise where more of the same model lies beside its weights, so that the choice is a guess."""
    used = {path.name for path in part.paths}
    stem = target_name(part.index[0] if part.index else part.paths[0]).rpartition(".")[0]
    for path in entries(folder):
        shard = SHARD.fullmatch(path.name)
        if path.name in used or not path.name.endswith(SUFFIXES):
            continue
        if shard is not None and part.index is not None and shard["stem"] == stem:
            raise CheckpointError(
                f"{path}: a shard that {part.index[0].name} does not name; of another save? "
                "remove it"
            )
        if re.fullmatch(rf"{re.escape(stem)}_\d+", path.stem):
            raise CheckpointError(
                f"{path}: weights of a second model beside {stem}{path.suffix}; name the file "
                "that you mean"
            )


def _has_shards(index: Path | None, whole: str) -> bool:
    """Whether an index beside a whole file names others (mlx writes one of the file itself)."""
    with suppress(CheckpointError):
        return index is not None and set(_read_index(index).values()) != {whole}
    return True


def _choose(folder: Path, found: list[Path]) -> tuple[Path, str]:
    """The weight file or index to read, and what to say of the choice.

    A whole file before shards, as transformers has it; safetensors before pickles; what has
    no variant before what has one; a model before an adapter.
    """
    names = {path.name: path for path in found}
    for kind in ("safetensors", "bin"):
        for stem in BEST:
            for name in (f"{stem}.{kind}", f"{stem}.{kind}{INDEX}"):
                if name in names:
                    note = f"read {name} and not the shards beside it, as transformers does"
                    return names[name], note if _has_shards(names.get(name + INDEX), name) else ""
        lost = [shard for p in found if kind_of(p) == kind if (shard := shard_of_many(p))]
        if lost:
            raise CheckpointError(
                f"{folder}: has {len(lost)} of {int(lost[0]['count'])} shards "
                f"({lost[0].string} …) and no index ({index_of(lost[0])}): get the index, or "
                "save the model anew"
            )
        several = variants(found, kind)
        if len(several) == 1:
            ((variant, path),) = several.items()
            return path, f"only the variant {variant} is there: read {path.name}"
        if several:
            raise CheckpointError(
                f"{folder}: has the variants {', '.join(sorted(several))}; name one file"
            )
        if len(tensors := [p for p in found if kind_of(p) == kind]) == 1:
            return tensors[0], ""
        if parts := process_parts(tensors):
            raise CheckpointError(
                f"{folder}: has {len(parts)} parts of one model, one for each process "
                f"({parts[0].name} …); join them with the program that wrote them"
            )
        if tensors:
            some = ", ".join(path.name for path in tensors[:3])
            raise CheckpointError(f"{folder}: has {len(tensors)} weight files ({some}); name one")
    if found:
        return found[0], ""
    raise CheckpointError(f"{folder}: {no_weights(folder)}")
