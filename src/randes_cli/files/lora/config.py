"""What an adapter says of itself: adapter_config.json, or diffusers' metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import Any

from randes_cli.errors import CheckpointError
from randes_cli.files.checkpoint.checkpoint import Checkpoint
from randes_cli.files.checkpoint.folders import read_json
from randes_cli.files.checkpoint.foreign import PLACEHOLDER
from randes_cli.files.checkpoint.names import unwrapped
from randes_cli.files.header import parse_json
from randes_cli.files.lora.names import (
    DIFFUSERS_FILE,
    WRAPPED,
    has_components,
    in_diffusers_words,
    is_factor,
    is_of_lycoris,
)
from randes_cli.files.lora.patterns import matches_end, parsed
from randes_cli.files.weight_names import ADAPTER_CONFIG

#: The key of a safetensors file's metadata where diffusers puts LoRA configurations.
_METADATA = "lora_adapter_metadata"
#: Options of a LoRA that change more than base + scaling · B · A.
_REFUSED = (
    "use_qalora",
    "use_bdlora",
    "layer_replication",
    "alora_invocation_tokens",
    "megatron_config",
    "arrow_config",
    "kasa_config",
)
#: Initialisations that change the base's own weights before training.
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
#: Kinds of PEFT's adapters that can be merged.
_KINDS = ("LORA", "LOHA", "LOKR", "TRAINABLE_TOKENS")
#: Kinds that add prompts, or choose by the input: they are no change of weights.
_UNMERGED = re.compile(r"PROMPT|P_TUNING|PREFIX|CPT|CARTRIDGE|XLORA|POLY", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """The part of a configuration that merging needs; see PEFT's LoraConfig.

    Without `rank` (a diffusers LoRA without metadata) the factors say their rank, and α is it.
    """

    rank: int | None = None
    alpha: float = 0.0
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False
    fan_in_fan_out: bool = False
    parameters: tuple[str, ...] = ()
    lora_bias: bool = False
    dora: bool = False
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    saved: tuple[str, ...] = ()
    #: Rows that a module of the base is of one of the adapter's, and how many that has.
    pieces: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def saves_alone(self, weight: str) -> bool:
        """Whether a weight's module was trained whole, apart from what the base ties it to."""
        return weight.removesuffix(".weight").endswith(self.saved)

    def rows(self, module: str) -> tuple[int, ...] | None:
        """The rows of a module's embedding that are trained themselves."""
        for owner, rows in self.tokens.items():
            if not owner or module == owner or module.endswith(f".{owner}"):
                return rows
        return None

    def scaling(self, module: str, rank: int, alpha: float | None) -> float:
        """Factor of B · A: α / r, or α / √r for rank-stabilised LoRA; `alpha` is its own α."""
        if alpha is None and self.rank is None:
            return 1.0
        if alpha is None:
            alpha = self.alpha_pattern.get(_pattern_key(self.alpha_pattern, module), self.alpha)
        return alpha / sqrt(rank) if self.rslora else alpha / rank

    def expected_rank(self, module: str) -> int | None:
        return self.rank_pattern.get(_pattern_key(self.rank_pattern, module), self.rank)

    def parameter_of(self, module: str) -> list[str]:
        """Parameters of a module that are adapted themselves, by their own names."""
        parts = [text.rpartition(".") for text in self.parameters]
        return [
            name
            for owner, _, name in parts
            if name and (module == owner or module.endswith(f".{owner}") or not owner)
        ]


def _pattern_key(patterns: Mapping[str, Any], module: str) -> str:
    """The first pattern that a module's name ends with, as PEFT matches them.

    Also without words of wrappers, which may have come when the patterns had been matched.
    """
    names = {module, unwrapped(module)} if patterns else ()
    for key in patterns:
        try:
            if any(matches_end(key, name) for name in names):
                return key
        except ValueError as error:
            raise CheckpointError(f"{ADAPTER_CONFIG}: {key[:80]!r}: {error}") from None
    return module


def read_config(adapter: Checkpoint) -> dict[str, Any]:
    """A PEFT adapter's configuration. Raises CheckpointError where it is no LoRA, by name."""
    path = adapter.folder / ADAPTER_CONFIG if adapter.folder else None
    if path is None or not path.is_file():
        raise CheckpointError(
            f"{adapter.source}: an adapter without {ADAPTER_CONFIG}; give the folder that holds "
            "both"
        )
    found = read_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    if "fine_tune_type" in found and "peft_type" not in found:
        raise CheckpointError(f"{adapter.source}: an mlx adapter; only PEFT's LoRA is supported")
    kind = str(found.get("peft_type"))
    if kind.upper() not in _KINDS:
        remedy = "merge it with PEFT and give the full checkpoint"
        if _UNMERGED.search(kind):
            remedy = "it works on a model's inputs, so no checkpoint can hold it"
        raise CheckpointError(
            f"{adapter.source}: a {kind[:40]!r} adapter; only LoRA, LoHa and LoKr are supported "
            f"({remedy})"
        )
    return found


def refuse_kind(adapter: Checkpoint) -> None:
    """Raise CheckpointError where a configuration calls an adapter another kind, by name.

    Or where values of it are elsewhere.
    """
    for name, tensor in adapter.tensors.items():
        if not tensor.elements:
            raise CheckpointError(
                f"{adapter.source}: tensor {name!r} has shape {list(tensor.shape)}: {PLACEHOLDER}"
            )
    if adapter.folder is not None and (adapter.folder / ADAPTER_CONFIG).is_file():
        read_config(adapter)


def base_model(adapter: Checkpoint) -> str:
    """The model that an adapter says it was trained on, or ""."""
    return _said(adapter, "base_model_name_or_path")


def task_type(adapter: Checkpoint) -> str:
    """What an adapter says that its model does (``SEQ_CLS``), or ""."""
    return _said(adapter, "task_type")


def _said(adapter: Checkpoint, field: str) -> str:
    if adapter.folder is None or not (adapter.folder / ADAPTER_CONFIG).is_file():
        return ""
    return str(read_config(adapter).get(field) or "")


def is_diffusers(adapter: Checkpoint) -> bool:
    """Whether an adapter is diffusers', whose scaling is 1 where nothing says another.

    All others need an adapter_config.json, for without its α nobody knows how to merge them.
    """
    if any(name.startswith(WRAPPED) for name in adapter.tensors):
        return False
    if adapter.folder is not None and (adapter.folder / ADAPTER_CONFIG).is_file():
        return False
    names = [name for name in adapter.tensors if is_factor(name) or is_of_lycoris(name)]
    return (
        _METADATA in adapter.metadata
        or any(file.path.name == DIFFUSERS_FILE for file in adapter.files)
        or in_diffusers_words(names)
        or has_components(names)
    )


def lora_config(adapter: Checkpoint) -> LoraConfig:
    """The configuration of a PEFT adapter to merge. Raises CheckpointError naming what forbids it.

    A diffusers LoRA has one for each component: see `component_config`.
    """
    return _checked(adapter.source, read_config(adapter))


def component_config(adapter: Checkpoint, component: str) -> LoraConfig:
    """The configuration that a diffusers LoRA has of a component (`unet`, `text_encoder`).

    Without a word of it, it is DoRA where it has lengths, as diffusers has it.
    """
    start = f"{component}." if component else ""
    own_names = (name for name in adapter.tensors if name.startswith(start))
    untold = LoraConfig(dora=any(".lora_magnitude_vector" in name for name in own_names))
    text = adapter.metadata.get(_METADATA)
    if text is None:
        return untold
    try:
        found = parse_json(text.encode(), strict=False)
    except ValueError as error:
        raise CheckpointError(f"{adapter.source}: {_METADATA}: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{adapter.source}: {_METADATA}: not a JSON object")
    own = {key[len(start) :]: value for key, value in found.items() if key.startswith(start)}
    return _checked(adapter.source, own) if own else untold


def _checked(source: str, found: Mapping[str, Any]) -> LoraConfig:
    given = [key for key in _REFUSED if found.get(key)]
    start = str(found.get("init_lora_weights")).lower()
    if start.startswith(CHANGED_BASE):
        given.append(f"init_lora_weights={start[:40]}")
    if given:
        raise CheckpointError(
            f"{source}: cannot be merged: {given[0]} needs more than base + B·A "
            "(merge it with PEFT and give the full checkpoint)"
        )
    try:
        return _parsed(found)
    except (TypeError, ValueError, AttributeError, OverflowError, re.error) as error:
        raise CheckpointError(f"{source}: {ADAPTER_CONFIG}: {str(error)[:200]!r}") from None


def _parsed(found: Mapping[str, Any]) -> LoraConfig:
    ranks = {_pattern(k): _rank(v) for k, v in (found.get("rank_pattern") or {}).items()}
    alphas = {_pattern(k): _alpha(v) for k, v in (found.get("alpha_pattern") or {}).items()}
    parameters = found.get("target_parameters") or ()
    if not all(isinstance(text, str) for text in parameters):
        raise ValueError("target_parameters are no names")
    return LoraConfig(
        _rank(found.get("r", 8)),
        _alpha(found.get("lora_alpha", found.get("alpha", 8))),
        ranks,
        alphas,
        bool(found.get("use_rslora")),
        bool(found.get("fan_in_fan_out")),
        tuple(parameters),
        bool(found.get("lora_bias")),
        bool(found.get("use_dora")),
        _tokens(found.get("token_indices") or found.get("trainable_token_indices")),
        _saved(found),
    )


def _saved(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules that are trained whole, each apart from any that the base ties to it."""
    names = found.get("modules_to_save")
    if not isinstance(names, list) or found.get("ensure_weight_tying"):
        return ()
    return tuple(name for name in names if isinstance(name, str) and name)


def _tokens(found: Any) -> dict[str, tuple[int, ...]]:
    """Rows of embeddings by module; "" where they are of whichever has any."""
    named = found if isinstance(found, dict) else {"": found} if found else {}
    for rows in named.values():
        plain = isinstance(rows, list) and all(type(row) is int and row >= 0 for row in rows)
        if not plain or len(set(rows)) != len(rows):
            raise ValueError("trainable_token_indices are no rows, each once")
    return {str(owner): tuple(rows) for owner, rows in named.items()}


def _pattern(text: str) -> str:
    parsed(text)
    return text


def _rank(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"rank {str(value)[:40]!r} is no positive integer")
    return value


def _alpha(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError(f"alpha {str(value)[:40]!r} is no finite number")
    return float(value)
