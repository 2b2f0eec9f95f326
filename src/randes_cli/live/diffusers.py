"""`from_bank` for diffusers: one model, or a pipeline with its components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from randes_cli.api import Bank
from randes_cli.errors import MissingError, UsageError
from randes_cli.files.checkpoint.folders import read_json
from randes_cli.live import transformers as text
from randes_cli.live.lazy import Lazy, Whole, lazy_components, opened, side_folder
from randes_cli.live.meta import Devices, build_on_meta, materialise


def from_bank(
    bank: Bank | str | Path,
    task: str | None = None,
    *,
    cls: type[Any] | None = None,
    base: str | None = None,
    coefficient: float | None = None,
    dtype: torch.dtype | None = None,
    device_map: Devices = None,
    **options: Any,
) -> Any:
    """A task of a bank as its diffusers model or pipeline; None is the base itself.

    What `unpack` and `from_pretrained` would give, without a folder of weights. `cls` is the
    class to build in place of the one that the config names, `dtype` that of all
    floating-point tensors (None: as `from_pretrained` takes it, the class's own), `device_map`
    a device or a map of them (of one model, or by component of a pipeline), `options` what
    goes to a pipeline's `from_pretrained` besides (a ``scheduler``, say, or components).

    Raises MissingError for an unknown task or where no config says what to build.
    """
    with opened(bank, base) as found, side_folder(found, task, code=False) as folder:
        whole = Whole(found.retrieval(task, coefficient=coefficient))
        parts = lazy_components(whole)
        if (folder / "model_index.json").exists():
            given: dict[str, Any] = {**options}
            for component, state in parts.items():
                if component not in given:
                    place = _part(device_map, component)
                    given[component] = _component(folder, component, state, whole, dtype, place)
            if dtype is not None:
                given["torch_dtype"] = dtype
            kind = cls or diffusers.DiffusionPipeline
            return kind.from_pretrained(folder, local_files_only=True, **given)
        (state,) = parts.values()
        return _model(folder, state, whole, cls, dtype, device_map)


def _part(devices: Devices, component: str) -> Devices:
    if not isinstance(devices, Mapping):
        return devices
    place: Devices = devices.get(component, devices.get(""))
    return place


def _component(
    folder: Path,
    component: str,
    state: Mapping[str, Lazy],
    whole: Whole,
    dtype: torch.dtype | None,
    devices: Devices,
) -> Any:
    index = read_json(folder / "model_index.json")
    entry = index.get(component)
    if isinstance(entry, list) and entry[0] == "transformers":
        more: dict[str, Any] = {} if devices is None else {"device_map": devices}
        kind = getattr(transformers, str(entry[1]))
        if dtype is not None:
            more["dtype"] = dtype
        return text.build(folder / component, state, whole, cls=kind, **more)
    return _model(folder / component, state, whole, None, dtype, devices)


def _model(
    folder: Path,
    state: Mapping[str, Lazy],
    whole: Whole,
    cls: type[Any] | None,
    dtype: torch.dtype | None,
    devices: Devices,
) -> Any:
    if not (folder / "config.json").exists():
        raise MissingError(f"{whole.retrieval.bank.path}: no config.json travels with the model")
    config = read_json(folder / "config.json")
    kind = cls or getattr(diffusers, str(config.get("_class_name")), None)
    if kind is None:
        raise UsageError(f"diffusers has no class {config.get('_class_name')!r}; say cls=")
    own = torch.get_default_dtype() if dtype is None else dtype
    model = build_on_meta(lambda: kind.from_config(config), dtype=own)
    current = dict(state)
    model._fix_state_dict_keys_on_load(current)
    kept = tuple(getattr(model, "_keep_in_fp32_modules", None) or ()) if dtype else ()
    materialise(model, current, whole, dtype=own, devices=devices, keep_float32=kept)
    model.register_to_config(_name_or_path=f"{whole.retrieval.bank.path}")
    return model
