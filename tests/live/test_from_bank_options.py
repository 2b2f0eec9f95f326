"""Whatever `from_pretrained` takes of an unpacked folder, `from_bank` takes of a bank."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from peft import LoraConfig, get_peft_model

import randes_cli
from randes_cli import PackOptions, TaskInput, pack
from randes_cli.errors import UsageError
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import OpenOptions, RunOptions
from tests.live.test_from_bank import assert_same, bank_of, unpacked
from tests.models import GROUPED, Made, bert, gpt2, llama, perturb


def qwen_with_tied_words() -> Made:
    config = tf.Qwen3Config(**GROUPED, tie_word_embeddings=True)
    return tf.Qwen3ForCausalLM(config), {}


OPTIONS: list[dict[str, Any]] = [
    {"output_attentions": True, "attention_dropout": 0.25, "use_cache": False},
    {"num_hidden_layers": 1},
    {"dtype": "auto", "attn_implementation": "eager"},
    {"torch_dtype": torch.bfloat16, "tie_word_embeddings": True},
    {"dtype": "float16", "local_files_only": True, "revision": "main", "variant": "fp16"},
    {"config": tf.LlamaConfig(**GROUPED, attention_dropout=0.5)},
    {"generation_config": tf.GenerationConfig(max_new_tokens=3)},
    {"cls": tf.AutoModelForCausalLM, "rms_norm_eps": 0.5},
    {"cls": tf.AutoModel},
]


@pytest.fixture(scope="module")
def llama_bank(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("llama")
    bank = bank_of(llama, folder)
    return bank, unpacked(bank, "task1", folder / "out")


@pytest.mark.parametrize("options", OPTIONS, ids=",".join)
def test_options_of_a_config_and_of_classes_are_those_of_from_pretrained(
    options: dict[str, Any], llama_bank: tuple[Path, Path]
) -> None:
    bank, folder = llama_bank
    found = randes_cli.transformers.from_bank(bank, "task1", **options)
    given = {key: value for key, value in options.items() if key not in ("cls", "variant")}
    wanted = options.get("cls", tf.LlamaForCausalLM).from_pretrained(folder, **given)
    assert_same(found, wanted)
    assert found.config.to_diff_dict() == wanted.config.to_diff_dict()
    assert getattr(found, "generation_config", None) == getattr(wanted, "generation_config", None)


@pytest.mark.parametrize("kept", ["model.embed_tokens.weight", "lm_head.weight"])
def test_without_a_dtype_in_the_config_the_first_tensor_of_the_file_says_it(
    kept: str, tmp_path: Path
) -> None:
    bank = tmp_path / "bank.randes"
    torch.manual_seed(0)
    model: Any = llama()[0].to(torch.bfloat16)
    parameter = model.get_parameter(kept)
    parameter.data = parameter.data.float()
    for name in ("base", "task"):
        model.save_pretrained(tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        del config["dtype"]
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        perturb(model, 1)
    pack(str(tmp_path / "base"), [TaskInput("task", str(tmp_path / "task"))], bank)
    found = randes_cli.transformers.from_bank(bank, "task")
    wanted = tf.LlamaForCausalLM.from_pretrained(unpacked(bank, "task", tmp_path / "out"))
    assert_same(found, wanted)


def test_tied_words_stay_tied(tmp_path: Path) -> None:
    found = randes_cli.transformers.from_bank(bank_of(qwen_with_tied_words, tmp_path), "task0")
    assert found.lm_head.weight is found.model.embed_tokens.weight


def test_code_of_a_model_is_run_where_that_is_said(tmp_path: Path) -> None:
    code = """
from transformers import LlamaConfig, LlamaForCausalLM

class TheirConfig(LlamaConfig):
    model_type = "theirs"

class TheirModel(LlamaForCausalLM):
    config_class = TheirConfig
    def answer(self):
        return 42
"""
    torch.manual_seed(0)
    model: Any = llama()[0]
    for name in ("base", "task"):
        model.save_pretrained(tmp_path / name)
        path = tmp_path / name / "config.json"
        config = json.loads(path.read_text()) | {
            "model_type": "theirs",
            "architectures": ["TheirModel"],
            "auto_map": {
                "AutoConfig": "theirs.TheirConfig",
                "AutoModelForCausalLM": "theirs.TheirModel",
            },
        }
        path.write_text(json.dumps(config))
        (tmp_path / name / "theirs.py").write_text(code)
        perturb(model, 1)
    bank = tmp_path / "bank.randes"
    given = PackOptions(opening=OpenOptions(trust_remote_code_files=True))
    pack(str(tmp_path / "base"), [TaskInput("task", str(tmp_path / "task"))], bank, given)
    with pytest.raises(UsageError, match="task is a model of code of its own: trust_remote_code"):
        randes_cli.transformers.from_bank(bank, "task")
    options = UnpackOptions(trust_remote_code_files=True)
    unpack(bank, ["task"], tmp_path / "out", options, RunOptions())
    wanted = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    for cls in (None, tf.AutoModelForCausalLM):
        found = randes_cli.transformers.from_bank(bank, "task", cls=cls, trust_remote_code=True)
        assert found.answer() == 42 and found.config.model_type == "theirs"
        ours, theirs = found.state_dict(), wanted.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    for name in ("a", "b"):
        get_peft_model(llama()[0], config).save_pretrained(tmp_path / name)
    tasks = [TaskInput(name, str(tmp_path / name)) for name in ("a", "b")]
    pack(None, tasks, tmp_path / "bank.randes")
    with pytest.raises(UsageError, match="a is an adapter, not a model: unpack it"):
        randes_cli.transformers.from_bank(
            tmp_path / "bank.randes", "a", cls=tf.LlamaForCausalLM, config=tf.LlamaConfig(**GROUPED)
        )


def threads(*works: Callable[[], object]) -> None:
    failed: list[BaseException] = []
    ready = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        try:
            ready.wait(300)
            work()
        except BaseException as error:
            failed.append(error)

    started = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    if failed:
        raise failed[0]


def test_banks_and_folders_are_opened_at_once_and_the_library_is_left_as_it_was(
    tmp_path: Path,
) -> None:
    before = tf.PreTrainedModel.__dict__["from_pretrained"]
    banks = {make: bank_of(make, tmp_path / make.__name__) for make in (gpt2, bert, llama)}
    wanted = {
        make: type(make()[0]).from_pretrained(bank.parent / "base")  # type: ignore[attr-defined]
        for make, bank in banks.items()
    }

    def work(make: Callable[[], Made]) -> None:
        for _ in range(3):
            assert_same(randes_cli.transformers.from_bank(banks[make]), wanted[make])

    threads(*[partial(work, make) for make in (*banks, *banks)])
    assert tf.PreTrainedModel.__dict__["from_pretrained"] is before
