"""Recognises quantised weights, whose deltas mean nothing, and says what to give instead."""

from __future__ import annotations

import re
from collections.abc import Mapping

from randes_cli.errors import CheckpointError
from randes_cli.specs import FLOAT_DTYPES, TensorInfo, Tensors, once

#: Endings of tensor names that only quantised checkpoints have, and whose they are.
_ENDINGS = {
    ".g_idx": "GPTQ",
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".absmax": "bitsandbytes 4-bit",
    ".quant_map": "bitsandbytes 4-bit",
    ".quant_state": "bitsandbytes 4-bit",
    ".SCB": "bitsandbytes 8-bit",
    ".weight_scale_inv": "fp8 with scales",
    ".weight_scale": "fp8 or int8 with scales",
    ".weight_scales": "fp8 or int8 with scales",
    ".scale_weight": "scaled fp8",
    "scaled_fp8": "scaled fp8",
    ".W_q": "HQQ",
    ".weight._data": "quanto",
    ".weight_packed": "compressed-tensors",
    ".trellis": "EXL3",
    ".Qidxs": "QuIP#",
    ".weight_zero_point": "compressed-tensors",
}
_REMEDY = (
    "give the unquantised model that it was made from, or one loaded and saved with its "
    "weights dequantised"
)


#: Dtypes of matrices that are codes where scales lie beside them.
_CODES = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "F8_E4M3", "F8_E5M2"})
_SCALE = re.compile(r"(^|_)scales?(_\w+)?$", re.IGNORECASE)
#: Integers of models that are no weights: positions, look-up tables, masks.
_NO_CODES = re.compile(r"ids?$|ind(ex|ices)$|mask$|buckets?$", re.IGNORECASE)
_INTEGERS = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"})
#: What keeps its figures in a module of its own beside the weight's (modelopt, Quark).
_QUANTISER = re.compile(r"\.\w+_quantizer$")
#: Parameters of models that are called scales and scale no weight.
_NO_SCALE = ("logit_scale", "layer_scale")


def refuse_quantised(source: str, tensors: Tensors) -> None:
    """Raise CheckpointError when tensors are those of quantised weights.

    By names that only one kind of them has; else a matrix of integers (or fp8) with scales in
    the same module, whoever wrote it.
    """
    found = once(_named_so, tensors) or once(_scaled, tensors)
    if found is not None:
        raise CheckpointError(f"{source}: {found}; {_REMEDY}")


def _scaled(tensors: Tensors) -> str | None:
    """Integers and their scales in one module, in words."""
    codes: dict[str, str] = {}
    for name, tensor in tensors.items():
        if tensor.dtype in _CODES and len(tensor.shape) > 1 and not _NO_CODES.search(name):
            codes.setdefault(name.rpartition(".")[0], name)
    for name in tensors if codes else ():
        module, _, last = name.rpartition(".")
        module = _QUANTISER.sub("", module)
        if module in codes and _SCALE.search(last) and last not in _NO_SCALE:
            return (
                f"tensors {codes[module]!r} ({tensors[codes[module]].dtype}) and "
                f"{name!r} belong to quantised weights (integers with scales)"
            )
    return None


def _named_so(tensors: Tensors) -> str | None:
    """A tensor that only quantised weights have, in words."""
    endings = tuple(_ENDINGS)
    for name in tensors:
        if name.endswith(endings) or ".quant_state." in name:
            kinds = (kind for ending, kind in _ENDINGS.items() if name.endswith(ending))
            kind = next(kinds, "bitsandbytes 4-bit")
            return f"tensor {name!r} belongs to quantised weights ({kind})"
    return None


def refuse_codes(
    source: str, base: Mapping[str, TensorInfo], task: Mapping[str, TensorInfo]
) -> None:
    """Raise CheckpointError when a task has integers in the place of the base's weights.

    Under the weight's own name, or under others of its module, which lacks the weight.
    """
    weights = {n for n, t in base.items() if t.dtype in FLOAT_DTYPES and len(t.shape) > 1}
    lost = {name.rpartition(".")[0]: name for name in weights if name not in task}
    for name, tensor in task.items():
        if tensor.dtype not in _INTEGERS or tensor.elements < 2:
            continue
        weight = name if name in weights and not _NO_CODES.search(name) else None
        if name not in base:
            weight = weight or lost.get(_QUANTISER.sub("", name.rpartition(".")[0]))
        if weight is not None:
            raise CheckpointError(
                f"{source}: tensor {name!r} ({tensor.dtype}) is in the place of the base's "
                f"{weight!r} ({base[weight].dtype}): quantised weights; {_REMEDY}"
            )


#: Keys under which a model's configuration says how its weights are quantised.
_KEYS = ("quantization_config", "quantization", "compression_config")
#: Fields of files that are about nothing else.
_BITS = frozenset({"bits", "w_bit", "quant_method", "quant_algo"})
_WHOLE = ("quantize_config.json", "hf_quant_config.json")


def drop_quantised(config: dict[str, object]) -> None:
    """Let a configuration say no more that weights are quantised, which are those of a merge."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in _KEYS:
            part.pop(key, None)


def refuse_quantised_config(source: str, file: str, config: object) -> None:
    """Raise CheckpointError when a model's configuration says that its weights are quantised."""
    if not isinstance(config, dict):
        return
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    found = [part[key] for part in parts for key in _KEYS if isinstance(part.get(key), dict)]
    found += [config] if file in _WHOLE and _BITS & config.keys() else []
    for one in found:
        if one:
            kind = str(one.get("quant_method") or one.get("quant_algo") or "an unnamed method")
            raise CheckpointError(
                f"{source}: {file} says that the weights are quantised ({kind[:40]}); {_REMEDY} "
                "(where they are already, take that out of the file)"
            )
