"""`from_bank` for transformers: its own `from_pretrained`, fed tensors that come as asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from randes_cli.api import Bank
from randes_cli.errors import MissingError, UsageError
from randes_cli.files.checkpoint.folders import read_json
from randes_cli.live.lazy import Whole, lazy_components, opened, side_folder
from randes_cli.live.opening.redirected import Given, Redirection

#: What turns inputs into tensors, by the small file that tells of it; a processor has all.
_PREPARE = (
    ("processor_config.json", "AutoProcessor"),
    ("tokenizer_config.json", "AutoTokenizer"),
    ("video_preprocessor_config.json", "AutoVideoProcessor"),
    ("preprocessor_config.json", "AutoImageProcessor"),
    *((words, "AutoTokenizer") for words in ("tokenizer.json", "vocab.txt", "vocab.json")),
)
#: What `from_pretrained` is told of files, of which there are none.
_OF_FILES = ("subfolder", "cache_dir", "revision", "token", "local_files_only", "variant")


def from_bank(
    bank: Bank | str | Path,
    task: str | None = None,
    *,
    cls: type[Any] | None = None,
    base: str | None = None,
    coefficient: float | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Any:
    """A task of a bank as its transformers model; None is the base itself.

    What `unpack` and `from_pretrained` would give, tensor for tensor, without a folder of
    weights: each tensor is retrieved when the model takes it, so that memory peaks at one model.

    `bank` is a path, a bank on the Hub (``org/name``) or an open `Bank`; `base` the base's
    checkpoint where it lies outside the bank and has moved. `cls` is the class to build in
    place of the one that the config names. `options` go to `from_pretrained`: ``dtype``,
    ``device_map``, ``attn_implementation``, ``config``, ``quantization_config`` …, and values
    of the config.

    Raises MissingError for an unknown task, or where no config says what to build; UsageError
    for a pipeline, an adapter or a model of code that is not trusted.
    """
    with opened(bank, base) as found:
        whole = Whole(found.retrieval(task, coefficient=coefficient))
        parts = lazy_components(whole)
        if len(parts) > 1:
            raise UsageError(
                f"{found.file.path}: {whole.retrieval.task.name} has components "
                f"({', '.join(sorted(parts))}); see randes_cli.diffusers"
            )
        (state,) = parts.values()
        with side_folder(found, task, code=trust_remote_code) as folder:
            adapter, model = folder / "adapter_config.json", folder / "config.json"
            if adapter.exists() and not model.exists():
                raise UsageError(
                    f"{found.file.path}: {whole.retrieval.task.name} is an adapter, not a model: "
                    "unpack it for PeftModel.from_pretrained, or pack adapters with their base"
                )
            kind = cls or _class(options.get("config"), folder, whole, trusted=trust_remote_code)
            options["trust_remote_code"] = trust_remote_code
            with MODELS.giving({folder: Given(state, whole)}):
                made = kind.from_pretrained(folder, **options)
    return made


def processor_from_bank(
    bank: Bank | str | Path, task: str | None = None, *, trust_remote_code: bool = False, **o: Any
) -> Any:
    """The processor, tokenizer or image processor that travels with a task (None: the base).

    Raises MissingError where there is none.
    """
    with opened(bank) as found, side_folder(found, task, code=trust_remote_code) as folder:
        for file, kind in _PREPARE:
            if (folder / file).exists():
                auto = getattr(transformers, kind)
                return auto.from_pretrained(folder, trust_remote_code=trust_remote_code, **o)
        raise MissingError(f"{found.file.path}: {task or 'the base'} has no tokenizer or processor")


def has_processor(files: Collection[str]) -> bool:
    """Whether there is one among these side files of a folder."""
    return any(file in files for file, _ in _PREPARE)


def _replace() -> Callable[[], object]:
    """Let `from_pretrained` look for models that are given. Returns what undoes it."""
    owner, name = transformers.PreTrainedModel, "from_pretrained"
    before = owner.__dict__[name]

    def load(kind: type[Any], path: Any, *more: Any, **options: Any) -> Any:
        place = Path(str(path), options.get("subfolder") or "") if path else None
        given = MODELS.at(place)
        if place is None or given is None:
            return before.__func__(kind, path, *more, **options)
        for said in _OF_FILES:
            options.pop(said, None)
        make = partial(before.__func__, kind, None, *more)
        return _filled(make, place, given, options)

    setattr(owner, name, classmethod(load))
    return lambda: setattr(owner, name, before)


#: Models of transformers that are filled from a bank, by the folder of their config.
MODELS = Redirection(_replace)


def _filled(make: Callable[..., Any], folder: Path, given: Given, options: dict[str, Any]) -> Any:
    """A model of the config in `folder` (or the option ``config``) with tensors of a bank."""
    state, whole = given
    if options.get("config") is None:
        options["config"] = _there(folder, whole)
    try:  # in a file's order: of a config without a dtype the first tensor's is taken
        made = make(state_dict=dict(sorted(state.items())), **options)
    except Exception:
        if whole.error is not None:
            raise whole.error from None
        raise
    if whole.error is not None:
        raise whole.error
    model = made[0] if isinstance(made, tuple) else made
    if options.get("generation_config") is None and model.can_generate():
        model.generation_config = _generation(folder, model, options)
    source = f"{whole.retrieval.bank.path}:{whole.retrieval.task.name}"
    model.name_or_path = model.config.name_or_path = source
    return made


def _generation(folder: Path, model: Any, options: Mapping[str, Any]) -> Any:
    """How a model generates: as its file says, or what its config says of it."""
    read = transformers.GenerationConfig.from_pretrained
    said = {
        name: value for name, value in options.items() if hasattr(model.generation_config, name)
    }
    if (folder / "generation_config.json").exists():
        return read(folder, **said)
    if (folder / "config.json").exists():
        return read(folder, config_file_name="config.json", _from_model_config=True, **said)
    return model.generation_config


def _there(folder: Path, whole: Whole) -> Path:
    """The folder, if it has a config. Raises MissingError."""
    if not (folder / "config.json").exists():
        raise MissingError(
            f"{whole.retrieval.bank.path}: no config.json travels with "
            f"{whole.retrieval.task.name}; say config=, or fill a model with Bank.load_into"
        )
    return folder


def _config(folder: Path, whole: Whole, *, trusted: bool) -> Any:
    said = read_json(_there(folder, whole) / "config.json")
    own = "AutoConfig" in (said.get("auto_map") or {})
    if own and not trusted and said.get("model_type") not in transformers.CONFIG_MAPPING:
        raise UsageError(
            f"{whole.retrieval.bank.path}: {whole.retrieval.task.name} is a model of code of its "
            "own: trust_remote_code=True runs it, where it came along"
        )
    return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trusted)


def _class(given: Any, folder: Path, whole: Whole, *, trusted: bool) -> type[Any]:
    """The class that the config names: of transformers, or of the code that came along.

    A config that is given and names none is one for the class that travels.
    """
    config = given if isinstance(given, transformers.PreTrainedConfig) else None
    if not getattr(config, "architectures", None):
        config = _config(folder, whole, trusted=trusted)
    names = [str(name) for name in getattr(config, "architectures", None) or []]
    if trusted:
        for reference in (getattr(config, "auto_map", None) or {}).values():
            if str(reference).rpartition(".")[2] in names:
                code: type[Any] = get_class_from_dynamic_module(reference, folder)
                return code
    for name in names:
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    raise UsageError(
        f"{whole.retrieval.bank.path}: {whole.retrieval.task.name} is a "
        f"{' or '.join(names) or 'model of no named class'}, which transformers does not have: "
        "say cls=, or trust_remote_code=True where its code came along"
    )
