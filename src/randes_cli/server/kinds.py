"""What the tasks of a bank are for, and which of them one model can answer for."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import transformers

from randes_cli.api import Bank
from randes_cli.errors import CheckpointError, MissingError, RandesError
from randes_cli.files.local.disk import wrap_os_error
from randes_cli.live.lazy import side_folder

#: What a config says that does not change what a model computes, or that is each task's own.
_FREE = frozenset(
    (
        *("transformers_version", "torch_dtype", "dtype", "name_or_path", "id2label", "label2id"),
        *("num_labels", "problem_type", "vocab_size", "bos_token_id", "eos_token_id", "use_cache"),
        *("task_specific_params", "finetuning_task", "architectures", "output_attentions"),
        *("output_hidden_states", "return_dict", "tokenizer_class", "initializer_range"),
    )
)


class Kind(str, Enum):
    """What a task answers."""

    generate = "generate"
    embed = "embed"
    classify = "classify"


@dataclass(frozen=True, slots=True)
class Nature:
    """A task's network, by its config.

    Attributes:
        kind: None where nothing here can serve it.
        architecture: the class that its config names.
        sentence: whether it is a sentence-transformers model.
        home: the folder of its network inside that model's.
        key: equal for tasks that one model answers for.
        why: it is served by nothing here, where it is not.
    """

    kind: Kind | None
    architecture: str
    sentence: bool
    home: str
    key: str
    config: Any
    generation: Any
    why: str


#: Layers of sentence-transformers that may follow a network.
_LAYERS = frozenset(("Pooling", "Dense", "Normalize", "LayerNorm", "Dropout"))
#: What is no fault of the file that a library reads.
_OF_THE_SYSTEM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EIO)


@contextmanager
def small_files(bank: Bank, task: str | None) -> Iterator[None]:
    """A block in which libraries read what travels with a task (None: the base).

    Raises CheckpointError where they stumble over it, in whatever way, and what is raised where
    the system has no more files, memory or room.
    """
    try:
        yield
    except (RandesError, MemoryError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
            where = str(error.filename or bank.file.path)
            raise wrap_os_error(error, where, "loading a config or tokenizer") from error
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise CheckpointError(
            f"{bank.file.path}: the config or tokenizer of {task or 'the base'} cannot be loaded "
            f"({type(error).__name__}: {said})"
        ) from error


def nature_of(bank: Bank, task: str | None) -> Nature:
    """What a task (None: the base) is.

    Raises MissingError where no config travels with it, CheckpointError where that is none.
    """
    with small_files(bank, task):
        return _nature_of(bank, task)


def _nature_of(bank: Bank, task: str | None) -> Nature:
    with side_folder(bank, task, code=False) as folder:
        sentence, home, why = _sentence(folder)
        if why:
            return Nature(None, "", sentence, home, "", None, None, why)
        place = folder / home
        if not (place / "config.json").exists():
            raise MissingError(
                f"{bank.file.path}: no config.json travels with {task or 'the base'}; pack "
                "folders, not bare files, so that a server knows what to build"
            )
        config = transformers.AutoConfig.from_pretrained(place)
        generation = _generation(place, config)
    names = [str(name) for name in config.architectures or []]
    architecture = next((name for name in names if hasattr(transformers, name)), "")
    kind = _kind(architecture, config, sentence)
    if kind is None:
        why = (
            f"a {architecture or 'model of no class of transformers'} is neither served as a text "
            "generator, nor as an encoder, nor as a classifier"
        )
    key = _key(config, architecture, [sentence, home])
    return Nature(kind, architecture, sentence, home, key, config, generation, why)


def _sentence(folder: Path) -> tuple[bool, str, str]:
    """Whether it is an encoder of sentence-transformers, the folder of its network (old ones have
    one), and why it is not served, if it is not.

    A cross-encoder of one network is a classifier as transformers has them.
    """
    if not (folder / "modules.json").exists():
        return False, "", ""
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    first, *behind = (str(module["type"]).rpartition(".")[2] for module in modules)
    whole = folder.resolve()
    place = (whole / str(modules[0].get("path") or "")).resolve()
    inside = place != whole and place.is_relative_to(whole)
    home = place.relative_to(whole).as_posix() if inside else ""
    kind = _type_of(folder)
    if kind == "CrossEncoder" and (first, behind, home) == ("Transformer", [], ""):
        return False, "", ""
    strange = [layer for layer in behind if layer not in _LAYERS]
    if kind != "SentenceTransformer":
        return True, home, f"a {kind} of sentence-transformers is not served"
    if first != "Transformer" or strange:
        layer = first if first != "Transformer" else strange[0]
        return True, home, f"sentence-transformers' layer {layer} is not served"
    return True, home, ""


def _type_of(folder: Path) -> str:
    """The class that a folder of sentence-transformers is saved by."""
    told = folder / "config_sentence_transformers.json"
    found = json.loads(told.read_text("utf-8")) if told.exists() else {}
    return str(found.get("model_type", "SentenceTransformer"))


def _generation(place: Path, config: Any) -> Any:
    read = transformers.GenerationConfig
    if (place / "generation_config.json").exists():
        return read.from_pretrained(place)
    return read.from_model_config(config)


def _kind(architecture: str, config: Any, sentence: bool) -> Kind | None:
    found = getattr(transformers, architecture, None)
    if found is None or getattr(config, "is_encoder_decoder", False):
        return None
    if found.main_input_name != "input_ids":
        return None
    if sentence:
        return Kind.embed
    if architecture.endswith("ForSequenceClassification"):
        return Kind.classify
    if found.can_generate():
        return Kind.generate
    return Kind.embed if architecture.endswith("Model") else None


def _key(config: Any, architecture: str, where: list[Any]) -> str:
    said: Mapping[str, Any] = config.to_dict()
    counts = {k: v for k, v in said.items() if k not in _FREE and not k.startswith("_")}
    return json.dumps([architecture, where, counts], sort_keys=True, default=str)


def context_of(config: Any, model: Any) -> int | None:
    """The most tokens that a network has positions for; None where it says nothing."""
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"):
        found = getattr(config, name, None)
        if isinstance(found, int) and found > 0:
            return found - _positions_taken(model)
    return None


def _positions_taken(model: Any) -> int:
    """Positions before the first: networks like RoBERTa's count from behind their padding."""
    for module in model.modules():
        if type(module).__name__.endswith("Embeddings") and hasattr(module, "position_ids"):
            padding = getattr(module, "padding_idx", None)
            return 0 if padding is None else int(padding) + 1
    return 0


def ends_of(nature: Nature, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer, as `generate` takes them."""
    found = nature.generation.eos_token_id
    if found is None:
        found = nature.config.eos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, (list, tuple)) else (found,))
