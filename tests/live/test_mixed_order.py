"""Libraries that put rows into an order of their own: each row keeps its task, or it is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import randes_cli
from randes_cli.errors import MissingError
from tests.live.many import ASKED, TASKS, options, pack_folders
from tests.models import SMALL, perturb

#: Of different lengths: they would be sorted.
_TEXTS = ["a", "a b b a", "b a", "b b b", "a a b b a b"]


def sentences(folder: Path, *behind: Any) -> Path:
    """A bank of sentence encoders, with these layers behind the pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tf.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "enc")
    tf.BertModel(tf.BertConfig(**SMALL)).save_pretrained(folder / "enc")
    parts = [Transformer(str(folder / "enc")), Pooling(32), *behind]
    whole = SentenceTransformer(modules=parts, device="cpu")
    whole.save(str(folder / "base"))
    for number, task in enumerate(TASKS):
        perturb(whole, number)
        whole.save(str(folder / task))
    return pack_folders(folder, options())


def opened(bank: Path, task: str | None = None) -> Any:
    return randes_cli.sentence_transformers.from_bank(bank, task, device="cpu")


def assert_encoded(found: torch.Tensor, bank: Path) -> None:
    for row, asked in enumerate(ASKED):
        wanted = opened(bank, asked).encode(_TEXTS, convert_to_tensor=True)
        assert (found[row] - wanted[row]).abs().max() < 1e-5
        assert row == 0 or (found[row] - wanted[0]).abs().max() > 1e-3


def test_sentences_keep_their_tasks_whichever_thread_encodes(tmp_path: Path) -> None:
    bank = sentences(tmp_path)
    model = opened(bank)
    mixed = randes_cli.attach(model[0].auto_model, bank)
    with mixed.tasks(ASKED), ThreadPoolExecutor(1) as other:
        found = model.encode(_TEXTS, convert_to_tensor=True)
        there = other.submit(model.encode, _TEXTS, convert_to_tensor=True).result()
    assert torch.equal(found, there)
    assert_encoded(found, bank)


def test_other_parts_that_tasks_have_are_said_and_attached_as_well(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense

    bank = sentences(tmp_path, Dense(32, 12))
    model = opened(bank)
    with pytest.warns(UserWarning, match="differ from the base in '2_Dense', too"):
        mixed = randes_cli.attach(model[0].auto_model, bank, component="")
    with pytest.warns(UserWarning, match="differ from the base in '', too"):
        dense = randes_cli.attach(model[2], bank, component="2_Dense")
    with mixed.tasks(ASKED), dense.tasks(ASKED):
        assert_encoded(model.encode(_TEXTS, convert_to_tensor=True), bank)
    with pytest.raises(MissingError, match="has no component '1_Dense', but '', '2_Dense'"):
        randes_cli.attach(opened(bank)[2], bank, component="1_Dense")
