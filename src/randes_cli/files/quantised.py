"""Recognises quantised weights, whose deltas mean nothing, and says what to give instead."""

from __future__ import annotations

from collections.abc import Iterable

from randes_cli.errors import CheckpointError

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
    ".weight_packed": "compressed-tensors",
    ".weight_zero_point": "compressed-tensors",
}
_REMEDY = (
    "give the unquantised model that it was made from, or one loaded and saved with its "
    "weights dequantised"
)


def refuse_quantised(source: str, names: Iterable[str]) -> None:
    """Raise CheckpointError when tensor names belong to quantised weights."""
    for name in names:
        for ending, kind in _ENDINGS.items():
            if name.endswith(ending) or ".quant_state." in name:
                found = kind if name.endswith(ending) else "bitsandbytes 4-bit"
                raise CheckpointError(
                    f"{source}: tensor {name!a} belongs to quantised weights ({found}); {_REMEDY}"
                )


#: Keys under which a model's configuration says how its weights are quantised.
_KEYS = ("quantization_config", "quantization", "compression_config")
#: Files that say nothing else.
_WHOLE = ("quantize_config.json", "hf_quant_config.json")


def refuse_quantised_config(source: str, file: str, config: object) -> None:
    """Raise CheckpointError when a model's configuration says that its weights are quantised."""
    if not isinstance(config, dict):
        return
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    found = [part[key] for part in parts for key in _KEYS if isinstance(part.get(key), dict)]
    found += [config] if file in _WHOLE and config else []
    for one in found:
        if one:
            kind = str(one.get("quant_method") or one.get("quant_algo") or "an unnamed method")
            raise CheckpointError(
                f"{source}: {file} says that the weights are quantised ({kind[:40]}); {_REMEDY}"
            )
