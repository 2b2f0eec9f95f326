"""Networks of other families are served as they are alone, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import randes_cli
from randes_cli.errors import MismatchError, MissingError
from tests.live.many import options, pack_folders
from tests.models import SMALL, perturb
from tests.server.service import Alone, alphabet, client, http, serving, sizes, text_bank, tokenizer

VOCABULARY = len(alphabet())
ENCODER: dict[str, Any] = {**SMALL, "vocab_size": VOCABULARY, "pad_token_id": 0}


def bank_of(folder: Path, model: Any) -> Path:
    torch.manual_seed(0)
    for number, task in enumerate(("base", "one", "two")):
        if number:
            perturb(model, number)
        model.save_pretrained(folder / task)
        tokenizer(None, around=True).save_pretrained(folder / task)
    return pack_folders(folder, options(bits=4), ("one", "two"))


def roberta() -> Any:
    config = tf.RobertaConfig(**ENCODER, max_position_embeddings=42, num_labels=3)
    return tf.RobertaForSequenceClassification(config)


def llama() -> Any:
    config = tf.LlamaConfig(**sizes(), num_labels=3, max_position_embeddings=41)
    return tf.LlamaForSequenceClassification(config)


def unpadded() -> Any:
    """A classifier that takes one text at a time: it would find their ends by padding."""
    model = llama()
    model.config.pad_token_id = None
    return model


def bert() -> Any:
    return tf.BertModel(tf.BertConfig(**ENCODER, max_position_embeddings=41))


@pytest.mark.parametrize("hold", ["dense", "codes"])
@pytest.mark.parametrize("make", [roberta, llama, unpadded, bert], ids=lambda make: make.__name__)
def test_texts_are_read_as_each_task_alone_reads_them(
    make: Callable[[], Any], hold: str, tmp_path: Path
) -> None:
    bank, words = bank_of(tmp_path, make()), tokenizer(None, around=True)
    texts, address = ["a", "x" * 39], "embeddings" if make is bert else "classify"
    with serving(bank, hold=hold) as service:
        path = f"{service.address}/v1/{address}"
        found = http.post(path, json={"model": "two", "input": texts}).json()["data"]
        longer = http.post(path, json={"model": "two", "input": "x" * 40})
    assert longer.status_code == 422 and "takes 41 tokens" in longer.json()["error"]["message"]
    model = randes_cli.transformers.from_bank(bank, "two").eval()
    for one, text in zip(found, texts, strict=True):
        ids = torch.tensor([words(text).input_ids])
        with torch.inference_mode():
            made = model(input_ids=ids)
        if make is bert:
            wanted, got = made.last_hidden_state[0].mean(0).tolist(), one["embedding"]
        else:
            wanted, got = made.logits[0].softmax(-1).tolist(), one["probs"]
        assert got == pytest.approx(wanted, abs=1e-4)


def t5() -> Any:
    return tf.T5ForConditionalGeneration(
        tf.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
    )


def mamba() -> Any:
    return tf.MambaForCausalLM(
        tf.MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, state_size=4)
    )


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (t5, MissingError, "a T5ForConditionalGeneration is neither"),
        (mamba, MismatchError, "remembers more than keys and values"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_listens(
    make: Callable[[], Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said), serving(bank_of(tmp_path, make())):
        raise AssertionError("it is served")


def test_a_task_saved_without_a_tokenizer_reads_and_writes_with_the_base_s(tmp_path: Path) -> None:
    """As a Trainer saves one that was given no tokenizer."""
    text_bank(tmp_path, ["cars", "sun"])
    for file in (tmp_path / "cars").iterdir():
        if "token" in file.name or "template" in file.name:
            file.unlink()
    bank = pack_folders(tmp_path, options(), ["cars", "sun"])
    alone = Alone(bank)
    with serving(bank) as service:
        own = client(service)
        for task in ("cars", "sun"):
            made = own.chat.completions.create(
                model=task,
                messages=[{"role": "user", "content": "7 8"}],
                max_tokens=5,
                temperature=0,
            )
            prompt = randes_cli.transformers.processor_from_bank(
                bank, None if task == "cars" else task
            ).apply_chat_template(
                [{"role": "user", "content": "7 8"}], add_generation_prompt=True, tokenize=False
            )
            assert made.choices[0].message.content == alone.text(task, prompt, 5)
