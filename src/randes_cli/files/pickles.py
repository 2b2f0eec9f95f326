"""Pickled checkpoints (.bin, .pt, .pth), read without running any of their code.

torch unpickles tensors and plain containers only (`weights_only=True`) and refuses the rest;
data stay in the file (`mmap=True`) until a strip asks for them.
"""

from __future__ import annotations

import zipfile
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.errors import CheckpointError
from randes_cli.files.guard import Stamp, note_input, stamp
from randes_cli.files.header import Header
from randes_cli.specs import DTYPES, TensorInfo

if TYPE_CHECKING:
    import torch

#: Keys that training scripts keep a state dict under, most particular first.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_DTYPES = {dtype.torch: name for name, dtype in DTYPES.items()}


class PickleFile:
    """One pickled state dict as if it were a safetensors file: tensors at made-up offsets.

    Tied tensors come out once under each of their names. A tensor that is not contiguous in
    the file is copied into memory; the others are read from the file when asked for.
    Raises CheckpointError: unsafe or damaged pickle, no state dict, sparse or quantised tensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        note_input(path)
        self.stamp: Stamp | None = stamp(path.stat())
        self.pickle: str | None = ""
        state = find_state_dict(_load(path), str(path))
        self._names: list[str] = []
        self._data: list[Raw] = []
        self._starts: list[int] = []
        tensors, position = {}, 0
        for name, tensor in state.items():
            info = _info(path, name, tensor)
            tensors[name] = info
            self._starts.append(position)
            self._data.append(_as_bytes(tensor))
            position += info.nbytes
        starts = dict(zip(tensors, self._starts, strict=True))
        self.header = Header(tensors, starts, {}, 0, position)

    def read_at(self, offset: int, out: Raw) -> None:
        """Fill `out` from `offset`, which lies in the tensor that it is meant for."""
        if not len(out):
            return
        number = bisect_right(self._starts, offset) - 1
        start = offset - self._starts[number]
        np.copyto(out, self._data[number][start : start + len(out)])

    def close(self) -> None:
        """Let go of the file."""
        self._data.clear()


def _load(path: Path) -> Any:
    import torch

    try:
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except UnpicklingError as error:
        reason = str(error).partition("\n")[0][:200]
        raise CheckpointError(
            f"{path}: refused: its pickle holds more than tensors ({reason}); "
            "convert it to safetensors where you trust it"
        ) from None
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        raise CheckpointError(f"{path}: cannot be read as a PyTorch file ({reason})") from error


def find_state_dict(loaded: Any, source: str) -> Mapping[str, torch.Tensor]:
    """The tensors of what was unpickled, looked for under the usual wrapper keys.

    Raises CheckpointError when there are none.
    """
    import torch

    while isinstance(loaded, Mapping):
        inner = next((loaded[k] for k in _WRAPPERS if isinstance(loaded.get(k), Mapping)), None)
        if inner is None:
            made = {k: v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
            if made and all(isinstance(name, str) for name in made):
                return made
            break
        loaded = inner
    raise CheckpointError(f"{source}: no state dict in it (looked under {', '.join(_WRAPPERS)})")


def _info(path: Path, name: str, tensor: torch.Tensor) -> TensorInfo:
    import torch

    dtype = _DTYPES.get(str(tensor.dtype).removeprefix("torch."))
    if tensor.layout != torch.strided or tensor.is_quantized or dtype is None:
        kind = tensor.dtype if dtype is None else tensor.layout
        raise CheckpointError(f"{path}: tensor {name!a} is {kind}; give dense, unquantised weights")
    return TensorInfo(name, dtype, tuple(tensor.shape))


def _as_bytes(tensor: torch.Tensor) -> Raw:
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    made: Raw = flat.view(torch.uint8).numpy()
    return made
