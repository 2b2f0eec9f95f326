"""Configurations that must agree with the weights beside them: vocabulary, labels, ties, dtype.

Where weights come back in another shape or dtype than their config.json says, from_pretrained
fails or opens something else; so the config is set right, and a line says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from randes_cli.errors import first_of
from randes_cli.files.checkpoint.quantised import drop_quantised
from randes_cli.files.header import parse_json
from randes_cli.files.side_files import SideFile
from randes_cli.fit import resized, vocabularies
from randes_cli.specs import DTYPES, TensorInfo, Tensors

_POSITIONS = re.compile(r"wpe|position")
_POSITION_KEYS = ("max_position_embeddings", "n_positions", "n_ctx")
_DTYPE_KEYS = ("dtype", "torch_dtype")
#: Last layers of classifiers, whose rows are the labels, where the base has none.
_HEAD = re.compile(
    r"(^|\.)(score|classifier|logits_proj|(cls|distillation)_classifier"
    r"|(score|classifier|classification_head)\.out_proj|classifier\.(1|linear|linear_out))\.weight$"
)
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out|output_projection)\.weight$")
#: Classes of models by the task type of an adapter that brings their head.
_CLASSES = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
}
#: Fields that go with the labels.
_LABELS = frozenset({"num_labels", "label_names", "label_descriptions"})
_CLASS_ENDING = re.compile(r"(For[A-Z]\w*|(With)?LMHeadModel|(?<!Encoder)(?<!Decoder)Model)$")
#: What every configuration of a model has, whatever it is called in another.
_KIND = "model_type"
_TIED_BIAS = re.compile(r"(^|\.)predictions\.bias$")
#: safetensors' dtypes as torch and configurations call them.
TORCH_NAMES = {name: dtype.torch for name, dtype in DTYPES.items() if dtype.floating}
#: What people call them.
DTYPE_NAMES = {
    **{name.lower(): dtype for dtype, name in TORCH_NAMES.items()},
    **{dtype.lower(): dtype for dtype in TORCH_NAMES},
    **{"fp64": "F64", "double": "F64", "fp32": "F32", "float": "F32", "fp16": "F16", "half": "F16"},
    **{"fp8": "F8_E4M3", "float8_e4m3": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
}


def dtype_called(name: str) -> str | None:
    """The dtype that a user calls ``bfloat16``, ``bf16`` or ``BF16``; None for no dtype."""
    return DTYPE_NAMES.get(name.removeprefix("torch.").lower())


def edited(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A JSON object after a change of its fields; the same bytes where it is none or unchanged."""
    try:
        config = parse_json(data, strict=False)
    except ValueError:
        return data
    if not isinstance(config, dict):
        return data
    before = json.dumps(config)
    change(config)
    if json.dumps(config) == before:
        return data
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """A configuration and those nested in it (``text_config``, or a ``decoder``), at any depth."""
    inside = (v for k, v in config.items() if isinstance(v, dict) and ("config" in k or _KIND in v))
    return [config, *(part for one in inside for part in _parts(one))]


def with_dtype(data: bytes, dtype: str) -> bytes:
    """A config.json whose weights are now all of `dtype`."""

    def change(config: dict[str, Any]) -> None:
        for part in _parts(config):
            for key in _DTYPE_KEYS:
                if isinstance(part.get(key), str):
                    part[key] = TORCH_NAMES[dtype]

    return edited(data, change)


def _as_base(config: dict[str, Any], base: Mapping[str, Any]) -> None:
    """What the base's weights are, in the configuration of an adapter, which may say otherwise.

    It may not have grown the vocabulary, and be that of a base in another dtype.
    """
    dtype = next((base[key] for key in _DTYPE_KEYS if base.get(key)), None)
    for key in _DTYPE_KEYS if dtype else ():
        if key in config:
            config[key] = dtype
    for key, value in base.items():
        if key in ("vocab_size", "tie_word_embeddings") and key in config:
            config[key] = value
        elif isinstance(value, dict) and isinstance(config.get(key), dict):
            _as_base(config[key], value)


def _rows(config: dict[str, Any], base: Tensors, task: Tensors) -> None:
    """Numbers of embeddings that grew or shrank."""
    for name, tensor in task.items():
        twin = base.get(name)
        if twin is None or not resized(twin, tensor):
            continue
        keys = _POSITION_KEYS if _POSITIONS.search(name) else ("vocab_size",)
        for part in _parts(config):
            for key in keys:
                if part.get(key) == twin.shape[0]:
                    part[key] = tensor.shape[0]


def _labels(config: dict[str, Any], base: Tensors, task: Tensors) -> None:
    """The labels of a classifier that the base has not, or has with other labels."""
    named, count = config.get("id2label"), _label_count(config)
    timm = _of_timm(config)
    heads = {
        tensor.shape[0]
        for name, tensor in task.items()
        if _is_head(base.get(name), tensor, count if timm or named else -1)
    }
    if len(heads) != 1 or heads == {count}:
        return
    if timm:
        _timm_classes(config, min(heads))
        return
    config["id2label"] = {str(n): f"LABEL_{n}" for n in range(min(heads))}
    config["label2id"] = {f"LABEL_{n}": n for n in range(min(heads))}
    config.pop("num_labels", None)


def _of_timm(config: Mapping[str, Any]) -> bool:
    return "architecture" in config and isinstance(config.get("num_classes"), int)


def _label_count(config: Mapping[str, Any]) -> int:
    """How many labels a configuration says that a classifier has."""
    named = config.get("id2label")
    if _of_timm(config):
        return int(config["num_classes"])
    return len(named) if isinstance(named, dict) else 2


def _other_shapes(data: bytes, base: Tensors, task: Tensors) -> list[str]:
    """Weights of another shape than the base's that are neither embeddings nor heads."""
    with suppress(ValueError):
        config = parse_json(data, strict=False)
        if isinstance(config, dict) and _KIND in config:
            count, known = _label_count(config), vocabularies(base, task)
            return [
                name
                for name, tensor in task.items()
                if name in base
                and len(tensor.shape) > 1
                and tensor.shape != base[name].shape
                and not resized(base[name], tensor, known)
                and not _is_head(base[name], tensor, count)
            ]
    return []


def _is_head(base: TensorInfo | None, task: TensorInfo, count: int) -> bool:
    """Whether a tensor has a row for each label: for more or fewer than the base's `count`."""
    if base is None:
        return bool(_HEAD.search(task.name)) and len(task.shape) == 2
    if base.shape == task.shape or resized(base, task) or len(task.shape) < 2:
        return False
    one_each = base.shape[:1] == (count,) and base.shape[1:] == task.shape[1:]
    return one_each or bool(_HEAD.search(task.name))


def _timm_classes(config: dict[str, Any], count: int) -> None:
    """The number of classes in a configuration of timm's, without the names of others."""
    parts = (config, config.get("pretrained_cfg"), config.get("model_args"))
    for part in (one for one in parts if isinstance(one, dict)):
        if "num_classes" in part:
            part["num_classes"] = count
        for key in ("label_names", "label_descriptions"):
            part.pop(key, None)


def _tie(config: dict[str, Any], base: Tensors, task: Tensors, *, untied: bool) -> None:
    """An output layer of its own where the base ties it to its embedding.

    BERT's ties its bias, too, which no checkpoint then has: there the weights alone tell.
    """
    if any(_TIED_BIAS.search(name) for name in task):
        return
    if untied or any(_OUTPUT.search(name) and name not in base for name in task):
        config["tie_word_embeddings"] = False
        for part in _parts(config)[1:]:
            if "tie_word_embeddings" in part:
                part["tie_word_embeddings"] = False


def _class(config: dict[str, Any], base: Tensors, task: Tensors, *, kind: str) -> None:
    """The class of model that a head needs which the base has not."""
    names, ending = config.get("architectures"), _CLASSES.get(kind)
    if ending is None or task.keys() <= base.keys() or "auto_map" in config:
        return
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str):
        stem = _CLASS_ENDING.sub("", names[0])
        if stem and stem != names[0]:
            config["architectures"] = [stem + ending]


def match_configs(
    files: Mapping[str, SideFile],
    base: Tensors,
    task: Tensors,
    untied: Container[str] = (),
    kind: str = "",
    configs: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[dict[str, SideFile], tuple[str, ...]]:
    """The base's configurations as they fit a task's weights, and a line for each that changed.

    Of each component: its tensors are named ``<component>/<tensor>``. `untied` are the components
    whose head is known to be no more the embedding, `kind` is an adapter's task type, `configs`
    are the base's where those in `files` may be others.
    """
    made, notes = dict(files), []
    for name, file in files.items():
        component, slash, last = name.rpartition("/")
        if last != "config.json":
            continue
        ours, theirs = (_inside(tensors, component + slash) for tensors in (base, task))
        before = file.content()

        parted = component in untied
        change = partial(_fit, base=ours, task=theirs, untied=parted, kind=kind)
        plain = edited(before, partial(_as_base, base=(configs or {}).get(component, {})))
        after = edited(plain, change)
        said = _changes(before, after) if after != before else ""
        if said:  # it may have grown to what it was
            made[name] = file.with_data(after)
            notes.append(f"{name}: {said}, as the weights have it")
        if other := _other_shapes(before, ours, theirs):
            text = f"{name} is the base's, and says another shape of {first_of(other, 3)}"
            notes.append(f"{text}: set it right, or the weights will not load")
    return made, tuple(notes)


def _fit(config: dict[str, Any], base: Tensors, task: Tensors, *, untied: bool, kind: str) -> None:
    _rows(config, base, task)
    _labels(config, base, task)
    _tie(config, base, task, untied=untied)
    _class(config, base, task, kind=kind)
    drop_quantised(config)


def _inside(tensors: Tensors, prefix: str) -> Tensors:
    return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}


def _changes(before: bytes, after: bytes) -> str:
    old, new = (parse_json(data, strict=False) for data in (before, after))
    said = [f"{key} is gone" for key in old if key not in {*new, *_LABELS}]
    for key, value in new.items():
        if json.dumps(old.get(key)) == json.dumps(value) or key == "label2id":  # NaN is not NaN
            continue
        if key == "id2label":
            said.append(f"{len(value)} labels")
        elif isinstance(value, dict):
            said.append(_changes(json.dumps(old[key]).encode(), json.dumps(value).encode()))
        else:
            said.append(f"{key} is {json.dumps(value)}")
    return ", ".join(dict.fromkeys(said))
