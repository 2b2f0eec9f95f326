"""`from_bank` for diffusers: one model, or a pipeline with its components."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import utils
from diffusers.models import modeling_utils
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME

from randes_cli.api import Bank
from randes_cli.errors import MissingError, UsageError
from randes_cli.files.checkpoint.folders import read_json
from randes_cli.live.lazy import Whole, lazy_components, opened, side_folder
from randes_cli.live.opening.redirected import (
    Given,
    Redirection,
    Unread,
    is_model,
    save_part,
    weights_name,
)
from randes_cli.live.opening.transformers import MODELS

#: What `from_pretrained` calls a dtype, in this version of diffusers.
_DTYPE = "dtype" if hasattr(utils, "_resolve_dtype") else "torch_dtype"

Devices = str | int | torch.device | Mapping[str, Any] | None


def from_bank(
    bank: Bank | str | Path,
    task: str | None = None,
    *,
    cls: type[Any] | None = None,
    base: str | None = None,
    coefficient: float | None = None,
    dtype: Any = None,
    device_map: Devices = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Any:
    """A task of a bank as its diffusers model or pipeline; None is the base itself.

    What `unpack` and `from_pretrained` would give, without a folder of weights: it is
    `from_pretrained` that runs, and finds each tensor as it asks for it. `cls` is the class to
    build in place of the one that the config names, `dtype` that of its weights (of a
    pipeline also by component), `options` what goes to it besides (a ``scheduler``,
    components, ``quantization_config`` …). `device_map` may be a device for a pipeline's models
    too, or a map of devices by component.

    Raises MissingError for an unknown task or where no config says what to build.
    """
    with opened(bank, base) as found, side_folder(found, task, code=trust_remote_code) as folder:
        whole = Whole(found.retrieval(task, coefficient=coefficient))
        pipeline = (folder / "model_index.json").exists()
        kind = cls or (diffusers.DiffusionPipeline if pipeline else _class(folder, whole))
        if dtype is not None:
            options[_DTYPE] = dtype
        ours = pipeline and _ours(device_map)
        if device_map is not None and not ours:
            options["device_map"] = device_map
        if pipeline and trust_remote_code:
            options["trust_remote_code"] = True
        with _filled(folder, whole):
            made = kind.from_pretrained(folder, **{"local_files_only": True, **options})
        if ours:
            _place(made, device_map)
        _rename(made, folder, f"{whole.retrieval.bank.path}:{whole.retrieval.task.name}")
    return made


def _class(folder: Path, whole: Whole) -> type[Any]:
    if not (folder / "config.json").exists():
        raise MissingError(f"{whole.retrieval.bank.path}: no config.json travels with the model")
    name = read_json(folder / "config.json").get("_class_name")
    kind: type[Any] | None = getattr(diffusers, str(name), None)
    if kind is None:
        raise UsageError(f"diffusers has no class {name!r}; say cls=")
    return kind


@contextmanager
def _filled(folder: Path, whole: Whole) -> Iterator[None]:
    """Models that are loaded from the folder in the block are filled from the bank."""
    models, files = {}, {}
    for component, state in lazy_components(whole).items():
        place, given = folder / component, Given(state, whole)
        if is_model(place):
            models[place] = given
        if is_model(place) or is_model(place, "_class_name"):
            named = place / weights_name(component, whole)
            # without a variant's name too: from_bank needs none
            for file in {named, place / SAFETENSORS_WEIGHTS_NAME}:
                file.touch()
                files[file] = given
        else:
            save_part(place, component, given)
    with ExitStack() as stack:
        stack.enter_context(MODELS.giving(models))
        stack.enter_context(FILES.giving(files))
        try:
            yield
        except Exception:
            if whole.error is not None:
                raise whole.error from None
            raise


def _replace() -> Callable[[], object]:
    """Let diffusers' models look for files that are given. Returns what undoes it."""
    before = modeling_utils.load_state_dict

    def load(file: Any, *more: Any, **options: Any) -> Any:
        given = FILES.at(file) if isinstance(file, str | Path) else None
        return before(file, *more, **options) if given is None else Unread(given.state)

    modeling_utils.load_state_dict = load
    return lambda: setattr(modeling_utils, "load_state_dict", before)


#: Files of weights of diffusers' models whose tensors a bank has.
FILES = Redirection(_replace)


def _ours(devices: Devices) -> bool:
    """Whether a pipeline's `device_map` is none that diffusers takes."""
    return devices is not None and (not isinstance(devices, str) or ":" in devices)


def _place(pipeline: Any, devices: Devices) -> None:
    if not isinstance(devices, Mapping):
        pipeline.to(devices)
        return
    for name, part in pipeline.components.items():
        place = devices.get(name, devices.get(""))
        if isinstance(part, torch.nn.Module) and place is not None:
            part.to(place)


def _rename(made: Any, folder: Path, source: str) -> None:
    """Forget the folder, which is gone."""
    for model in (made, *getattr(made, "components", {}).values()):
        named = getattr(getattr(model, "config", None), "_name_or_path", None)
        if named is not None and Path(named).is_relative_to(folder):
            model.register_to_config(_name_or_path=source)
