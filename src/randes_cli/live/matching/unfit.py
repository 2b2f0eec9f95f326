"""Models that a bank's tensors do not fit, refused before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from randes_cli.errors import MismatchError
from randes_cli.live.lazy import Whole
from randes_cli.live.matching.adapters import plain_modules, plain_state
from randes_cli.live.weights.parts import Part, Parts


def refuse_packed(
    module: torch.nn.Module,
    names: Mapping[str, str],
    parts: Mapping[str, Parts],
    wholes: Sequence[Whole],
) -> None:
    """Refuse layers that keep a task's matrix otherwise: quantised, packed, divided, no memory.

    `names` are the bank's by those inside the component; `parts` are in the bank's.
    """
    if getattr(getattr(module, "config", None), "rescale_every", 0):  # RWKV
        raise MismatchError(
            f"{type(module).__name__} divides its weights when it runs, once: build it with "
            "rescale_every=0 (from_bank takes it), which answers the same"
        )
    state = plain_state(module)
    placed = set()
    for name, tensor in state.items():
        for part in parts.get(name, ()):
            placed.add(part.name)
            _check_kind(name, tensor, part, wholes)
    layers = plain_modules(module)
    for inner, name in names.items():
        layer = layers.get(inner.rpartition(".")[0])
        if name not in placed and layer is not None and any(_changes(w, name) for w in wholes):
            raise MismatchError(
                f"{inner}: the model's {type(layer).__name__} has no such parameter; load the "
                "model as the bank has it, not quantised"
            )


def _changes(whole: Whole, name: str) -> bool:
    """Whether a task has a matrix of its own there."""
    retrieval = whole.retrieval
    info = retrieval.tensors.get(name)
    return info is not None and len(info.shape) > 1 and retrieval.superposed(name)


def _check_kind(name: str, tensor: torch.Tensor, part: Part, wholes: Sequence[Whole]) -> None:
    """Refuse integers where the bank has real numbers, and the other way round."""
    whole = next((w for w in wholes if part.name in w.retrieval.tensors), None)
    if whole is None or not isinstance(tensor, torch.Tensor):
        return
    if tensor.is_meta:
        raise MismatchError(f"{name} of the model is on the meta device: it has no memory")
    stored = whole.dtype(part.name)
    if stored.is_floating_point != tensor.is_floating_point():
        raise MismatchError(
            f"{name} is {stored} in the bank and {tensor.dtype} in the model: load the model as "
            "the bank has it, not quantised"
        )
