"""An adapter and the base that it is merged into: that of its configuration, or it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from randes_cli import TaskInput, add, pack, unpack
from randes_cli.errors import MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.reports import TaskSummary
from randes_cli.specs import PackOptions
from tests.checkpoints import random_state, save

BASE = {"layers.0.q.weight": [16, 16], "layers.0.up.weight": [40, 16]}


def put_adapter(folder: Path, module: str, claimed: str | None) -> TaskInput:
    folder.mkdir(parents=True)
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
    config = json.dumps({**fields, "base_model_name_or_path": claimed})
    (folder / "adapter_config.json").write_text(config)
    factors = {f"base_model.model.{module}.lora_A.weight": torch.ones(2, 16)}
    factors[f"base_model.model.{module}.lora_B.weight"] = torch.ones(16, 2)
    save_file(factors, folder / "adapter_model.safetensors")
    return TaskInput(folder.name, str(folder))


def claims(tasks: tuple[TaskSummary, ...]) -> list[str]:
    return [note for task in tasks for note in task.notes if "trained on" in note]


@pytest.mark.parametrize(
    ("claimed", "told"),
    [
        ("someone/other-7b", True),
        ("someone/my-base", False),
        ("/elsewhere/my-base/", False),
        (None, False),
    ],
)
def test_another_base_in_its_configuration_is_said(
    claimed: str | None, told: bool, tmp_path: Path
) -> None:
    save(random_state(BASE), tmp_path / "my-base" / "model.safetensors")
    one = put_adapter(tmp_path / "one", "layers.0.q", claimed)
    report = pack(str(tmp_path / "my-base"), [one], tmp_path / "m.randes")
    said = [f"its configuration says that it was trained on {claimed}"] if told else []
    assert claims(report.tasks) == said
    two = put_adapter(tmp_path / "two", "layers.0.q", claimed)
    assert claims(add(tmp_path / "m.randes", [two]).after) == said
    with BankFile(tmp_path / "m.randes") as bank:
        assert len(describe(bank).tasks) == 2


def test_an_update_of_a_layer_that_the_base_lacks_goes_into_no_other(tmp_path: Path) -> None:
    save(random_state(BASE), tmp_path / "base" / "model.safetensors")
    one = put_adapter(tmp_path / "one", "layers.9.q", None)
    with pytest.raises(MismatchError, match=r"adapts layers\.9\.q, which the base .* lacks"):
        pack(str(tmp_path / "base"), [one], tmp_path / "m.randes")


@pytest.mark.parametrize(
    ("saved", "shape"),
    [
        ("model.layers.0.q.bias", (16,)),  # its weight is there under another name
        ("model.words.embed_tokens.weight", (9, 16)),  # which of the two?
        ("layers.0.norm_after.weight", (16,)),  # within the model
        ("output_projection.weight", (9, 16)),  # a second output layer
    ],
)
def test_what_the_base_has_under_another_name_is_not_saved_beside_it(
    saved: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    towers = {f"{tower}.model.embed_tokens.weight": [9, 16] for tower in ("text", "image")}
    base = {**BASE, **towers, "lm_head.weight": [9, 16]}
    save(random_state(base), tmp_path / "base" / "model.safetensors")
    one = put_adapter(tmp_path / "one", "layers.0.q", None)
    file = tmp_path / "one" / "adapter_model.safetensors"
    save_file({**load_file(file), f"base_model.model.{saved}": torch.ones(shape)}, file)
    with pytest.raises(MismatchError, match=f"saves '{saved}', which the base .* lacks"):
        pack(str(tmp_path / "base"), [one], tmp_path / "m.randes")


@pytest.mark.parametrize(
    "module", ["lm_head", "encoder.embed_tokens", "text.cls.predictions.decoder"]
)
def test_an_adapter_of_a_tied_embedding_may_stay_one(module: str, tmp_path: Path) -> None:
    save(
        random_state({**BASE, "decoder.embed_tokens.weight": [9, 16]}),
        tmp_path / "base" / "model.safetensors",
    )
    one = put_adapter(tmp_path / "one", module, None)
    options = PackOptions(adapters=True)
    assert pack(str(tmp_path / "base"), [one], tmp_path / "m.randes", options).adapters == "kept"
    plain = tmp_path / "plain" / "model.safetensors"
    save(random_state(BASE), plain)
    with pytest.raises(MismatchError, match=f"adapts {module}, which the base .* lacks"):
        pack(str(plain), [one], tmp_path / "n.randes", options)


def put_tied(folder: Path, config: dict[str, Any], embedding: str) -> tuple[str, TaskInput]:
    """A base of one embedding, which its head shares, and an adapter that saves another."""
    save(random_state({**BASE, embedding: [9, 16]}), folder / "base" / "model.safetensors")
    (folder / "base" / "config.json").write_text(json.dumps(config))
    one = put_adapter(folder / "one", "layers.0.q", None)
    file = folder / "one" / "adapter_model.safetensors"
    save_file({**load_file(file), f"base_model.model.{embedding}": torch.ones(9, 16)}, file)
    return str(folder / "base"), one


@pytest.mark.parametrize(
    ("kind", "architecture", "head"),
    [
        ("moonshine", "MoonshineForConditionalGeneration", "proj_out.weight"),
        ("canary", "CanaryForConditionalGeneration", "proj_out.weight"),
        ("bert-generation", "BertGenerationDecoder", "lm_head.decoder.weight"),
        ("llama", "LlamaForCausalLM", "lm_head.weight"),
    ],
)
def test_a_head_parted_by_an_adapter_has_the_name_that_its_model_gives_it(
    kind: str, architecture: str, head: str, tmp_path: Path
) -> None:
    embedding = "model.decoder.embed_tokens.weight"
    config = {"model_type": kind, "architectures": [architecture], "tie_word_embeddings": True}
    base, one = put_tied(tmp_path, config, embedding)
    pack(base, [one], tmp_path / "m.randes")
    unpack(tmp_path / "m.randes", "one", tmp_path / "out")
    state = load_file(tmp_path / "out" / "model.safetensors")
    before = load_file(tmp_path / "base" / "model.safetensors")
    assert state.keys() == {*before, head}
    assert torch.equal(state[head], before[embedding])
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    )


@pytest.mark.parametrize(
    ("kind", "embedding"),
    [("t5", "transformer.shared.weight"), ("prophetnet", "prophetnet.word_embeddings.weight")],
)
def test_an_embedding_that_parts_share_is_not_changed_alone(
    kind: str, embedding: str, tmp_path: Path
) -> None:
    base, one = put_tied(tmp_path, {"model_type": kind}, embedding)
    with pytest.raises(MismatchError, match=rf"or its head, which this kind of model \({kind}\)"):
        pack(base, [one], tmp_path / "m.randes")


def test_an_embedding_that_a_head_within_a_part_shares_is_not_changed_alone(tmp_path: Path) -> None:
    embedding = "language_model.model.decoder.embed_tokens.weight"
    config: dict[str, Any] = {"model_type": "blip-2", "text_config": {"tie_word_embeddings": True}}
    base, one = put_tied(tmp_path, config, embedding)
    with pytest.raises(MismatchError, match=r"or its head, which this kind of model \(blip-2\)"):
        pack(base, [one], tmp_path / "m.randes")
    config["text_config"] = {"tie_word_embeddings": False}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    assert pack(base, [one], tmp_path / "m.randes").adapters == "merged"
