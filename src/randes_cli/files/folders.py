"""Finds the weights in a folder: one file, shards, variants, or the components of a pipeline.

Nothing here opens a weight file; what is wrong with a folder is said before any is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from randes_cli.errors import CheckpointError
from randes_cli.files.atomic import wrap_os_error
from randes_cli.files.guard import note_input
from randes_cli.files.header import parse_json
from randes_cli.files.quantised import refuse_quantised_config

SUFFIXES = (".safetensors", ".st")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
INDEX = ".index.json"
#: What a folder's weights are called, best first (transformers, diffusers, PEFT, OpenCLIP, then
#: the names of pickles), and what they are called where they come back.
_STEMS = {
    "model": "model",
    "diffusion_pytorch_model": "diffusion_pytorch_model",
    "adapter_model": "adapter_model",
    "open_clip_model": "open_clip_model",
    "pytorch_model": "model",
    "open_clip_pytorch_model": "open_clip_model",
}
#: File names that weights have where they come back.
TARGETS = frozenset(f"{stem}.safetensors" for stem in _STEMS.values())
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_CONVERT = (
    "convert it to safetensors (load it where you trust it, then save_pretrained), "
    "or say --allow-pickle: weights only are read, and no code of the file runs"
)


@dataclass(frozen=True, slots=True)
class Part:
    """The weight files of one component.

    Attributes:
        component: sub-folder of a pipeline, or "" where the folder is one model.
        paths: the files that hold its tensors.
        index: the index file that names the shards, and its weight_map; None for one file.
        target: where it comes back, from the folder's root: always safetensors, no variant.
        notes: what was chosen among several, in words.
    """

    component: str
    paths: tuple[Path, ...]
    index: tuple[Path, Mapping[str, str]] | None
    target: str
    notes: tuple[str, ...] = ()


def read_json(path: Path) -> Any:
    """A JSON file of a checkpoint. Raises CheckpointError naming it."""
    note_input(path)
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise wrap_os_error(error, path, "reading") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _read_index(path: Path) -> dict[str, str]:
    """The weight_map of a sharded checkpoint, with file names checked."""
    index = read_json(path)
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{path}: has no weight_map")
    for name, file in weights.items():
        if not isinstance(file, str) or file in ("", ".", "..") or set(file) & set("/\\\0:"):
            raise CheckpointError(f"{path}: weight_map[{name!a}]: bad file name {str(file)!a}")
    return weights


def _is_index(path: Path) -> bool:
    """An index of shards, with or without a variant: ``….safetensors.index.fp16.json``."""
    return bool(re.search(r"\.(safetensors|bin)\.index(\.[\w-]+)?\.json$", path.name))


def file_part(path: Path, *, allow_pickle: bool, component: str = "", target: str = "") -> Part:
    """The part that a weight file or an index stands for."""
    kind = path.name.rpartition(".index")[0] if _is_index(path) else path.name
    if kind.endswith(PICKLES) and not allow_pickle:
        raise CheckpointError(f"{path}: pickled weights; {_CONVERT}")
    if path.name.endswith(".gguf"):
        raise CheckpointError(
            f"{path}: a GGUF file: quantised weights; give the original safetensors checkpoint"
        )
    if not _is_index(path):
        return Part(component, (path,), None, target)
    weights = _read_index(path)
    names = sorted(set(weights.values()))
    for name in names:
        if not (path.parent / name).exists():
            raise CheckpointError(f"{path}: shard {name} is missing")
    return Part(component, tuple(path.parent / n for n in names), (path, weights), target)


def folder_parts(folder: Path, *, allow_pickle: bool) -> list[Part]:
    """The weights of a folder: one part, or one for each component of a pipeline."""
    components = _pipeline(folder)
    if components is None:
        return [_model_part(folder, "", allow_pickle=allow_pickle)]
    parts = [
        _model_part(folder, component, allow_pickle=allow_pickle)
        for component in components
        if component == "" or _weight_files(folder / component)
    ]
    if not parts:
        raise CheckpointError(f"{folder}: none of its components has weights")
    return parts


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
            names = [path for path in paths if isinstance(path, str)]
    else:
        return None
    safe = [name for name in names if re.fullmatch(r"[\w-][\w.-]*|", name)]
    return [name for name in safe if (folder / name).is_dir()]


def _weight_files(folder: Path) -> list[Path]:
    """Weight files and indexes, but for the shards."""
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        raise wrap_os_error(error, folder, "listing") from error
    weights = [p for p in names if p.name.endswith((*SUFFIXES, *PICKLES, ".gguf")) or _is_index(p)]
    others = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt")
    return [
        p
        for p in weights
        if not (_SHARD.search(p.stem) and any(map(_is_index, weights)))
        and p.name not in others
        and not p.name.startswith(("rng_state", "."))
    ]


def _model_part(root: Path, component: str, *, allow_pickle: bool) -> Part:
    folder = root / component
    if (folder / "config.json").is_file():
        refuse_quantised_config(str(folder), read_json(folder / "config.json"))
    path, note = _choose(folder, _weight_files(folder))
    stem = _STEMS.get(path.name.split(".")[0], "model")
    target = f"{component}/{stem}.safetensors" if component else f"{stem}.safetensors"
    part = file_part(path, allow_pickle=allow_pickle, component=component, target=target)
    notes = (f"{component + ': ' if component else ''}{note}",) if note else ()
    return Part(part.component, part.paths, part.index, part.target, notes)


def _choose(folder: Path, found: list[Path]) -> tuple[Path, str]:
    """The weight file or index to read, and what to say of the choice.

    A whole file before shards, as transformers has it; safetensors before pickles; what has
    no variant before what has one.
    """
    names = {path.name: path for path in found}
    for kind in ("safetensors", "bin"):
        for stem in _STEMS:
            for name in (f"{stem}.{kind}", f"{stem}.{kind}{INDEX}"):
                if name in names:
                    return names[name], ""
        variants = _variants(found, kind)
        if len(variants) == 1:
            ((variant, path),) = variants.items()
            return path, f"only the variant {variant} is there: read {path.name}"
        if variants:
            raise CheckpointError(
                f"{folder}: has the variants {', '.join(sorted(variants))}; name one file"
            )
        if len(tensors := [p for p in found if _kind(p) == kind]) == 1:
            return tensors[0], ""
        if tensors:
            some = ", ".join(path.name for path in tensors[:3])
            raise CheckpointError(f"{folder}: has {len(tensors)} weight files ({some}); name one")
    if found:
        return found[0], ""
    raise CheckpointError(f"{folder}: no safetensors file in this folder")


def _kind(path: Path) -> str:
    if path.name.endswith(SUFFIXES) or ".safetensors.index." in path.name:
        return "safetensors"
    return "" if path.name.endswith(".gguf") else "bin"


def _variants(found: list[Path], kind: str) -> dict[str, Path]:
    """Files by variant: ``model.fp16.safetensors``, ``model.safetensors.index.fp16.json``."""
    pattern = rf"({'|'.join(_STEMS)})\.(?:([\w-]+)\.{kind}|{kind}\.index\.([\w-]+)\.json)"
    made: dict[str, Path] = {}
    for path in found:
        match = re.fullmatch(pattern, path.name)
        if match:
            made.setdefault(match[2] or match[3], path)
    return made
