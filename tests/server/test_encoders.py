"""Embeddings and classes are those of each task's own model, as its library computes them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
import transformers as tf

import randes_cli
from randes_cli.server.encoding import Encoding
from randes_cli.server.service import Service
from tests.live.many import options, pack_folders
from tests.models import SMALL, perturb
from tests.server.service import alphabet, client, http, serving, tokenizer

TASKS = ("dense", "mean", "cls", "prompt", "apart", "denser")
TEXTS = ("a", "some words", "many more words than those before them")


def bert_config(**more: Any) -> Any:
    return tf.BertConfig(**{**SMALL, "vocab_size": len(alphabet())}, pad_token_id=0, **more)


def encoders(folder: Path) -> Path:
    """Sentence encoders that end differently: in what they pool, a layer of their own, a prompt
    that is not pooled (or would not be), and how much of a vector is told."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
    )

    torch.manual_seed(0)
    network = tf.BertModel(bert_config(), add_pooling_layer=False)
    for number, task in enumerate(("base", *TASKS)):
        if number:
            perturb(network, number)
        network.save_pretrained(folder / "plain" / task)
        tokenizer(None, around=True).save_pretrained(folder / "plain" / task)
        first = Transformer(str(folder / "plain" / task), max_seq_length=48)
        pooling = Pooling(
            32, "cls" if task == "cls" else "mean", include_prompt=task not in ("prompt", "apart")
        )
        modules: list[Any] = [first, pooling]
        if task in ("dense", "denser"):
            modules.append(Dense(32, 12))
        if task in ("mean", "prompt"):
            modules.append(Normalize())
        prompts = {"q": "query: "} if task == "prompt" else {}
        made = SentenceTransformer(
            modules=modules,
            prompts=prompts,
            default_prompt_name="q" if prompts else None,
            truncate_dim=20 if task == "cls" else None,
        )
        made.save(str(folder / task), create_model_card=False)
    return pack_folders(folder, options(), TASKS)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def service(bank: Path) -> Iterator[Service]:
    with serving(bank) as made:
        yield made


def assert_near(found: Sequence[float], wanted: Sequence[float]) -> None:
    assert len(found) == len(wanted)
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 1e-4


def test_many_clients_get_each_encoders_own_vectors(
    service: Service, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, read = (*TASKS, "base"), list[tuple[int, int]]()
    for lane in service.engine.current.lanes:
        assert isinstance(lane, Encoding)

        def looked_at(rows: Any, run: Any = lane._read) -> Any:
            read.append((len(rows), max(len(row.ids) for row in rows)))
            return run(rows)

        monkeypatch.setattr(lane, "_read", looked_at)
    own = {
        name: randes_cli.sentence_transformers.from_bank(
            bank, None if name == "base" else name, device="cpu"
        )
        for name in names
    }
    wanted = {name: own[name].encode(list(TEXTS)).tolist() for name in names}

    def ask(number: int) -> tuple[str, Any]:
        name = names[number % len(names)]
        return name, client(service).embeddings.create(model=name, input=list(TEXTS))

    with ThreadPoolExecutor(20) as clients:
        found = list(clients.map(ask, range(20)))
    for name, made in found:
        assert [one.index for one in made.data] == [0, 1, 2]
        for one, vector in zip(made.data, wanted[name], strict=True):
            assert_near(one.embedding, vector)
    assert all(rows == 1 or rows * longest <= 64 for rows, longest in read)
    assert max(read)[0] > 1
    assert (len(wanted["dense"][0]), len(wanted["cls"][0])) == (12, 20)
    ids = tokenizer(None, around=True)(TEXTS[0]).input_ids  # before which no prompt is put
    made = client(service).embeddings.create(model="prompt", input=[ids, ids])
    assert_near(made.data[1].embedding, own["prompt"].encode(TEXTS[0], prompt="").tolist())
    assert made.usage.prompt_tokens == 2 * len(ids)
    assert len({str(wanted[name][2][:4]) for name in names}) == len(names)


def test_numbers_and_base64_say_the_same(service: Service) -> None:
    body = {"model": "mean", "input": "word"}
    path = f"{service.address}/v1/embeddings"
    numbers = http.post(path, json=body).json()
    packed = http.post(path, json={**body, "encoding_format": "base64"}).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert_near(struct.unpack("<32f", raw), numbers["data"][0]["embedding"])
    assert numbers["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    tokens = http.post(path, json={**body, "input": tokenizer(None, around=True)("word").input_ids})
    assert_near(tokens.json()["data"][0]["embedding"], numbers["data"][0]["embedding"])


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"dimensions": 8}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"input": "x" * 47}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x"] * 2049}, "input"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    service: Service, more: dict[str, Any], field: str
) -> None:
    found = http.post(
        f"{service.address}/v1/embeddings", json={"model": "mean", "input": "x", **more}
    )
    assert (found.status_code, found.json()["error"]["param"]) == (422, field)


def test_a_long_text_is_cut_where_that_is_asked_for(service: Service, bank: Path) -> None:
    long = "word " * 40
    wanted = randes_cli.sentence_transformers.from_bank(bank, "cls", device="cpu").encode(long)
    found = client(service).embeddings.create(
        model="cls", input=long, extra_body={"truncate": True}
    )
    assert_near(found.data[0].embedding, wanted.tolist())
    assert found.usage.prompt_tokens == 48


def test_what_sentence_transformers_does_otherwise_is_not_served_as_an_embedding(
    tmp_path: Path,
) -> None:
    encoders(tmp_path)
    strange = {
        "dense": ("modules.json", "modules.dense.Dense", "modules.lstm.LSTM"),
        "cls": ("config_sentence_transformers.json", '"SentenceTransformer"', '"SparseEncoder"'),
        "prompt": ("modules.json", "modules.transformer.Transformer", "modules.router.Router"),
    }
    for task, (name, before, after) in strange.items():
        file = tmp_path / task / name
        assert before in file.read_text()
        file.write_text(file.read_text().replace(before, after))
    with serving(pack_folders(tmp_path, options(), TASKS)) as service:
        assert set(service.engine.current.models) == {"base", "mean", "apart", "denser"}
        assert service.engine.current.unserved == {
            "dense": "sentence-transformers' layer LSTM is not served",
            "cls": "a SparseEncoder of sentence-transformers is not served",
            "prompt": "sentence-transformers' layer Router is not served",
        }


def test_a_model_of_another_kind_says_where_to_ask(service: Service) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="/v1/embeddings"):
        client(service).completions.create(model="mean", prompt="x")


def test_a_cross_encoder_is_a_classifier_as_its_network_is(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    network = tf.BertForSequenceClassification(bert_config(num_labels=1))
    for number, task in enumerate(("base", "near")):
        perturb(network, number)
        network.save_pretrained(tmp_path / "plain" / task)
        tokenizer(None, around=True).save_pretrained(tmp_path / "plain" / task)
        CrossEncoder(str(tmp_path / "plain" / task), device="cpu").save(str(tmp_path / task))
    bank = pack_folders(tmp_path, options(), ("near",))
    own: Any = randes_cli.sentence_transformers.from_bank(bank, "near", cls=CrossEncoder)
    wanted = own.predict([("one", "other")], activation_fn=torch.nn.Identity())
    with serving(bank) as service:
        body = {"model": "near", "input": {"text": "one", "text_pair": "other"}}
        found = http.post(f"{service.address}/v1/classify", json=body).json()["data"]
    assert found[0]["probs"] == pytest.approx(wanted.tolist(), abs=1e-4)


def classifiers(folder: Path) -> Path:
    """A plain encoder, and classifiers of it: three labels, two, several at once, and a grade."""
    torch.manual_seed(0)
    base = tf.BertModel(bert_config())
    base.save_pretrained(folder / "base")
    for number, (task, labels, more) in enumerate(HEADS):
        config = bert_config(
            id2label=dict(enumerate(labels)),
            label2id={label: n for n, label in enumerate(labels)},
            **more,
        )
        model = tf.BertForSequenceClassification(config)
        model.bert.load_state_dict(base.state_dict())
        perturb(model, number)
        model.save_pretrained(folder / task)
        tokenizer(None, around=True).save_pretrained(folder / task)
    return pack_folders(folder, options(), [task for task, _, _ in HEADS])


HEADS: tuple[tuple[str, list[str], dict[str, Any]], ...] = (
    ("mood", ["sad", "neither", "glad"], {}),
    ("spam", ["<b>spam</b>", "ham"], {}),
    ("topics", ["a", "b", "c", "d"], {"problem_type": "multi_label_classification"}),
    ("grade", ["grade"], {"problem_type": "regression"}),
)


def test_classes_are_those_of_each_classifier_alone(tmp_path: Path) -> None:
    bank = classifiers(tmp_path)
    words = tokenizer(None, around=True)
    pairs: list[Any] = [*TEXTS, {"text": "one", "text_pair": "another"}]
    with serving(bank) as service:
        assert set(service.engine.current.models) == {task for task, _, _ in HEADS}
        path = f"{service.address}/v1/classify"
        with ThreadPoolExecutor(8) as clients:
            found = list(
                clients.map(
                    lambda n: http.post(path, json={"model": HEADS[n % 4][0], "input": pairs}),
                    range(8),
                )
            )
    for number, answer in enumerate(found):
        task, labels, more = HEADS[number % 4]
        model = randes_cli.transformers.from_bank(bank, task).eval()
        made = answer.json()
        assert made["labels"] == labels and made["model"] == task
        for one, text in zip(made["data"], pairs, strict=True):
            given = (text,) if isinstance(text, str) else (text["text"], text["text_pair"])
            with torch.inference_mode():
                logits = model(**words(*given, return_tensors="pt")).logits[0]
            several = more.get("problem_type") == "multi_label_classification"
            probs = logits.sigmoid() if several else logits.softmax(-1)
            probs = logits if len(labels) == 1 else probs
            assert_near(one["probs"], probs.tolist())
            assert one["label"] == labels[int(probs.argmax())]
            assert one["num_classes"] == len(labels)
