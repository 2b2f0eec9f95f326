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


def refuse_quantised_config(source: str, config: object) -> None:
    """Raise CheckpointError when a model's config.json says that its weights are quantised."""
    found = config.get("quantization_config") if isinstance(config, dict) else None
    if isinstance(found, dict) and found:
        kind = str(found.get("quant_method") or "an unnamed method")
        raise CheckpointError(
            f"{source}: config.json says that the weights are quantised ({kind[:40]}); {_REMEDY}"
        )
