"""A model opened from a bank is the one that `unpack` and the library's own loader give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as tf
from torch import nn

import randes_cli
from randes_cli import Bank, TaskInput, pack
from randes_cli.errors import BankDamaged, MissingError, UsageError
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import RunOptions
from tests.build.test_resources import peak
from tests.models import MODELS, Made, gpt2, llama, perturb, plain_unet, save, unet

if TYPE_CHECKING:
    from tests.hub_server import HubServer


def bank_of(make: Callable[[], Made], folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A bank of a model with a random base and two fine-tunes."""
    torch.manual_seed(0)
    model, _ = make()
    save(model, folder / "base", dtype, sharded=False)
    for number in range(2):
        perturb(model, number)
        save(model, folder / f"task{number}", dtype, sharded=False)
    tasks = [TaskInput(f"task{number}", str(folder / f"task{number}")) for number in range(2)]
    pack(str(folder / "base"), tasks, folder / "bank.randes")
    return folder / "bank.randes"


def unpacked(bank: Path, task: str, folder: Path) -> Path:
    unpack(bank, [task], folder, UnpackOptions(), RunOptions())
    return folder


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and all buffers, those that no checkpoint holds included."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def assert_same(found: nn.Module, wanted: nn.Module) -> None:
    assert type(found) is type(wanted) and found.training == wanted.training
    assert found.state_dict().keys() == wanted.state_dict().keys()
    ours, theirs = tensors(found), tensors(wanted)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_transformers_model_is_what_unpack_and_from_pretrained_give(
    make: Callable[[], Made], stored: torch.dtype, tmp_path: Path
) -> None:
    bank = bank_of(make, tmp_path, stored)
    folder = unpacked(bank, "task1", tmp_path / "out")
    for options in ({}, {"dtype": torch.float16}, {"device_map": "cpu"}):
        found = randes_cli.transformers.from_bank(bank, "task1", **options)
        wanted = type(found).from_pretrained(folder, **options)
        assert_same(found, wanted)
        assert getattr(found, "generation_config", None) == getattr(
            wanted, "generation_config", None
        )
        assert found.config.name_or_path == f"{bank}:task1"


def test_without_a_task_the_base_is_opened(tmp_path: Path) -> None:
    bank = bank_of(gpt2, tmp_path)
    found = randes_cli.transformers.from_bank(bank)
    assert_same(found, tf.GPT2LMHeadModel.from_pretrained(tmp_path / "base"))


def test_an_open_bank_a_class_and_a_coefficient_may_be_given(tmp_path: Path) -> None:
    with Bank.open(bank_of(gpt2, tmp_path)) as bank:
        found = randes_cli.transformers.from_bank(bank, "task0", cls=tf.GPT2Model, coefficient=0.5)
        wanted = bank.retrieve("task0", coefficient=0.5)
    assert type(found) is tf.GPT2Model
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, wanted[f"transformer.{name}"])


def test_a_resized_vocabulary_and_a_head_of_its_own_come_along(tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    base = tf.BertForSequenceClassification(tf.BertConfig(vocab_size=96, **size, num_labels=2))
    base.save_pretrained(tmp_path / "base")
    task = tf.BertForSequenceClassification(tf.BertConfig(vocab_size=101, **size, num_labels=7))
    common = base.state_dict()
    grown = common.pop("bert.embeddings.word_embeddings.weight")
    del common["classifier.weight"], common["classifier.bias"]
    task.load_state_dict(common, strict=False)
    with torch.no_grad():
        task.bert.embeddings.word_embeddings.weight[:96] = grown
    perturb(task, 1)
    task.save_pretrained(tmp_path / "task")
    bank = tmp_path / "bank.randes"
    pack(str(tmp_path / "base"), [TaskInput("task", str(tmp_path / "task"))], bank)
    found = randes_cli.transformers.from_bank(bank, "task")
    folder = unpacked(bank, "task", tmp_path / "out")
    assert_same(found, tf.BertForSequenceClassification.from_pretrained(folder))
    assert found.classifier.weight.shape == (7, 32)


def test_the_tokenizer_comes_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tf.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "base")
    tokens = tf.AutoTokenizer.from_pretrained(tmp_path / "base")("a b").input_ids
    bank = bank_of(gpt2, tmp_path)
    found = randes_cli.transformers.processor_from_bank(bank)
    assert found("a b").input_ids == tokens
    with pytest.raises(MissingError, match="task0 has no tokenizer or processor"):
        randes_cli.transformers.processor_from_bank(bank, "task0")


def test_no_weights_touch_the_disk_and_memory_peaks_at_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Made:
        config = tf.LlamaConfig(
            vocab_size=512,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=4,
        )
        return tf.LlamaForCausalLM(config), {}

    bank = bank_of(make, tmp_path)
    size = sum(p.nbytes for p in randes_cli.transformers.from_bank(bank).parameters())
    largest = 4 * 1024 * 256
    monkeypatch.setattr("randes_cli.workers.STRIP_ELEMENTS", 2**16)
    held = peak(lambda: randes_cli.transformers.from_bank(bank, "task1"))
    assert size <= held <= size + 8 * largest + 4 * 2**20


def test_what_cannot_be_built_is_said(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    with pytest.raises(MissingError, match=r"no task 'tsak1'.*it has task0, task1"):
        randes_cli.transformers.from_bank(bank, "tsak1")
    config = tf.AutoConfig.from_pretrained(tmp_path / "base")
    config.architectures = ["TheirModel"]
    with pytest.raises(UsageError, match="task0 is a TheirModel, which transformers does not have"):
        randes_cli.transformers.from_bank(bank, "task0", config=config)
    bare = tmp_path / "base" / "model.safetensors"
    pack(str(bare), [TaskInput("t", str(tmp_path / "task0/model.safetensors"))], tmp_path / "c")
    with pytest.raises(MissingError, match=r"no config\.json travels with t"):
        randes_cli.transformers.from_bank(tmp_path / "c", "t")


def test_damage_is_an_error_and_not_a_model(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    key = "sum/0/model.layers.1.mlp.up_proj.weight"
    with Bank.open(bank) as opened:
        start = opened.file.header.starts[key]
    data = bytearray(bank.read_bytes())
    data[start] ^= 1
    bank.write_bytes(data)
    with pytest.raises(BankDamaged, match=r"up_proj\.weight' is damaged"):
        randes_cli.transformers.from_bank(bank, "task0")


def test_a_bank_on_the_hub_is_read_by_range(tmp_path: Path, hub: HubServer) -> None:
    bank = bank_of(llama, tmp_path)
    hub.add("maker/many", {"bank.randes": bank.read_bytes()})
    found = randes_cli.transformers.from_bank("maker/many", "task1")
    assert_same(found, randes_cli.transformers.from_bank(bank, "task1"))
    asked = [request for request in hub.requests if "/resolve/" in request.path]
    assert all(request.range for request in asked)


def save_twice(model: Any, part: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder / "base")
    perturb(part, 1)
    model.save_pretrained(folder / "style")
    pack(str(folder / "base"), [TaskInput("style", str(folder / "style"))], folder / "bank.randes")
    return folder / "bank.randes"


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("device_map", [None, "cpu", {"": "cpu"}])
def test_a_diffusers_model_is_what_unpack_and_from_pretrained_give(
    tmp_path: Path, dtype: torch.dtype | None, device_map: Any
) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    model = unet()
    bank = save_twice(model, model, tmp_path)
    found = randes_cli.diffusers.from_bank(bank, "style", dtype=dtype, device_map=device_map)
    folder = unpacked(bank, "style", tmp_path / "out")
    given = {} if dtype is None else {"torch_dtype": dtype}
    assert_same(found, UNet2DConditionModel.from_pretrained(folder, **given))


def test_a_diffusers_pipeline_comes_with_its_components(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    torch.manual_seed(0)
    part = plain_unet()
    pipeline = DDPMPipeline(part, DDPMScheduler(num_train_timesteps=4))
    bank = save_twice(pipeline, part, tmp_path)
    found = randes_cli.diffusers.from_bank(bank, "style")
    wanted = DDPMPipeline.from_pretrained(unpacked(bank, "style", tmp_path / "out"))
    assert_same(found.unet, wanted.unet)
    assert found.scheduler.config == wanted.scheduler.config
    assert_same(
        randes_cli.diffusers.from_bank(bank).unet,
        DDPMPipeline.from_pretrained(tmp_path / "base").unet,
    )


def test_a_sentence_encoder_comes_with_its_pooling_and_dense_layer(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tf.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "enc")
    config = tf.BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    tf.BertModel(config).save_pretrained(tmp_path / "enc")
    parts = [Transformer(str(tmp_path / "enc")), Pooling(32), Dense(32, 16)]
    model = SentenceTransformer(modules=parts, device="cpu")
    bank = save_twice(model, model, tmp_path)
    found = randes_cli.sentence_transformers.from_bank(bank, "style", device="cpu")
    wanted = SentenceTransformer(str(unpacked(bank, "style", tmp_path / "out")), device="cpu")
    assert_same(found, wanted)
    assert (found.encode(["a b"]) == wanted.encode(["a b"])).all()
