"""Adapters that do not say what to merge, or not of this base: refused in words, never merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from randes_cli.errors import CheckpointError, MismatchError
from tests.adapters import Arrays, merged

ROWS = "m.embed_tokens.token_adapter.trainable_tokens_delta"
EXPERTS = {"target_parameters": ["experts.gate_up_proj"]}
LENGTHS = {"use_dora": True}
TOKENS = {"trainable_token_indices": {"embed_tokens": [1, 7]}}


def ones(*shape: int, dtype: Any = np.float32) -> Any:
    return np.ones(shape, dtype)


def write(folder: Path, tensors: Arrays, config: Any, dtype: Any = np.float32) -> None:
    """A base and an adapter of its `q`, with more tensors, or None for one that it lacks."""
    (folder / "base").mkdir()
    base = {
        "m.q.weight": ones(6, 4),
        "m.zero.weight": np.zeros((6, 4)),
        "m.embed_tokens.weight": ones(8, 4),
        "m.experts.gate_up_proj": ones(2, 4, 4),
        "lm_head.weight": ones(8, 4),
    }
    base = {name: values.astype(dtype) for name, values in base.items()}
    save_file(base, folder / "base" / "model.safetensors")
    (folder / "adapter").mkdir()
    own: dict[str, Any] = {"m.q.lora_A.weight": ones(2, 4), "m.q.lora_B.weight": ones(6, 2)}
    given = {f"base_model.model.{n}": t for n, t in {**own, **tensors}.items() if t is not None}
    save_file(given, folder / "adapter" / "adapter_model.safetensors")
    if isinstance(config, dict):
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, **config}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))


def of_experts(**more: Any) -> Arrays:
    start = "m.experts.lora"
    return {f"{start}_A.weight": ones(4, 4), f"{start}_B.weight": ones(4, 4), **more}


@pytest.mark.parametrize(
    ("tensors", "config", "said"),
    [
        ({"m.q.lora_B.weight": np.full((6, 2), np.inf, np.float32)}, {}, "not finite"),
        ({"m.q.lora_A.weight": None}, {}, "m.q lacks one of its two factors"),
        ({"m.q.lora_A.weight": ones(2, 5)}, {}, r"adapts a weight of \[6, 5\], .* has \[6, 4\]"),
        ({"m.q.lora_A.weight": ones(3, 4)}, {}, r"factors \[3, 4\] and \[6, 2\]"),
        ({"m.q.lora_B.bias": ones(6)}, {"lora_bias": True}, "adapts a bias that the base lacks"),
        ({"m.q.lora_magnitude_vector": ones(5)}, LENGTHS, "has 5 lengths, .* 6 outputs"),
        (
            {
                "m.zero.lora_A.weight": ones(2, 4),
                "m.zero.lora_B.weight": 0 * ones(6, 2),
                "m.zero.lora_magnitude_vector": ones(6),
                "m.q.lora_magnitude_vector": ones(6),
            },
            LENGTHS,
            "m.zero.lora_magnitude_vector' or what it is of is zero",
        ),
        ({"m.q.lora_magnitude_vector": ones(6)}, {}, "differ about use_dora"),
        ({ROWS: ones(3, 4)}, TOKENS, "its configuration says 2 rows"),
        ({ROWS: ones(2, 4)}, {}, "its configuration says 0 rows"),
        ({"m.x.trainable_tokens_delta": ones(2, 4)}, TOKENS, "trains tokens of m.x, which"),
        (
            {ROWS: ones(2, 4)},
            {"trainable_token_indices": {"embed_tokens": [1, 8]}},
            "trains token 8 of m.embed_tokens, of which the base has 8",
        ),
        ({ROWS: ones(2, 4), "m.embed_tokens.weight": ones(8, 4)}, TOKENS, "and adapts it, too"),
        (of_experts(), EXPERTS, "experts.gate_up_proj is square, and nothing says"),
        (
            of_experts(
                **{
                    **{"m.experts.lora_magnitude_vector": ones(4)},
                    **dict.fromkeys(("m.q.lora_A.weight", "m.q.lora_B.weight")),
                }
            ),
            {**EXPERTS, **LENGTHS},
            "DoRA of the parameters of m.experts",
        ),
        (
            {"m.q.lora_A.weight": ones(2, 5)},
            {"target_parameters": ["q.weight"]},
            "adapts m.q, which",
        ),
        ({}, {"target_parameters": ["q.weight"], "r": 1}, "adapts m.q, which"),
        ({}, {"target_parameters": ["q.weight"], "r": 4}, "adapts m.q, which"),
        ({}, {"r": "2"}, "rank '2' is no positive integer"),
        ({}, {"r": True}, "rank 'True' is no positive integer"),
        ({}, {"r": 0}, "rank '0' is no positive integer"),
        ({}, {"lora_alpha": "2"}, "alpha '2' is no finite number"),
        ({}, {"lora_alpha": float("inf")}, "alpha 'inf' is no finite number"),
        ({}, {"trainable_token_indices": [1, 1]}, "are no rows, each once"),
        ({}, {"trainable_token_indices": [-1]}, "are no rows, each once"),
        ({}, {"target_parameters": [3]}, "target_parameters are no names"),
        ({}, {"rank_pattern": {"(": 1}}, "pattern"),
        ({}, [], "not a JSON object"),
        ({}, {"peft_type": None}, "a 'None' adapter; only LoRA"),
        ({}, {"peft_type": "PREFIX_TUNING"}, "no checkpoint can hold it"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused(
    tensors: Arrays, config: Any, said: str, tmp_path: Path
) -> None:
    write(tmp_path, tensors, config)
    with pytest.raises((CheckpointError, MismatchError), match=said):
        merged(tmp_path / "base", tmp_path / "adapter")


@pytest.mark.parametrize("where", [{ROWS: ones(2, 4) * 1e6}, {"lm_head.weight": ones(8, 4) * 1e6}])
def test_what_passes_the_range_of_the_bases_dtype_is_refused(where: Any, tmp_path: Path) -> None:
    write(tmp_path, where, TOKENS if ROWS in where else {}, np.float16)
    with pytest.raises(CheckpointError, match="passes the range of the base's dtype"):
        merged(tmp_path / "base", tmp_path / "adapter")


def test_what_an_adapter_saves_comes_in_the_bases_dtype(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head, row = (rng.standard_normal((count, 4)).astype(np.float32) for count in (8, 2))
    tensors = {"lm_head.weight": head, ROWS: row, "new.weight": head}
    write(tmp_path, tensors, TOKENS, np.float16)
    found = merged(tmp_path / "base", tmp_path / "adapter")
    assert np.array_equal(found["lm_head.weight"], head.astype(np.float16))
    assert np.array_equal(found["m.embed_tokens.weight"][[1, 7]], row.astype(np.float16))
    assert (found["m.embed_tokens.weight"][[0, 2, 3, 4, 5, 6]] == 1).all()
    assert np.array_equal(found["new.weight"], head)  # the base has none: as it was


@pytest.mark.parametrize("turned", [False, True])
def test_the_sides_of_square_experts_are_told_by_those_that_are_not(
    turned: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((4, 4)).astype(np.float32) for _ in "ab")
    write(tmp_path, {"m.experts.lora_A.weight": a, "m.experts.lora_B.weight": b}, EXPERTS)
    file = tmp_path / "base" / "model.safetensors"
    down = {"m.experts.down_proj": ones(2, *((2, 4) if turned else (4, 2)))}
    save_file({**load_file(file), **down}, file)
    found = merged(tmp_path / "base", tmp_path / "adapter")["m.experts.gate_up_proj"]
    for expert in range(2):
        delta = b.reshape(4, 2, 2)[:, :, expert] @ a.reshape(2, 2, 4)[expert]
        assert np.allclose(found[expert], 1 + (delta.T if turned else delta), atol=1e-5)


@pytest.mark.parametrize("conv1d", [False, True])
def test_a_square_weight_is_turned_where_others_of_the_base_are(
    conv1d: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((4, 4)).astype(np.float32) for _ in "ab")
    write(tmp_path, {"c_proj.lora_A.weight": a, "c_proj.lora_B.weight": b}, {"r": 4})
    named = {"m.q.lora_A.weight", "m.q.lora_B.weight"}
    own = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    own = {n: t for n, t in own.items() if n.removeprefix("base_model.model.") not in named}
    save_file(own, tmp_path / "adapter" / "adapter_model.safetensors")
    base = {"c_proj.weight": ones(4, 4), "c_attn.bias": ones(12)}
    base["c_attn.weight"] = ones(*((4, 12) if conv1d else (12, 4)))
    save_file(base, tmp_path / "base" / "model.safetensors")
    found = merged(tmp_path / "base", tmp_path / "adapter")["c_proj.weight"]
    delta = b @ a / 2  # α of `write`: 2 of rank 4
    assert np.allclose(found, 1 + (delta.T if conv1d else delta), atol=1e-5)


@pytest.mark.parametrize("have", [["one"], ["one", "two"], []])
def test_an_adapter_of_one_model_is_of_the_only_component_that_has_its_modules(
    have: list[str], tmp_path: Path
) -> None:
    write(tmp_path, {}, {})
    (tmp_path / "base" / "model.safetensors").unlink()
    (tmp_path / "base" / "model_index.json").write_text('{"one": ["a", "A"], "two": ["a", "B"]}')
    for name in ("one", "two"):
        (tmp_path / "base" / name).mkdir()
        tensors = {"m.q.weight": ones(6, 4)} if name in have else {"m.x.weight": ones(6, 4)}
        save_file(tensors, tmp_path / "base" / name / "model.safetensors")
    if have == ["one"]:
        found = merged(tmp_path / "base", tmp_path / "adapter")
        assert (found["one/m.q.weight"] == 3).all() and (found["two/m.x.weight"] == 1).all()
    else:
        said = "fits one and two of the base; which is meant" if have else "adapts m.q, which"
        with pytest.raises(MismatchError, match=said):
            merged(tmp_path / "base", tmp_path / "adapter")
