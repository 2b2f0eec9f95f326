"""Libraries that put rows into an order of their own: each row keeps its task, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as tf

import randes_cli
from tests.live.many import ASKED, TASKS, options, pack_folders
from tests.models import SMALL, perturb

#: Of different lengths: they would be sorted.
_TEXTS = ["a", "a b b a", "b a", "b b b", "a a b b a b"]


def test_sentences_keep_their_tasks(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tf.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "enc")
    tf.BertModel(tf.BertConfig(**SMALL)).save_pretrained(tmp_path / "enc")
    parts = [Transformer(str(tmp_path / "enc")), Pooling(32)]
    whole = SentenceTransformer(modules=parts, device="cpu")
    whole.save(str(tmp_path / "base"))
    for number, task in enumerate(TASKS):
        perturb(whole, number)
        whole.save(str(tmp_path / task))
    bank = pack_folders(tmp_path, options())
    model: Any = randes_cli.sentence_transformers.from_bank(bank, device="cpu")
    mixed = randes_cli.attach(model[0].auto_model, bank)
    with mixed.tasks(ASKED):
        found = model.encode(_TEXTS, convert_to_tensor=True)
    for row, asked in enumerate(ASKED):
        one: Any = randes_cli.sentence_transformers.from_bank(bank, asked, device="cpu")
        wanted = one.encode(_TEXTS, convert_to_tensor=True)
        assert (found[row] - wanted[row]).abs().max() < 1e-5
        assert row == 0 or (found[row] - wanted[0]).abs().max() > 1e-3
