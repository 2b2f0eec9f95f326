"""Heads and vocabularies of other sizes among the tasks of one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import randes_cli
from tests.live.many import (
    ASKED,
    alone,
    assert_near,
    attached,
    batch_of,
    options,
    pack_folders,
)
from tests.models import SMALL, perturb


def heads(folder: Path, of_base: int = 2) -> Path:
    """Classifiers with heads of other sizes, one without a pooler, and grown vocabularies."""
    torch.manual_seed(0)
    base = tf.BertForSequenceClassification(tf.BertConfig(**SMALL, num_labels=of_base))
    base.save_pretrained(folder / "base")
    sizes = {"cars": (96, 7), "sun": (101, 2), "dtd": (103, 4)}
    for number, (task, (words, labels)) in enumerate(sizes.items()):
        size = {**SMALL, "vocab_size": words}
        model = tf.BertForSequenceClassification(tf.BertConfig(**size, num_labels=labels))
        for name, value in base.state_dict().items():
            target = model.state_dict()[name]
            if name.startswith("bert"):
                target[: len(value)] = value
        perturb(model, number)
        if task == "dtd":  # what it left as it was
            model.bert.encoder.layer[1].load_state_dict(base.bert.encoder.layer[1].state_dict())
        model.save_pretrained(folder / task)
    return pack_folders(folder, options())


def test_heads_of_other_sizes_and_grown_vocabularies(tmp_path: Path) -> None:
    bank = heads(tmp_path)
    mixed, models = attached(bank), alone(bank)
    ids = batch_of({"input_ids": torch.zeros(1, 8, dtype=torch.long)})["input_ids"]
    ids[0, 2], ids[2, 3] = 100, 102  # words that sun and dtd added
    with torch.inference_mode(), mixed.tasks(ASKED) as model:
        found = model(input_ids=ids).logits
    assert found.shape == (5, 4 + 3)
    for row, task in enumerate(ASKED):
        wanted = models[task](input_ids=ids[row : row + 1]).logits[0].detach()
        assert_near(found[row, : len(wanted)], wanted)
        assert (found[row, len(wanted) :] == -torch.inf).all()
    with torch.inference_mode(), mixed.tasks(["sun", None]) as model:
        assert model(input_ids=ids[:2]).logits.shape == (2, 2)
        ids[1, 0] = 100  # no word of the base: no answer in its name
        assert model(input_ids=ids[:2]).logits[1].isnan().all()


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
@pytest.mark.parametrize("most", [0, 2**22], ids=["matrices", "table"])
def test_rows_whose_heads_are_all_smaller_than_the_bases(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("randes_cli.live.attaching.MOST_TABLE", most)
    asked = ("sun", "dtd", "sun", "dtd")
    bank = heads(tmp_path, of_base=7)
    mixed, models = attached(bank), alone(bank, asked)
    ids = batch_of({"input_ids": torch.zeros(1, 8, dtype=torch.long)}, 4)["input_ids"]
    with torch.inference_mode(), mixed.tasks(asked) as model:
        found = model(input_ids=ids).logits
        assert found.shape == (4, 4)
        for row, task in enumerate(asked):
            wanted = models[task](input_ids=ids[row : row + 1]).logits[0]
            assert_near(found[row, : len(wanted)], wanted)
            assert (found[row, len(wanted) :] == -torch.inf).all()


def language_models(folder: Path, tied: bool) -> Path:
    """Llamas with a vocabulary that two tasks grew and one cut."""
    torch.manual_seed(0)
    size = {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": tied}
    base = tf.LlamaForCausalLM(tf.LlamaConfig(**size))
    base.save_pretrained(folder / "base")
    for number, (task, words) in enumerate({"cars": 99, "sun": 104, "dtd": 90}.items()):
        model = tf.LlamaForCausalLM.from_pretrained(folder / "base")
        model.resize_token_embeddings(words)
        perturb(model, number)
        model.save_pretrained(folder / task)
    return pack_folders(folder, options(groups=2))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_vocabulary_of_another_size_in_and_out(tmp_path: Path, tied: bool) -> None:
    bank = language_models(tmp_path, tied)
    models = alone(bank)
    for hold in ("dense", "codes"):
        assert_sizes(attached(bank, hold=hold), models)


def assert_sizes(mixed: randes_cli.MixedModel, models: dict[str | None, Any]) -> None:
    ids = torch.randint(3, 90, (5, 6), generator=torch.Generator().manual_seed(1))
    ids[0, 3], ids[1, 2] = 103, 98
    with torch.inference_mode(), mixed.tasks(ASKED) as model:
        found = model(input_ids=ids).logits
        assert found.shape[-1] == 104
    for row, task in enumerate(ASKED):
        wanted = models[task](input_ids=ids[row : row + 1]).logits[0].detach()
        assert_near(found[row, :, : wanted.shape[-1]], wanted)
        assert (found[row, :, wanted.shape[-1] :] == -torch.inf).all()
    for task in ("cars", "sun", "dtd"):
        with torch.inference_mode(), mixed.tasks([task] * 2) as model:
            part = ids[2:4]
            assert_near(model(input_ids=part).logits, models[task](input_ids=part).logits)


def test_a_tied_weight_is_held_once(tmp_path: Path) -> None:
    tied = attached(language_models(tmp_path / "tied", True)).memory
    untied = attached(language_models(tmp_path / "untied", False)).memory
    assert untied["tasks"] - tied["tasks"] > 0.9 * 96 * 32 * 4
