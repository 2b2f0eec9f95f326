"""Weight files of a folder: which there are, and what their names say of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from randes_cli.errors import CheckpointError, first_of, some_of
from randes_cli.files.bank.folder import UNPACK
from randes_cli.files.kinds import (
    BANK_SUFFIX,
    OTHER_WEIGHTS,
    SUFFIXES,
    TRAINING,
    is_step_state,
    kind_of_name,
)
from randes_cli.files.local.disk import entries
from randes_cli.files.side_files import STATES, is_safe_name

#: Endings of pickles that are weights where they lie in a folder, and of such files by themselves.
PICKLES_IN_FOLDERS = (".bin", ".pt", ".pth", ".ckpt", ".pth.tar")
PICKLES = (*PICKLES_IN_FOLDERS, ".pt2", ".pkl", ".pickle")
INDEX = ".index.json"
#: The two files of an adapter of PEFT's.
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: What a folder's weights are called, best first (transformers, diffusers, OpenCLIP, then the
#: names of pickles), and what pickles are called where they come back.
STEMS = {
    "model": "model",
    "diffusion_pytorch_model": "diffusion_pytorch_model",
    "open_clip_model": "open_clip_model",
    "pytorch_model": "model",
    "open_clip_pytorch_model": "open_clip_model",
}
#: What is read of a folder, best first: then Mistral's whole model, and PEFT's adapter.
BEST = (*STEMS, "consolidated", "adapter_model")
#: Names of weights whose library reads shards through an index.
_SHARDED = re.compile(r"(model|pytorch_model|diffusion_pytorch_model)(\.[\w-]+)?\.safetensors")
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_INDEX_NAME = re.compile(r"(?P<file>.+\.(safetensors|bin))\.index(\.(?P<variant>[\w-]+))?\.json")
#: Parts of one model's tensors, one for each of several processes (Meta, vLLM, Megatron, torch).
_PROCESS = re.compile(
    r"consolidated\.\d+\.\w+|(.*[-_.])?((mp|tp|pp|model)_?)?rank[-_]?\d+.*"
    r"|shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors"
)
#: Folders that other programs write, and what to do with them.
_OTHERS = {
    "snapshots": "a model in the Hub's cache; name the folder below snapshots/",
    "models--*/snapshots": "the Hub's cache; name a model of it as org/name, or its snapshots/…",
    "iter_*/mp_rank_*": "Megatron's parts; convert them to one Hugging Face checkpoint",
    "mp_rank_*": "Megatron's parts; convert them to one Hugging Face checkpoint",
    "weights/*.distcp": "a distributed checkpoint (NeMo); export it to Hugging Face's format",
    "*.distcp": "a distributed checkpoint; make one model of it (torch.distributed.checkpoint)",
}
#: Endings of files that a downloader is not done with.
_UNFINISHED = (".incomplete", ".aria2", ".part", ".partial", ".crdownload", ".download")
#: Files that only a folder of parts for many processes has, and what makes one model of them.
_CONVERTERS = {
    "zero_to_fp32.py": "DeepSpeed's parts; make one model of them: python zero_to_fp32.py . out",
    ".metadata": "FSDP's parts; make one model of them: accelerate merge-weights FOLDER out",
}


def is_index(name: str) -> bool:
    """An index of shards, with or without a variant: ``….safetensors.index.fp16.json``."""
    return bool(_INDEX_NAME.fullmatch(name))


def index_name(weights: str) -> str:
    """What the index of a sharded weight file is called; a variant stands behind ``index``."""
    stem, _, rest = weights.partition(".")
    variant, dot, suffix = rest.rpartition(".")
    if dot and stem in STEMS:
        return f"{stem}.{suffix}.index.{variant}.json"
    return weights + INDEX


def takes_shards(weights: str) -> bool:
    """Whether the library that reads a weight file of this name reads it in shards, too."""
    return bool(_SHARDED.fullmatch(weights))


def index_of(shard: re.Match[str]) -> str:
    return index_name(shard["stem"] + shard["suffix"])


def target_name(path: Path) -> str:
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
        STEMS[stem] + name[len(stem) :] + ".safetensors" if stem in STEMS else f"{name}.safetensors"
    )


def shard_of_many(path: Path) -> re.Match[str] | None:
    """The parts of a shard's name, where there are several."""
    shard = SHARD.fullmatch(path.name)
    return shard if shard is not None and int(shard["count"]) > 1 else None


def kind_of(path: Path) -> str:
    if path.name.endswith(SUFFIXES) or ".safetensors.index." in path.name:
        return "safetensors"
    return "" if path.name.endswith(".gguf") else "bin"


def variants(found: list[Path], kind: str) -> dict[str, Path]:
    """Files by variant: ``model.fp16.safetensors``, ``model.safetensors.index.fp16.json``."""
    pattern = rf"({'|'.join(STEMS)})\.(?:([\w-]+)\.{kind}|{kind}\.index\.([\w-]+)\.json)"
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


def process_parts(found: Iterable[Path]) -> list[Path]:
    """Files that each hold a part of every tensor, for one of several processes."""
    parts = [path for path in found if _PROCESS.fullmatch(path.name)]
    return parts if len(parts) > 1 else []


def no_weights(folder: Path) -> str:
    """What to say of a folder in which no weights lie."""
    inside = [path.name for path in entries(folder) if path.is_dir() and weight_files(path)]
    parts = [folder, *(path for path in entries(folder) if path.is_dir() and not inside)]
    for file, remedy in _CONVERTERS.items():
        if any((place / file).is_file() for place in parts):
            return f"holds {remedy}"
    for pattern, what in _OTHERS.items():
        if any(folder.glob(pattern)):
            return f"holds {what}"
    banks = [str(path) for path in entries(folder) if path.suffix == BANK_SUFFIX]
    if banks:
        return f"no weights in this folder, but the bank {first_of(banks, 3)} ({UNPACK})"
    if inside:
        inside.sort(key=_numbers)
        kind = "checkpoints" if all(map(STATES.fullmatch, inside)) else "folders"
        some = some_of(inside, 5)
        return f"no weights in this folder itself; it holds the {kind} {some}: name one of them"
    waiting = [path.name for path in entries(folder) if path.name.endswith(_UNFINISHED)]
    if waiting:
        return f"no weights in this folder, but a download that is not complete ({waiting[0]})"
    others = [path.name for path in entries(folder) if kind_of_name(path.name) == OTHER_WEIGHTS]
    some = first_of(others, 3)
    return "no safetensors file in this folder" + (f", but other weights ({some})" if some else "")


def _numbers(name: str) -> list[int]:
    """The numbers of a name, by which checkpoint-500 comes before checkpoint-1000."""
    return [int(number) for number in re.findall(r"\d{1,18}", name)]


def weight_files(folder: Path) -> list[Path]:
    """Weight files and indexes, but for the shards that an index names."""
    names = entries(folder)
    there = {path.name for path in names}
    return [
        path
        for path in names
        if (path.name.endswith((*SUFFIXES, *PICKLES_IN_FOLDERS, ".gguf")) or is_index(path.name))
        and not (path.name.startswith(".") or TRAINING.fullmatch(path.name))
        and not is_step_state(path.name)
        and not ((shard := SHARD.fullmatch(path.name)) and index_of(shard) in there)
        and not path.is_dir()
    ]


def weight_map(index: Any, path: str) -> dict[str, str]:
    """The weight_map of an index of shards, checked; `path` is what messages call the index."""
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{path}: has no weight_map")
    made = {}
    for name, file in weights.items():
        plain = file.removeprefix("./") if isinstance(file, str) else ""
        if plain in ("", ".", "..") or (set(plain) & set("/\\\0:") and not is_safe_name(plain)):
            raise CheckpointError(f"{path}: weight_map[{name!r}]: bad file name {str(file)!r}")
        made[name] = plain
    return made
