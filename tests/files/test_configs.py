"""A config.json agrees with the weights beside it: vocabulary, positions, labels, ties, dtype."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from randes_cli.files.checkpoint.configs import dtype_called, match_configs, with_dtype
from randes_cli.files.side_files import SideFile, content_digest
from randes_cli.specs import TensorInfo

BASE = {"model.embed_tokens.weight": (100, 8), "wpe.weight": (32, 8), "h.0.weight": (8, 8)}


def tensors(**shapes: tuple[int, ...]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, "F32", shape) for name, shape in shapes.items()}


def matched(config: dict[str, Any], **changes: tuple[int, ...]) -> tuple[dict[str, Any], str]:
    data = json.dumps(config).encode()
    files = {"config.json": SideFile(Path("config.json"), content_digest(data), len(data), data)}
    found, notes = match_configs(files, tensors(**BASE), tensors(**{**BASE, **changes}))
    return json.loads(found["config.json"].content()), " ".join(notes)


@pytest.mark.parametrize(
    ("config", "changes", "wanted", "said"),
    [
        (
            {"vocab_size": 100},
            {"model.embed_tokens.weight": (104, 8)},
            {"vocab_size": 104},
            "config.json: vocab_size is 104, as the weights have it",
        ),
        (
            {"text_config": {"vocab_size": 100}, "vision_config": {"vocab_size": 7}},
            {"model.embed_tokens.weight": (104, 8)},
            {"text_config": {"vocab_size": 104}, "vision_config": {"vocab_size": 7}},
            "vocab_size is 104",
        ),
        (
            {"n_positions": 32, "vocab_size": 32},
            {"wpe.weight": (64, 8)},
            {"n_positions": 64, "vocab_size": 32},
            "n_positions is 64",
        ),
        (
            {"model_type": "bert"},
            {"classifier.weight": (3, 8), "classifier.bias": (3,)},
            {
                "model_type": "bert",
                "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
                "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
            },
            "3 labels",
        ),
        (
            {"tie_word_embeddings": True},
            {"lm_head.weight": (100, 8)},
            {"tie_word_embeddings": False},
            "tie_word_embeddings is false",
        ),
        ({"vocab_size": 100}, {"score.weight": (2, 8)}, {"vocab_size": 100}, ""),
        (
            {
                "encoder": {"model_type": "vit"},
                "decoder": {"model_type": "gpt2", "vocab_size": 100},
            },
            {"model.embed_tokens.weight": (104, 8)},
            {
                "encoder": {"model_type": "vit"},
                "decoder": {"model_type": "gpt2", "vocab_size": 104},
            },
            "vocab_size is 104",
        ),
        (
            {"thinker_config": {"text_config": {"vocab_size": 100}}},
            {"model.embed_tokens.weight": (104, 8)},
            {"thinker_config": {"text_config": {"vocab_size": 104}}},
            "vocab_size is 104",
        ),
        ({"vocab_size": 100, "x": 1}, {}, {"vocab_size": 100, "x": 1}, ""),
    ],
)
def test_a_config_follows_the_weights_and_says_so(
    config: dict[str, Any],
    changes: dict[str, tuple[int, ...]],
    wanted: dict[str, Any],
    said: str,
) -> None:
    found, notes = matched(config, **changes)
    assert found == wanted
    assert said in notes and bool(notes) == bool(said)


@pytest.mark.parametrize(
    ("name", "wide"),
    [("classifier.1", ()), ("cls_classifier", ()), ("logits_proj", ()), ("decode_head.x", (1, 1))],
)
def test_a_head_with_a_row_for_each_label_is_known_whatever_it_is_called(
    name: str, wide: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BASE, f"{name}.weight", (3, 8, *wide))
    labels = {"0": "a", "1": "b", "2": "c"}
    found, notes = matched({"id2label": labels}, **{f"{name}.weight": (5, 8, *wide)})
    assert len(found["id2label"]) == 5 and "5 labels" in notes
    # Other rows of what has no row for each label are those of another thing.
    monkeypatch.setitem(BASE, "gate.weight", (2, 8))
    for config in ({"id2label": labels}, {"vocab_size": 100}):
        assert matched(config, **{"gate.weight": (5, 8)}) == (config, "")


def test_classes_of_timm_are_those_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASE, "head.fc.weight", (20, 8))
    said = {"num_classes": 20, "label_names": ["x"], "classifier": "head.fc"}
    arguments = {"num_classes": 20, "depth": 2}
    config = {"architecture": "vit", **said, "pretrained_cfg": said, "model_args": arguments}
    found, notes = matched(config, **{"head.fc.weight": (5, 8)})
    rest = {"num_classes": 5, "classifier": "head.fc"}
    assert found == {
        **{"architecture": "vit", **rest, "pretrained_cfg": rest},
        "model_args": {"num_classes": 5, "depth": 2},
    }
    assert notes == "config.json: num_classes is 5, as the weights have it"


def test_a_config_is_read_as_python_reads_it_and_keeps_what_json_lacks() -> None:
    data = b'{"time_step_limit": [0.0, Infinity], "x": NaN, "vocab_size": 7, "vocab_size": 100}'
    files = {"config.json": SideFile(Path("config.json"), content_digest(data), len(data), data)}
    grown = {**BASE, "model.embed_tokens.weight": (104, 8)}
    found, notes = match_configs(files, tensors(**BASE), tensors(**grown))
    content = found["config.json"].content()
    assert b"Infinity" in content and b'"x": NaN' in content and b'"vocab_size": 104' in content
    assert notes == ("config.json: vocab_size is 104, as the weights have it",)


def test_a_config_that_is_no_object_or_unchanged_keeps_its_bytes() -> None:
    for data in (b"[1]", b"{", b'{ "dtype":"bfloat16" }', b'{"n": 1}'):
        assert with_dtype(data, "BF16") == data


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("BF16", "BF16"),
        ("bfloat16", "BF16"),
        ("torch.bfloat16", "BF16"),
        ("fp16", "F16"),
        ("half", "F16"),
        ("float", "F32"),
        ("float8_e4m3fn", "F8_E4M3"),
        ("int8", None),
        ("", None),
    ],
)
def test_dtypes_go_by_the_names_that_people_use(name: str, dtype: str | None) -> None:
    assert dtype_called(name) == dtype


def test_a_shape_that_no_field_is_known_for_is_told_of() -> None:
    config: dict[str, Any] = {"model_type": "openelm", "num_kv_heads": [4, 4]}
    changes = {"h.0.weight": (4, 8), "model.embed_tokens.weight": (104, 8), "head.weight": (104, 8)}
    found, said = matched(config, **changes)
    assert found == config
    assert said == (
        "config.json is the base's, and says another shape of h.0.weight: set it right, or the "
        "weights will not load"
    )
