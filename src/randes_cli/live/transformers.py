"""`from_bank` for transformers: its own `from_pretrained`, fed tensors that come as asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from randes_cli.api import Bank
from randes_cli.errors import MissingError, UsageError
from randes_cli.live.lazy import Lazy, Whole, lazy_components, opened, side_folder

#: What turns inputs into tensors, by the small file that tells of it; a processor has all.
_PREPARE = (
    ("processor_config.json", "AutoProcessor"),
    ("tokenizer_config.json", "AutoTokenizer"),
    ("video_preprocessor_config.json", "AutoVideoProcessor"),
    ("preprocessor_config.json", "AutoImageProcessor"),
    *((words, "AutoTokenizer") for words in ("tokenizer.json", "vocab.txt", "vocab.json")),
)


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
    ``device_map``, ``attn_implementation``, ``config`` … Offloading to disk is not possible.

    Raises MissingError for an unknown task, or where no config says what to build; UsageError
    for a pipeline or a model of code that is not trusted.
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
            options["trust_remote_code"] = trust_remote_code
            made = build(folder, state, whole, cls=cls, **options)
    _rename(made, f"{found.file.path}:{whole.retrieval.task.name}")
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


def build(
    folder: Path,
    state: Mapping[str, Lazy],
    whole: Whole,
    *,
    cls: type[Any] | None = None,
    **options: Any,
) -> Any:
    """A model of the config in `folder` (or the option ``config``) with these tensors."""
    trusted = options.pop("trust_remote_code", False)
    config = options.pop("config", None)
    if config is None:
        config = _config(folder, whole, trust_remote_code=trusted)
    kind = cls or _class(config, folder, whole, trust_remote_code=trusted)
    given = options.get("generation_config")
    try:
        made = kind.from_pretrained(None, config=config, state_dict=dict(state), **options)
    except Exception:
        if whole.error is not None:
            raise whole.error from None
        raise
    if whole.error is not None:
        raise whole.error
    model = made[0] if isinstance(made, tuple) else made
    if given is None and model.can_generate():
        model.generation_config = _generation(folder, model)
    return made


def _generation(folder: Path, model: Any) -> Any:
    """How a model generates: as its file says, or what its config says of it."""
    read = transformers.GenerationConfig.from_pretrained
    if (folder / "generation_config.json").exists():
        return read(folder)
    if (folder / "config.json").exists():
        return read(folder, config_file_name="config.json", _from_model_config=True)
    return model.generation_config


def _config(folder: Path, whole: Whole, *, trust_remote_code: bool) -> Any:
    if not (folder / "config.json").exists():
        raise MissingError(
            f"{whole.retrieval.bank.path}: no config.json travels with "
            f"{whole.retrieval.task.name}; say config=, or fill a model with Bank.load_into"
        )
    auto = transformers.AutoConfig
    return auto.from_pretrained(folder, trust_remote_code=trust_remote_code)


def _class(config: Any, folder: Path, whole: Whole, *, trust_remote_code: bool) -> type[Any]:
    """The class that the config names: of transformers, or of the code that came along."""
    names = [str(name) for name in getattr(config, "architectures", None) or []]
    if trust_remote_code:
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


def _rename(made: Any, source: str) -> None:
    """Forget the folder, which is gone."""
    model = made[0] if isinstance(made, tuple) else made
    model.name_or_path = model.config.name_or_path = source
