"""Finds the weights in a folder: one file, shards, variants, or the components of a pipeline.

Nothing here opens a weight file; what is wrong with a folder is said before any is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from randes_cli.errors import CheckpointError
from randes_cli.files.atomic import wrap_os_error
from randes_cli.files.guard import note_input
from randes_cli.files.header import parse_json
from randes_cli.files.quantised import refuse_quantised_config
from randes_cli.files.side_files import PART, STATES, is_safe_name, stays_in, walk

SUFFIXES = (".safetensors", ".st")
#: Endings of pickles that are weights where they lie in a folder, and of such files by themselves.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pth.tar")
PICKLES = (*_PICKLES, ".pt2", ".pkl", ".pickle")
INDEX = ".index.json"
#: What a folder's weights are called, best first (transformers, diffusers, PEFT, OpenCLIP, then
#: the names of pickles), and what pickles are called where they come back.
_STEMS = {
    "model": "model",
    "diffusion_pytorch_model": "diffusion_pytorch_model",
    "adapter_model": "adapter_model",
    "open_clip_model": "open_clip_model",
    "pytorch_model": "model",
    "open_clip_pytorch_model": "open_clip_model",
}
#: Names of weights whose library reads shards through an index.
_SHARDED = re.compile(r"(model|pytorch_model|diffusion_pytorch_model)(\.[\w-]+)?\.safetensors")
_ADAPTERS = ("adapter_model", "pytorch_lora_weights", "adapters.safetensors")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_INDEX_NAME = re.compile(r"(?P<file>.+\.(safetensors|bin))\.index(\.(?P<variant>[\w-]+))?\.json")
#: Pickles that a trainer leaves beside the weights.
_TRAINING = re.compile(
    r"(training_args|optimizer\w*|scheduler\w*|scaler|sampler\w*|random_states_\d+|rng_state\w*)"
    r"\.(bin|pt|pth|pkl)|\..*"
)
_CONVERT = (
    "convert it to safetensors (load it where you trust it, then save_pretrained), "
    "or say --allow-pickle: weights only are read, and no code of the file runs"
)
#: Files that only a folder of parts for many processes has, and what makes one model of them.
_CONVERTERS = {
    "zero_to_fp32.py": "DeepSpeed's parts; make one model of them: python zero_to_fp32.py . out",
    ".metadata": "FSDP's parts; make one model of them: accelerate merge-weights FOLDER out",
}


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
        """The weight files and their index."""
        return {*self.paths, *([self.index[0]] if self.index else [])}


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
    return weight_map(read_json(path), str(path))


def weight_map(index: Any, path: str) -> dict[str, str]:
    """The weight_map of an index of shards, checked; `path` is what messages call the index."""
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{path}: has no weight_map")
    made = {}
    for name, file in weights.items():
        plain = file.removeprefix("./") if isinstance(file, str) else ""
        if plain in ("", ".", "..") or set(plain) & set("/\\\0:"):
            raise CheckpointError(f"{path}: weight_map[{name!a}]: bad file name {str(file)!a}")
        made[name] = plain
    return made


def is_index(name: str) -> bool:
    """An index of shards, with or without a variant: ``….safetensors.index.fp16.json``."""
    return bool(_INDEX_NAME.fullmatch(name))


def index_name(weights: str) -> str:
    """What the index of a sharded weight file is called; a variant stands behind ``index``."""
    stem, _, rest = weights.partition(".")
    variant, dot, suffix = rest.rpartition(".")
    if dot and stem in _STEMS:
        return f"{stem}.{suffix}.index.{variant}.json"
    return weights + INDEX


def takes_shards(weights: str) -> bool:
    """Whether the library that reads a weight file of this name reads it in shards, too."""
    return bool(_SHARDED.fullmatch(weights))


def _index_of(shard: re.Match[str]) -> str:
    return index_name(shard["stem"] + shard["suffix"])


def refuse_pickle(path: Path, *, allow: bool) -> None:
    """Raise CheckpointError for a pickle where the user did not allow pickles."""
    if not allow:
        raise CheckpointError(f"{path}: pickled weights; {_CONVERT}")


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
        shard = _SHARD.fullmatch(path.name)
        if shard is not None and int(shard["count"]) > 1:
            raise CheckpointError(
                f"{path}: one of {int(shard['count'])} shards; name the folder, "
                f"or {_index_of(shard)}"
            )
        return Part(component, (path,), None, target)
    weights = _read_index(path)
    names = sorted(set(weights.values()))
    for name in names:
        if not (path.parent / name).exists():
            raise CheckpointError(f"{path}: shard {name} is missing")
    return Part(component, tuple(path.parent / n for n in names), (path, weights), target)


def folder_parts(folder: Path, *, allow_pickle: bool) -> list[Part]:
    """The weights of a folder: those of the model itself, and of each component below it.

    A sub-folder with weights is a component whether an index names it or not; checkpoints of a
    training run and adapters that lie in a model's folder are none.
    """
    named = _pipeline(folder)
    components = [name for name in named or [] if name and _weight_files(folder / name)]
    root = [""] if named is None or _has_root(folder, named) else []
    below = [name for name in _below(folder) if name not in components] if root or named else []
    if named is None and not _weight_files(folder):
        raise CheckpointError(f"{folder}: {_no_weights(folder)}")
    parts = [
        _model_part(folder, component, allow_pickle=allow_pickle)
        for component in [*root, *components, *below]
    ]
    if not parts:
        raise CheckpointError(f"{folder}: none of its components has weights")
    if below and named is None:
        some = ", ".join(f"{name}/" for name in below[:8])
        text = f"the weights in {some}{' …' if len(below) > 8 else ''} are read as components, too"
        first = parts[0]
        parts[0] = Part(
            first.component, first.paths, first.index, first.target, (*first.notes, text)
        )
    return parts


def _has_root(folder: Path, named: list[str]) -> bool:
    """Whether the root of a folder with an index of components is one of them itself.

    A router of sentence-transformers keeps all its weights in sub-folders.
    """
    if "" not in named:
        return False
    return bool(_weight_files(folder)) or not (folder / "router_config.json").is_file()


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


def _below(folder: Path) -> list[str]:
    """Sub-folders with safetensors weights of a model's part."""
    found: dict[str, bool] = {}
    for path, reason in walk(folder):
        if path.parent == folder or reason or not path.name.endswith(SUFFIXES):
            continue
        name = path.parent.relative_to(folder).as_posix()
        adapter = path.name.startswith(_ADAPTERS)
        found[name] = found.get(name, False) or adapter
    return [name for name, adapter in found.items() if not adapter and is_safe_name(name)]


def _no_weights(folder: Path) -> str:
    """What to say of a folder in which no weights lie."""
    for file, remedy in _CONVERTERS.items():
        places = [folder, *(path for path in _entries(folder) if path.is_dir())]
        if any((place / file).is_file() for place in places):
            return f"holds {remedy}"
    inside = [path.name for path in _entries(folder) if path.is_dir() and _weight_files(path)]
    if inside:
        inside.sort(key=_numbers)
        kind = "checkpoints" if all(map(STATES.fullmatch, inside)) else "folders"
        some = ", ".join(inside[:5]) + (f" and {len(inside) - 5} more" if len(inside) > 5 else "")
        return f"no weights in this folder itself; it holds the {kind} {some}: name one of them"
    return "no safetensors file in this folder"


def _numbers(name: str) -> list[int]:
    """The numbers of a name, by which checkpoint-500 comes before checkpoint-1000."""
    return [int(number) for number in re.findall(r"\d{1,18}", name)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise wrap_os_error(error, folder, "listing") from error


def _weight_files(folder: Path) -> list[Path]:
    """Weight files and indexes, but for the shards that an index names."""
    names = _entries(folder)
    there = {path.name for path in names}
    return [
        path
        for path in names
        if (path.name.endswith((*SUFFIXES, *_PICKLES, ".gguf")) or is_index(path.name))
        and not _TRAINING.fullmatch(path.name)
        and not ((shard := _SHARD.fullmatch(path.name)) and _index_of(shard) in there)
        and not path.is_dir()
    ]


def _model_part(root: Path, component: str, *, allow_pickle: bool) -> Part:
    folder = root / component
    for name in ("config.json", "quantize_config.json", "hf_quant_config.json"):
        if (folder / name).is_file():
            refuse_quantised_config(str(folder), name, read_json(folder / name))
    path, note = _choose(folder, _weight_files(folder))
    file = _target(path)
    if not PART.fullmatch(file):
        note, file = f"{path.name} comes back as model.safetensors", "model.safetensors"
    target = f"{component}/{file}" if component else file
    part = file_part(path, allow_pickle=allow_pickle, component=component, target=target)
    _refuse_others(folder, part)
    for weights in part.files():
        if not stays_in(weights, root):
            raise CheckpointError(
                f"{weights}: a link that leads out of {root}; name the file itself, or copy it"
            )
    notes = (f"{component + ': ' if component else ''}{note}",) if note else ()
    return Part(part.component, part.paths, part.index, part.target, notes)


def _target(path: Path) -> str:
    """What a weight file is called where it comes back: safetensors under its own name."""
    index = _INDEX_NAME.fullmatch(path.name)
    name = path.name if index is None else index["file"]
    if index is not None and index["variant"]:
        stem, _, suffix = name.rpartition(".")
        name = f"{stem}.{index['variant']}.{suffix}"
    if name.endswith(SUFFIXES):
        return name
    for suffix in sorted((*PICKLES, ".tar"), key=len, reverse=True):
        name = name.removesuffix(suffix)
    stem = name.split(".")[0]
    return (
        _STEMS[stem] + name[len(stem) :] + ".safetensors"
        if stem in _STEMS
        else f"{name}.safetensors"
    )


def _refuse_others(folder: Path, part: Part) -> None:
    """Raise where more of the same model lies beside its weights, so that the choice is a guess."""
    used = {path.name for path in part.paths}
    stem = _target(part.index[0] if part.index else part.paths[0]).rpartition(".")[0]
    for path in _entries(folder):
        shard = _SHARD.fullmatch(path.name)
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
                    both = not name.endswith(INDEX) and name + INDEX in names
                    note = f"read {name} and not the shards beside it, as transformers does"
                    return names[name], note if both else ""
        lost = [shard for p in found if _kind(p) == kind if (shard := _many(p))]
        if lost:
            raise CheckpointError(
                f"{folder}: has {len(lost)} of {int(lost[0]['count'])} shards "
                f"({lost[0].string} …) and no index ({_index_of(lost[0])}): get the index, or "
                "save the model anew"
            )
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
    raise CheckpointError(f"{folder}: {_no_weights(folder)}")


def _many(path: Path) -> re.Match[str] | None:
    """The parts of a shard's name, where there are several."""
    shard = _SHARD.fullmatch(path.name)
    return shard if shard is not None and int(shard["count"]) > 1 else None


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


def component_of(name: str, components: Iterable[str]) -> str:
    """The component (the deepest one) whose tensors begin as this name does; "" for none."""
    fits = [one for one in components if one and name.startswith(f"{one}/")]
    return max(fits, key=len, default="")
