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
from numpy.typing import NDArray

from randes_cli.errors import CheckpointError
from randes_cli.files.header import Header
from randes_cli.specs import TensorInfo

if TYPE_CHECKING:
    import torch

#: Keys that training scripts keep a state dict under, most particular first.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
}


class PickleFile:
    """One pickled state dict as if it were a safetensors file: tensors at made-up offsets.

    Tied tensors come out once under each of their names. A tensor that is not contiguous in
    the file is copied into memory; the others are read from the file when asked for.
    Raises CheckpointError: unsafe or damaged pickle, no state dict, sparse or quantised tensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pickle: str | None = ""
        state = find_state_dict(_load(path), str(path))
        self._names: list[str] = []
        self._data: list[NDArray[np.uint8]] = []
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

    def read_at(self, offset: int, out: NDArray[np.uint8]) -> None:
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


def _as_bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    made: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return made
