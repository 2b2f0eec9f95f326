"""`from_bank` for timm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from accelerate import init_empty_weights

from randes_cli.api import Bank
from randes_cli.errors import MismatchError, MissingError
from randes_cli.files.checkpoint.folders import read_json
from randes_cli.live.lazy import Lazy, Whole, lazy_components, opened, side_folder
from randes_cli.live.opening.redirected import BUILDING

#: What a timm config.json says of the model beside its weights.
_ARGUMENTS = ("num_classes", "global_pool")
#: And of its labels, which belong to what the model says of itself.
_LABELS = ("num_classes", "label_names", "label_descriptions")


def from_bank(
    bank: Bank | str | Path,
    task: str | None = None,
    *,
    architecture: str | None = None,
    base: str | None = None,
    coefficient: float | None = None,
    dtype: torch.dtype | None = None,
    device: str | int | torch.device | None = None,
    **options: Any,
) -> torch.nn.Module:
    """A task of a bank as its timm model; None is the base itself.

    `architecture` and `options` (``num_classes`` …) are what `timm.create_model` takes; where a
    timm config.json travels in the bank, it says them. `dtype` is that of all floating-point
    tensors (None: float32, as timm builds its models).

    Raises MissingError for an unknown task, or where nothing says what to build; MismatchError
    for options that ask for other layers than the task has.
    """
    with opened(bank, base) as found, side_folder(found, task, code=False) as folder:
        whole = Whole(found.retrieval(task, coefficient=coefficient))
        (state,) = lazy_components(whole).values()
        config = _config(folder)
        given = {**_arguments(config), **options}
        name = architecture or config.get("architecture")
        if name is None:
            raise MissingError(
                f"{found.file.path}: no timm config.json travels with "
                f"{whole.retrieval.task.name}; say architecture="
            )
        own = torch.get_default_dtype() if dtype is None else dtype
        model = _built(lambda: timm.create_model(name, **given), own)
        _fill(model, state, whole, own, torch.device("cpu" if device is None else device))
    if "pretrained_cfg" in config:  # what says how to prepare pictures, and names the classes
        said = {**(getattr(model, "pretrained_cfg", None) or {}), **_pretrained(config)}
        model.pretrained_cfg = model.default_cfg = said  # type: ignore[assignment]
    return model


def _pretrained(config: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of its training and its labels; sizes are tuples, as timm has them."""
    said = {**config["pretrained_cfg"], **{key: config[key] for key in _LABELS if key in config}}
    return {
        key: tuple(value) if key.endswith("input_size") and isinstance(value, list) else value
        for key, value in said.items()
    }


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    found = read_json(path) if path.exists() else {}
    return found if isinstance(found, dict) and "architecture" in found else {}


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    more = config.get("model_args") or {}
    return {**{key: config[key] for key in _ARGUMENTS if key in config}, **more}


def _built(make: Callable[[], Any], dtype: torch.dtype) -> torch.nn.Module:
    """A model whose parameters are without memory, where its constructor can do so.

    Buffers are real: those that no checkpoint holds are computed by the constructor, in `dtype`,
    of some models on the device of a parameter.
    """
    with BUILDING, _default(dtype):
        try:
            with init_empty_weights(include_buffers=False):
                model = make()
            real = not any(buffer.is_meta for buffer in model.buffers())
        except RuntimeError:  # a value was asked for, or what lies on two devices multiplied
            real = False
        made: torch.nn.Module = model if real else make()
    return made


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _fill(
    model: torch.nn.Module,
    state: Mapping[str, Lazy],
    whole: Whole,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Retrieve each tensor once, in the dtype and on the device that the model is to have."""
    _check_names(model, state, whole)
    tied: dict[torch.nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tied.setdefault(parameter, []).append(name)
    for before, names in tied.items():
        lazy = next(state[name] for name in names if name in state)
        tensor = lazy[...].to(device, dtype if lazy.is_floating_point() else None)
        made = torch.nn.Parameter(tensor, requires_grad=before.requires_grad)
        for name in names:
            prefix, _, attribute = name.rpartition(".")
            model.get_submodule(prefix)._parameters[attribute] = made
    for name, buffer in model.named_buffers():
        if name in state:
            buffer.copy_(state[name][...])
        buffer.data = buffer.to(device)
    model.eval()


def _check_names(module: torch.nn.Module, state: Mapping[str, Lazy], whole: Whole) -> None:
    wanted, who = module.state_dict(), f"{whole.retrieval.bank.path}: {whole.retrieval.task.name}"
    named = dict(module.named_parameters(remove_duplicate=False))
    tied = {id(parameter) for name, parameter in named.items() if name in state}
    missing = [n for n in wanted if n not in state and id(named.get(n)) not in tied]
    extra = [name for name in state if name not in wanted]
    if missing:
        raise MissingError(f"{who} has no tensor for the module's {', '.join(missing[:3])}")
    if extra:
        raise MismatchError(f"{who}: the module has no parameter for {', '.join(extra[:3])}")
    for name, lazy in state.items():
        if tuple(wanted[name].shape) != tuple(lazy.shape):
            raise MismatchError(
                f"{who}: tensor {name!r} is {list(lazy.shape)}, the module's is "
                f"{list(wanted[name].shape)}"
            )
