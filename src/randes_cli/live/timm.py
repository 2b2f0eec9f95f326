"""`from_bank` for timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch

from randes_cli.api import Bank
from randes_cli.errors import MissingError
from randes_cli.files.checkpoint.folders import read_json
from randes_cli.live.lazy import Whole, lazy_components, opened, side_folder
from randes_cli.live.meta import Devices, build_on_meta, materialise

#: What a timm config.json says of the model beside its weights.
_ARGUMENTS = ("num_classes", "global_pool")


def from_bank(
    bank: Bank | str | Path,
    task: str | None = None,
    *,
    architecture: str | None = None,
    base: str | None = None,
    coefficient: float | None = None,
    dtype: torch.dtype | None = None,
    device: Devices = None,
    **options: Any,
) -> torch.nn.Module:
    """A task of a bank as its timm model; None is the base itself.

    `architecture` and `options` (``num_classes`` …) are what `timm.create_model` takes; where a
    timm config.json travels in the bank, it says them. `dtype` is that of all floating-point
    tensors (None: float32, as timm builds its models).

    Raises MissingError for an unknown task, or where nothing says what to build.
    """
    with opened(bank, base) as found, side_folder(found, task, code=False) as folder:
        whole = Whole(found.retrieval(task, coefficient=coefficient))
        (state,) = lazy_components(whole).values()
        given = {**_config(folder), **options}
        name = architecture or given.pop("architecture", None)
        given.pop("architecture", None)
        if name is None:
            raise MissingError(
                f"{found.file.path}: no timm config.json travels with "
                f"{whole.retrieval.task.name}; say architecture="
            )
        own = torch.get_default_dtype() if dtype is None else dtype
        model = build_on_meta(lambda: timm.create_model(name, **given), dtype=own)
        materialise(model, state, whole, dtype=own, devices=device)
    assert isinstance(model, torch.nn.Module)
    return model


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict) or "architecture" not in found:
        return {}
    more = found.get("model_args") or {}
    return {
        "architecture": found["architecture"],
        **{key: found[key] for key in _ARGUMENTS if key in found},
        **more,
    }
