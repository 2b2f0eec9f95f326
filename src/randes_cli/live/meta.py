"""Modules built without memory and given retrieved tensors as their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map, init_empty_weights

from randes_cli.errors import MismatchError, MissingError
from randes_cli.live.lazy import Lazy, Whole

Devices = str | int | torch.device | Mapping[str, Any] | None


def build_on_meta(make: Callable[[], Any], *, dtype: torch.dtype) -> Any:
    """What `make` builds, its parameters on the meta device.

    Buffers are real: those that no checkpoint holds are computed by the constructor, in `dtype`.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with init_empty_weights(include_buffers=False):
            return make()
    finally:
        torch.set_default_dtype(before)


def materialise(
    module: torch.nn.Module,
    state: Mapping[str, Lazy],
    whole: Whole,
    *,
    dtype: torch.dtype | None,
    devices: Devices,
    keep_float32: tuple[str, ...] = (),
) -> None:
    """Retrieve each tensor once, in the dtype and on the device where the module keeps it.

    Raises MissingError for parameters without a tensor, MismatchError for tensors without a
    parameter or of another shape.
    """
    _check_names(module, state, whole)
    placed = _places(module, devices)
    made = {}
    for name, lazy in state.items():
        tensor, wanted = lazy[...], dtype
        if dtype is not None and any(part in name.split(".") for part in keep_float32):
            wanted = torch.float32
        if not tensor.is_floating_point():
            wanted = None
        made[name] = tensor.to(device=placed(name), dtype=wanted)
    module.load_state_dict(made, strict=False, assign=True)
    for name, buffer in module.named_buffers():
        buffer.data = buffer.to(placed(name))
    if isinstance(devices, Mapping) and len(set(devices.values())) > 1:
        dispatch_model(module, dict(devices))
    module.eval()


def _check_names(module: torch.nn.Module, state: Mapping[str, Lazy], whole: Whole) -> None:
    wanted, who = module.state_dict(), f"{whole.retrieval.bank.path}: {whole.retrieval.task.name}"
    tied = {id(p) for n, p in module.named_parameters(remove_duplicate=False) if n in state}
    named = dict(module.named_parameters(remove_duplicate=False))
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


def _places(module: torch.nn.Module, devices: Devices) -> Callable[[str], torch.device]:
    """Where a tensor goes by its name: to the device of its longest beginning in the map."""
    if devices in ("auto", "balanced", "balanced_low_0", "sequential"):
        devices = infer_auto_device_map(module)
    if not isinstance(devices, Mapping):
        everywhere = torch.device("cpu" if devices is None else devices)
        return lambda name: everywhere
    table = {prefix: torch.device(place) for prefix, place in devices.items()}

    def place(name: str) -> torch.device:
        fits = [p for p in table if not p or name == p or name.startswith(f"{p}.")]
        if not fits:
            raise MismatchError(f"device_map: no device for {name}")
        return table[max(fits, key=len)]

    return place
