"""LoRA adapters (PEFT): what a folder's adapter_config.json says, and merging into a base.

A merged adapter is a source of tensors like any checkpoint: base + scaling · B · A, computed
for the rows that are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, frexp, log2, prod, sqrt
from typing import Any

import numpy as np

from randes_cli.core.arrays import F64, Raw
from randes_cli.core.convert import narrow, widen
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.checkpoint import Checkpoint
from randes_cli.files.folders import read_json
from randes_cli.files.names import match_names
from randes_cli.files.source import Source, ZeroBase
from randes_cli.specs import FLOAT_DTYPES, ITEM_SIZE, TensorInfo

CONFIG = "adapter_config.json"
_LORA = re.compile(r"\.lora_(embedding_)?(A|B)(\.weight)?$|\.lora_(up|down)\.weight$")
_WRAPPED = "base_model.model."
#: Options of a LoRA that change more than base + scaling · B · A.
_REFUSED = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "megatron_config",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
#: Initialisations that change the base's own weights before training.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
#: Factors kept at hand, in tensors.
_CACHED = 32


def is_factor(name: str) -> bool:
    """Whether a tensor is a factor of a low-rank update."""
    return bool(_LORA.search(name))


def is_adapter(source: Source) -> bool:
    """Whether a checkpoint holds an adapter and not a model."""
    layout = getattr(source, "layout", {})
    return layout.get("") == "adapter_model.safetensors" or any(map(is_factor, source.tensors))


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """The part of an adapter_config.json that merging needs; see PEFT's LoraConfig."""

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    fan_in_fan_out: bool

    def scaling(self, module: str, rank: int) -> float:
        """Factor of B · A for a module: α / r, or α / √r for rank-stabilised LoRA."""
        alpha = float(self.alpha_pattern.get(_pattern_key(self.alpha_pattern, module), self.alpha))
        return alpha / sqrt(rank) if self.rslora else alpha / rank

    def expected_rank(self, module: str) -> int:
        """The rank that the configuration gives a module."""
        return self.rank_pattern.get(_pattern_key(self.rank_pattern, module), self.rank)


def _pattern_key(patterns: Mapping[str, Any], module: str) -> str:
    """The first pattern that a module's name ends with, as PEFT matches them."""
    for key in patterns:
        if re.match(rf"(.*\.)?({key})$", module):
            return key
    return module


def read_config(adapter: Checkpoint) -> dict[str, Any]:
    """An adapter's configuration. Raises CheckpointError where it is no plain LoRA, by name."""
    path = adapter.folder / CONFIG if adapter.folder else None
    if path is None or not path.is_file():
        raise CheckpointError(
            f"{adapter.source}: an adapter without {CONFIG}; give the folder that holds both"
        )
    found = read_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    kind = str(found.get("peft_type"))
    if kind.upper() != "LORA":
        raise CheckpointError(
            f"{adapter.source}: a {kind[:40]} adapter; only LoRA is supported "
            "(merge it with PEFT and give the full checkpoint)"
        )
    return found


def refuse_dora(adapter: Checkpoint) -> None:
    """Raise CheckpointError for an adapter that scales its module's rows, too."""
    if any("lora_magnitude_vector" in name for name in adapter.tensors):
        raise CheckpointError(
            f"{adapter.source}: a DoRA adapter (use_dora); only plain LoRA is supported "
            "(merge it with PEFT and give the full checkpoint)"
        )


def _lora_config(adapter: Checkpoint) -> LoraConfig:
    """The configuration of an adapter to merge. Raises CheckpointError naming what forbids it."""
    found = read_config(adapter)
    refuse_dora(adapter)
    given = [key for key in _REFUSED if found.get(key)]
    start = str(found.get("init_lora_weights")).lower()
    if start.startswith(_CHANGED_BASE):
        given.append(f"init_lora_weights={start}")
    if given:
        raise CheckpointError(
            f"{adapter.source}: cannot be merged: {given[0]} needs more than base + B·A "
            "(merge it with PEFT and give the full checkpoint)"
        )
    try:
        return LoraConfig(
            int(found.get("r", 8)),
            float(found.get("lora_alpha", 8)),
            {str(key): int(rank) for key, rank in (found.get("rank_pattern") or {}).items()},
            {str(key): float(alpha) for key, alpha in (found.get("alpha_pattern") or {}).items()},
            bool(found.get("use_rslora")),
            bool(found.get("fan_in_fan_out")),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{adapter.source}: {CONFIG}: {error}") from None


def adapter_base(first: Checkpoint) -> ZeroBase:
    """The base of a bank of adapters: names and shapes of the first one's factors.

    Its other tensors (saved heads) are not in it, so every task keeps its own.
    """
    factors = {name: tensor for name, tensor in first.tensors.items() if is_factor(name)}
    return ZeroBase(f"{first.source} (names and shapes)", factors)


def base_model(adapter: Checkpoint) -> str:
    """The model that an adapter says it was trained on, or ""."""
    if adapter.folder is None:
        return ""
    return str(read_config(adapter).get("base_model_name_or_path") or "")


def require_alike(adapter: Checkpoint, base: Source) -> None:
    """Raise MismatchError, saying how, when an adapter has other targets or ranks than `base`."""
    if adapter.folder is not None:
        read_config(adapter)
    refuse_dora(adapter)
    ours = {name: t.shape for name, t in adapter.tensors.items() if is_factor(name)}
    theirs = {name: t.shape for name, t in base.tensors.items()}
    extra, lacking = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    how = None
    if extra or lacking:
        parts = [f"also targets {_module(extra[0])}"] if extra else []
        parts += [f"does not target {_module(lacking[0])}"] if lacking else []
        how = " and ".join(parts)
    else:
        name = next((name for name in ours if ours[name] != theirs[name]), None)
        if name is not None:
            how = f"has {name!a} of shape {list(ours[name])}, not {list(theirs[name])}"
            if min(ours[name]) != min(theirs[name]):
                how = f"has rank {min(ours[name])}, not {min(theirs[name])}, at {_module(name)}"
    if how:
        raise MismatchError(
            f"{adapter.source}: {how} as in {base.source}; the adapters of one bank agree in rank "
            "and targets: make two banks, or say --merge-adapters"
        )


def _module(name: str) -> str:
    return _LORA.sub("", name).removeprefix(_WRAPPED)


@dataclass(frozen=True, slots=True)
class _Update:
    """One low-rank update: weight[i, j] += scaling · Σ_k left[i, k] · right[k, j].

    `left` and `right` name adapter tensors; `flip` says that A and B change places (Conv1D and
    embeddings store the transpose).
    """

    left: str
    right: str
    flip: bool
    rank: int
    scaling: float


class MergedAdapter:
    """A base with an adapter merged in, as a checkpoint in the base's names and dtypes.

    The product is a sum of integers: factors are rounded to as many bits of their largest
    magnitude (24 at rank 16) as let float64 hold every partial sum exactly, so that the result
    depends neither on strips nor on threads or the BLAS. Then it is rounded once to the dtype.
    Raises CheckpointError (no plain LoRA), MismatchError (of another base).
    """

    def __init__(self, base: Source, adapter: Checkpoint) -> None:
        self._base, self._adapter = base, adapter
        self._config = _lora_config(adapter)
        self.source, self.metadata = adapter.source, base.metadata
        pairs, saved = _sorted_tensors(adapter)
        modules = {f"{module}.weight": module for module in pairs}
        naming = match_names(base.tensors, [*modules, *saved])
        ours = {theirs: name for name, theirs in (naming.names or {}).items()} if naming else {}
        self._updates: dict[str, _Update] = {}
        for weight, module in modules.items():
            name = ours.get(weight, weight)
            if name not in base.tensors:
                raise MismatchError(
                    f"{adapter.source}: adapts {module}, which the base {base.source} lacks"
                )
            self._updates[name] = self._update(module, pairs[module], base.tensors[name])
        self._saved = {ours.get(name, name): inner for name, inner in saved.items()}
        self.tensors = {**base.tensors}
        for name, inner in self._saved.items():
            tensor, twin = adapter.tensors[inner], base.tensors.get(name)
            both = twin is not None and {twin.dtype, tensor.dtype} <= FLOAT_DTYPES
            dtype = twin.dtype if twin is not None and both else tensor.dtype
            self.tensors[name] = TensorInfo(name, dtype, tensor.shape)
        self.summary = f"merged {len(self._updates)} LoRA updates into the base"
        if self._saved:
            self.summary += f", replaced {len(self._saved)} tensors"
        self._factors = lru_cache(maxsize=_CACHED)(self._load)

    def _update(self, module: str, pair: Mapping[str, str], weight: TensorInfo) -> _Update:
        """Check the two factors against each other, the configuration and the weight."""
        if set(pair) not in ({"A", "B"}, {"eA", "eB"}):
            raise CheckpointError(f"{self.source}: {module} lacks one of its two factors")
        embedding = "eA" in pair
        a, b = (self._adapter.tensors[name].shape for _, name in sorted(pair.items()))
        rank, out, into = a[0], b[0], prod(a[1:])
        if rank != prod(b[1:]) or rank != self._config.expected_rank(module):
            raise CheckpointError(
                f"{self.source}: {module} has factors {list(a)} and {list(b)}, "
                f"{CONFIG} says rank {self._config.expected_rank(module)}"
            )
        straight, turned = weight.elements == out * into, weight.shape == (into, out)
        if len(weight.shape) == 2:
            straight = weight.shape == (out, into)
        flip = turned and (embedding or not straight or self._config.fan_in_fan_out)
        if not (flip or (straight and not embedding)):
            raise MismatchError(
                f"{self.source}: {module} adapts a weight of {[out, into]}, "
                f"the base's has {list(weight.shape)}"
            )
        first, second = ("eA", "eB") if embedding else ("A", "B")
        left, right = (first, second) if flip else (second, first)
        scaling = self._config.scaling(module, rank)
        return _Update(pair[left], pair[right], flip, rank, scaling)

    def _load(self, name: str) -> tuple[F64, F64, float]:
        """The factors of a weight as integers, and the value of one unit of their product."""
        update = self._updates[name]
        bits = (53 - ceil(log2(update.rank))) // 2
        left, left_unit = self._grid(update.left, bits)
        right, right_unit = self._grid(update.right, bits)
        if update.flip:
            left, right = left.reshape(update.rank, -1).T, right.reshape(-1, update.rank).T
        else:
            left, right = left.reshape(-1, update.rank), right.reshape(update.rank, -1)
        return left, right, left_unit * right_unit * update.scaling

    def _grid(self, name: str, bits: int) -> tuple[F64, float]:
        """A factor rounded to integers of at most 2^bits, and the unit: a power of two."""
        tensor = self._adapter.tensors[name]
        raw = np.empty(tensor.nbytes, np.uint8)
        self._adapter.read(name, 0, raw)
        values = np.empty(tensor.elements, np.float32)
        widen(raw, tensor.dtype, values)
        peak = float(np.abs(values).max(initial=0.0))
        if not np.isfinite(peak):
            raise CheckpointError(f"{self.source}: tensor {name!a} has NaN or infinite values")
        unit = 2.0 ** (frexp(peak)[1] - bits) if peak else 1.0
        return np.rint(values.astype(np.float64) / unit), unit

    def read(self, name: str, start: int, out: Raw) -> None:
        """Fill `out` with the merged tensor's bytes from byte `start` of its data."""
        if name in self._saved:
            self._read_saved(name, start, out)
        else:
            self._base.read(name, start, out)
        if name in self._updates and len(out):
            dtype = self.tensors[name].dtype
            merged = _as_float64(out, dtype)
            merged += self._delta(name, start // ITEM_SIZE[dtype], len(merged))
            self._store(name, merged, out)

    def _delta(self, name: str, start: int, count: int) -> F64:
        """scaling · B · A for `count` elements from element `start` of the weight."""
        left, right, unit = self._factors(name)
        cols = right.shape[1]
        row0, row1 = start // cols, -(-(start + count) // cols)
        col0 = start - row0 * cols
        width = slice(col0, col0 + count) if row1 - row0 == 1 else slice(None)
        product = (left[row0:row1] @ right[:, width]).reshape(-1)
        product *= unit
        return product if row1 - row0 == 1 else product[col0 : col0 + count]

    def _read_saved(self, name: str, start: int, out: Raw) -> None:
        tensor, stored = self.tensors[name], self._adapter.tensors[self._saved[name]]
        if tensor.dtype == stored.dtype:
            self._adapter.read(stored.name, start, out)
            return
        count = len(out) // ITEM_SIZE[tensor.dtype]
        raw = np.empty(count * ITEM_SIZE[stored.dtype], np.uint8)
        place = start // ITEM_SIZE[tensor.dtype] * ITEM_SIZE[stored.dtype]
        self._adapter.read(stored.name, place, raw)
        self._store(name, _as_float64(raw, stored.dtype), out)

    def _store(self, name: str, values: F64, out: Raw) -> None:
        if self.tensors[name].dtype == "F64":
            out.view(np.float64)[:] = values
        elif narrow(values.astype(np.float32), self.tensors[name].dtype, out):
            raise CheckpointError(
                f"{self.source}: tensor {name!a} passes the range of the base's dtype when merged"
            )


def _as_float64(raw: Raw, dtype: str) -> F64:
    if dtype == "F64":
        return raw.view(np.float64).copy()
    values = np.empty(len(raw) // ITEM_SIZE[dtype], np.float32)
    widen(raw, dtype, values)
    return values.astype(np.float64)


def _sorted_tensors(adapter: Checkpoint) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Factors by module and kind, and the saved tensors by their name in the model."""
    pairs: dict[str, dict[str, str]] = {}
    saved: dict[str, str] = {}
    for name in adapter.tensors:
        inner = name.removeprefix(_WRAPPED)
        match = _LORA.search(inner)
        if match is None:
            plain = inner.replace(".modules_to_save.", ".").replace(".base_layer.", ".")
            saved[plain] = name
        elif match[4]:
            raise CheckpointError(
                f"{adapter.source}: tensor {name!a} is of another LoRA format than PEFT's; "
                "convert it, or merge it and give the full checkpoint"
            )
        else:
            kind = ("e" if match[1] else "") + match[2]
            pairs.setdefault(inner[: match.start()], {})[kind] = name
    if not pairs:
        raise CheckpointError(f"{adapter.source}: an adapter without LoRA factors")
    return pairs, saved
