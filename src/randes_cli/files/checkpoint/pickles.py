"""Pickled checkpoints (.bin, .pt, .pth), read without running any of their code.

torch unpickles tensors and plain containers only (`weights_only=True`) and refuses the rest;
data stay in the file (`mmap=True`) until a strip asks for them.
"""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.errors import CheckpointError, printable
from randes_cli.files.header import Header
from randes_cli.files.local.guard import is_still, note_input, stamp
from randes_cli.specs import DTYPES, Table, TensorInfo

if TYPE_CHECKING:
    import torch

#: Keys that training scripts keep a state dict under, most particular first.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
#: How deep state dicts are looked for, in how many places, and how many of them at the most.
_DEPTH, _MOST_LOOKS, _MOST_PLACES = 4, 2**12, 100


class _Held:
    """Stands for what trainers put beside weights: made of anything, it keeps and does nothing."""

    def __new__(cls, *_: object) -> _Held:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _Array(_Held):
    """Stands for an array of NumPy: where weights are, it is one of them, and not read."""


#: Scores, states of generators, dates and versions, none of which is a weight.
_BESIDE = (
    *("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar", "numpy.dtype"),
    *("numpy.ndarray", "torch.torch_version.TorchVersion"),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
)


#: What makes an array, since NumPy 2 and before.
_ARRAYS = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")


def _stand_in(name: str, kind: type[_Held] = _Held) -> type[_Held]:
    module, _, last = name.rpartition(".")
    return type(last, (kind,), {"__module__": module, "__qualname__": last})


def _defaultdict(*_: object) -> dict[Any, Any]:
    return {}


_defaultdict.__module__, _defaultdict.__name__ = "collections", "defaultdict"
_defaultdict.__qualname__ = "defaultdict"
#: What holds values and does nothing, which a pickle may have besides tensors.
_PLAIN: list[Any] = [
    *(argparse.Namespace, type(Path()), _defaultdict, dict, list, int, float),
    *map(_stand_in, _BESIDE),
    *(_stand_in(name, _Array) for name in _ARRAYS),
]
#: In torch's words, what it did not let in.
_GLOBAL = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)")
#: What torch advises beside it: to run the pickle's code.
_ADVICE = re.compile(r"weights_only|torch\.load|file an issue")
_DTYPES = {dtype.torch: name for name, dtype in DTYPES.items()}


class PickleFile:
    """One pickled state dict as if it were a safetensors file: tensors at made-up offsets.

    Tied tensors come out once under each of their names. A tensor that is not contiguous in
    the file is copied into memory; the others are read from the file when asked for. `notes` tell
    of tensors that stay behind.
    Raises CheckpointError: unsafe or damaged pickle, no state dict, sparse or quantised tensors.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        self.path = path
        note_input(path)
        self.stamp = stamp(path.stat())
        loaded = _load(path)
        state, at = find_state_dict(loaded, str(path), key)
        self.pickle: str | None = at
        self.notes = _left_behind(path, loaded, at)
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
        starts = np.array(self._starts, np.int64)
        self.header = Header(Table(tensors), starts, {}, 0, position)

    def read_at(self, offset: int, out: Raw) -> None:
        """Fill `out` from `offset`, which lies in the tensor that it is meant for."""
        if not len(out):
            return
        number = bisect_right(self._starts, offset) - 1
        start = offset - self._starts[number]
        np.copyto(out, self._data[number][start : start + len(out)])

    def changed(self) -> bool:
        return not is_still(self.path, self.stamp)

    def close(self) -> None:
        self._data.clear()


def _load(path: Path) -> Any:
    import torch

    let = getattr(torch.serialization, "safe_globals", nullcontext)  # torch from 2.5 on
    try:
        with let(_PLAIN), warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # advice for who calls torch
            taken = path.suffix == ".safetensors"  # torch takes it for one by its name alone
            return torch.load(
                file if taken else path,
                map_location="cpu",
                weights_only=True,
                mmap=not taken and zipfile.is_zipfile(path),
            )
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: its pickle holds more than tensors ({_what_else(error)}); "
            "convert it to safetensors where you trust it"
        ) from None
    except Exception as error:
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a PyTorch file ({reason})") from error


def _what_else(error: UnpicklingError) -> str:
    """What a pickle holds that is not let in, by its name where torch says it."""
    found, lines = _GLOBAL.search(str(error)), str(error).splitlines()
    told = [line.strip() for line in lines if line.strip() and not _ADVICE.search(line)]
    return printable(found[1] if found else (told or ["not read as weights"])[-1])[:200]


def find_state_dict(
    loaded: Any, source: str, key: str | None = None
) -> tuple[Mapping[str, torch.Tensor], str]:
    """The tensors of what was unpickled, and the keys, joined by dots, that they were under.

    Those under `key`, else under the usual wrapper keys. Raises CheckpointError when there are
    none, or others of the same names beside them (an average of the weights, EMA): which are
    meant only the user knows.
    """
    places = _places(loaded)
    if key is not None and key in places:
        return places[key], key
    if key is not None and "" not in places:
        raise CheckpointError(f"{source}: no weights under {key!r}; it has {_listed(places)}")
    at = ""
    inner: Any = loaded if isinstance(loaded, Mapping) else {}
    for _ in range(_DEPTH):  # what is under a key may be what it is in
        name = next((k for k in _WRAPPERS if isinstance(inner.get(k), Mapping)), None)
        if name is None:
            break
        at, inner = f"{at}.{name}" if at else name, inner[name]
    if at not in places:
        some = f"; weights are under {_listed(places)}: say --weights-key KEY" if places else ""
        raise CheckpointError(
            f"{source}: no state dict in it (looked under {', '.join(_WRAPPERS)}){some}"
        )
    others = [k for k, state in places.items() if k != at and _alike(state, places[at])]
    if others:
        raise CheckpointError(
            f"{source}: holds several sets of the same weights, under {at or 'the top'}, "
            f"{', '.join(others)}: say which, --weights-key {others[0]}"
        )
    return places[at], at


def _places(loaded: Any) -> dict[str, Mapping[str, Any]]:
    """Every state dict in what was unpickled, arrays among its tensors too, by keys and dots."""
    import torch

    made: dict[str, Mapping[str, Any]] = {}
    waiting: list[tuple[str, Mapping[Any, Any], int]] = []
    if isinstance(loaded, Mapping):
        waiting.append(("", loaded, 0))
    for at, value, depth in waiting:  # which grows meanwhile
        some = {k: v for k, v in value.items() if isinstance(v, torch.Tensor | _Array)}
        tensors = any(isinstance(one, torch.Tensor) for one in some.values())
        if tensors and all(isinstance(name, str) for name in some):
            made[at] = some
        if len(made) == _MOST_PLACES:
            break
        inside = [k for k, v in value.items() if isinstance(k, str) and isinstance(v, Mapping)]
        more = inside[: _MOST_LOOKS - len(waiting)] if depth < _DEPTH else []
        waiting += [(f"{at}.{k}" if at else k, value[k], depth + 1) for k in more]
    return made


def _left_behind(path: Path, loaded: Any, at: str) -> tuple[str, ...]:
    """What to say of other tensors than those under `at`, an optimizer's state apart."""
    import torch

    def is_weight(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.numel() > 1

    others = {
        key: state
        for key, state in _places(loaded).items()
        if key != at and "optim" not in key and any(map(is_weight, state.values()))
    }
    text = f"{path.name}: its tensors under {_listed(others)} stay behind (see --weights-key)"
    return (text,) if others else ()


def _alike(state: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    """Whether two state dicts are of one model: most names of the chosen, but for a prefix."""
    ends = {name.partition(".")[2] or name for name in state} | set(state)
    shared = sum(name in ends or (name.partition(".")[2] or name) in ends for name in chosen)
    return 2 * shared > len(chosen)


def _listed(places: Mapping[str, object]) -> str:
    return ", ".join(key or "the top" for key in list(places)[:8])


def _info(path: Path, name: str, tensor: torch.Tensor) -> TensorInfo:
    import torch

    if isinstance(tensor, _Array):
        raise CheckpointError(f"{path}: {name!r} is an array of NumPy beside tensors; save tensors")
    dtype = _DTYPES.get(str(tensor.dtype).removeprefix("torch."))
    if tensor.layout != torch.strided or dtype is None:
        kind = tensor.dtype if dtype is None else tensor.layout
        raise CheckpointError(f"{path}: tensor {name!r} is {kind}; give dense, unquantised weights")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: tensor {name!r} repeats few values; save it whole")
    return TensorInfo(name, dtype, tuple(tensor.shape))


def _as_bytes(tensor: torch.Tensor) -> Raw:
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    made: Raw = flat.view(torch.uint8).numpy()
    return made
